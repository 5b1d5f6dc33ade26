use journey_layer::macros::*;

fn main() {
    let span = journey_span!(scope = "vllm.api", name = "llm_core", reqest_id = "a", temperature = %0.7, e2e = 1.0);
    journey_event!(&span, FINISHED, kind = FIRST, step = ?1, phse = DECODE);
}

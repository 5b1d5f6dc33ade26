use journey_layer::macros::*;

fn main() {
    let tokens = "12";
    let span = journey_span!(scope = "vllm.api", max_tokens = tokens.trim());
    let sequence = journey_span!(scope = "vllm.scheduler");
    journey_event!(&sequence, QUEUED, step = tokens);
    journey_record!(&span, prompt_tokens = tokens);
}

use journey_layer::macros::*;

fn main() {
    let span = journey_span!(scope = "vllm.api");
    journey_record!(&span);
}

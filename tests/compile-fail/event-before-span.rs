use journey_layer::macros::*;

fn main() {
    let span = journey_span!(scope = "vllm.scheduler");
    journey_event!(QUEUED, &span);
}

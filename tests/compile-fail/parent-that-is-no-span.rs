use journey_layer::macros::journey_span;

fn main() {
    let parent = 7_u64;
    let span = journey_span!(scope = "vllm.scheduler", parent = &parent);
    drop(span);
}

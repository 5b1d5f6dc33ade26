use journey_layer::macros::journey_span;

fn main() {
    let span = journey_span!(scope = "vllm.api", sibling);
    drop(span);
}

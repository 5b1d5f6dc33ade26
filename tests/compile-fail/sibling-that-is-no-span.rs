use journey_layer::macros::journey_span;

fn main() {
    let first = "cmpl-1";
    let span = journey_span!(scope = "vllm.api", sibling = first);
    drop(span);
}

use journey_layer::macros::journey_span;

fn main() {
    let span = journey_span!(scope = "vllm.api", n = %2);
    drop(span);
}

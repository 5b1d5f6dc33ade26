use journey_layer::macros::journey_span;

fn main() {
    let span = journey_span!(scope = "vllm.api", temperature = 1);
    drop(span);
}

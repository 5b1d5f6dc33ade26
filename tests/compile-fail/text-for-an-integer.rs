use journey_layer::macros::journey_span;

fn main() {
    let tokens = "12";
    let span = journey_span!(scope = "vllm.api", max_tokens = tokens.trim());
    drop(span);
}

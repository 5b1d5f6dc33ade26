use journey_layer::journey_span;

#[journey_span(scope = "vllm.api")]
struct Handler;

fn main() {
    drop(Handler);
}

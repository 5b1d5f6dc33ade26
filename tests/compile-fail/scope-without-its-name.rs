use journey_layer::journey_span;

#[journey_span("vllm.api")]
fn handle() {}

fn main() {
    handle();
}

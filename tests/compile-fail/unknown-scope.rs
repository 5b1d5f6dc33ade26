use journey_layer::journey_span;

#[journey_span(scope = "vllm.ap")]
fn handle() {}

fn main() {
    handle();
}

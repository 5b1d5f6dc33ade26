use journey_layer::journey_span;

#[journey_span(scope = "vllm.api", err)]
fn handle() {}

fn main() {
    handle();
}

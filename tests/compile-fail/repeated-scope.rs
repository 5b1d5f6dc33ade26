use journey_layer::journey_span;

#[journey_span(scope = "vllm.api", scope = "vllm.scheduler")]
fn handle() {}

fn main() {
    handle();
}

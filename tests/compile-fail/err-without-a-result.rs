use journey_layer::journey_span;

#[journey_span(scope = "vllm.api", err)]
async fn handle() -> Option<String> {
    None
}

fn main() {
    drop(handle());
}

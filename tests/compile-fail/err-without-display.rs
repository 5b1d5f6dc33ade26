use journey_layer::journey_span;

#[derive(Debug)]
struct Opaque;

#[journey_span(scope = "vllm.api", err)]
async fn handle() -> Result<(), Opaque> {
    Err(Opaque)
}

fn main() {
    drop(handle());
}

use journey_layer::journey_span;

trait Handler {
    #[journey_span(scope = "vllm.api")]
    async fn handle(&self);
}

struct Nothing;

impl Handler for Nothing {
    async fn handle(&self) {}
}

fn main() {
    drop(Nothing.handle());
}

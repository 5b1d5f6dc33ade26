use journey_layer::journey_span;

struct Handler;

#[journey_span(scope = "vllm.api")]
impl Handler {
    fn handle(&self) {}
}

fn main() {
    Handler.handle();
}

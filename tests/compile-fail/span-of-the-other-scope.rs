use journey_layer::journey_span;

#[journey_span(scope = "vllm.api", name = "llm_core")]
fn sequence() {}

fn main() {
    sequence();
}

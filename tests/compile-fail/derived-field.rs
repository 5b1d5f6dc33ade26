use journey_layer::journey_span;

#[journey_span(scope = "vllm.api", fields(gen_ai.latency.e2e = 0.5))]
fn handle() {}

fn main() {
    handle();
}

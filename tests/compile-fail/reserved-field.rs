use journey_layer::journey_span;

#[journey_span(scope = "vllm.scheduler", fields(ts.monotonic_ns = 1))]
fn sequence() {}

fn main() {
    sequence();
}

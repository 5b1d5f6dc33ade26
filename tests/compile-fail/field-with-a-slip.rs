use journey_layer::journey_span;

#[journey_span(scope = "vllm.api", fields(gen_ai.request.temprature = 0.7))]
fn handle() {}

fn main() {
    handle();
}

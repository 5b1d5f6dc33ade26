use journey_layer::journey_span;

#[journey_span(scope = "vllm.api", request_id = id, fields(gen_ai.request.id = id))]
fn handle(id: &str) {
    println!("{id}");
}

fn main() {
    handle("cmpl-1");
}

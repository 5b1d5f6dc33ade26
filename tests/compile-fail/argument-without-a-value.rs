use journey_layer::journey_span;

#[journey_span(scope = "vllm.api", request_id)]
fn handle(request_id: &str) {
    println!("{request_id}");
}

fn main() {
    handle("cmpl-1");
}

use journey_layer::journey_span;

#[journey_span(scope = "vllm.api", reqest_id = id)]
fn handle(id: &str) {
    println!("{id}");
}

fn main() {
    handle("cmpl-1");
}

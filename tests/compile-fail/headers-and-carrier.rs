use std::collections::HashMap;

use journey_layer::journey_span;

#[journey_span(scope = "vllm.api", headers = headers, carrier = headers)]
fn handle(headers: &HashMap<String, String>) {
    println!("{headers:?}");
}

fn main() {
    handle(&HashMap::new());
}

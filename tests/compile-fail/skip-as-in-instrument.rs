use journey_layer::journey_span;

#[journey_span(scope = "vllm.api", skip(prompt))]
fn handle(prompt: &str) {
    println!("{prompt}");
}

fn main() {
    handle("a secret");
}

use journey_layer::journey_span;

const SCOPE: &str = "vllm.api";

#[journey_span(scope = SCOPE)]
fn handle() {}

fn main() {
    handle();
    println!("{SCOPE}");
}

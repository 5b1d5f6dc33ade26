use journey_layer::journey_span;

#[journey_span(scope = "vllm.api")]
const fn handle() -> u32 {
    1
}

const ONE: u32 = handle();

fn main() {
    println!("{ONE}");
}

use journey_layer::journey_span;

#[journey_span(scope = "vllm.scheduler", prompt_tokens = n)]
fn sequence(n: u32) {
    println!("{n}");
}

fn main() {
    sequence(1);
}

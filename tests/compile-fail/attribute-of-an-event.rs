use journey_layer::journey_span;

#[journey_span(scope = "vllm.scheduler", step = n)]
fn sequence(n: u64) {
    println!("{n}");
}

fn main() {
    sequence(1);
}

use journey_layer::journey_span;

#[journey_span(scope = "vllm.scheduler", name = "schedule_step")]
fn step() {}

fn main() {
    step();
}

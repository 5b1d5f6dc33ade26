use journey_layer::journey_span;

#[journey_span(scope = "vllm.scheduler", name = "scheduler_step", err)]
fn step() -> Result<(), String> {
    Ok(())
}

fn main() {
    step().ok();
}

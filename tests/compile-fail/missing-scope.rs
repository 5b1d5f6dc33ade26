use journey_layer::journey_span;

#[journey_span]
fn handle() {}

fn main() {
    handle();
}

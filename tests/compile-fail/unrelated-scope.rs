use journey_layer::journey_span;

#[journey_span(scope = "my.service")]
fn handle() {}

fn main() {
    handle();
}

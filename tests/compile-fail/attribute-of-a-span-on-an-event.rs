use journey_layer::journey_event;

fn main() {
    journey_event!(DEPARTED, completion_tokens = 3);
}

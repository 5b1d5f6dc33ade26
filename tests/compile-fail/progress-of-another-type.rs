use journey_layer::journey_event;

fn main() {
    let progress = (1, 2);
    journey_event!(QUEUED, ..progress);
}

use journey_layer::journey_event;

fn main() {
    journey_event!(QUEUED, ts.monotonic = 1.5);
}

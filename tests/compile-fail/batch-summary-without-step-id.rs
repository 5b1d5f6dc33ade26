use journey_layer::journey_event;

fn main() {
    journey_event!(BATCH_SUMMARY, running_depth = 3);
}

use journey_layer::journey_event;

fn main() {
    journey_event!(FINISHED, status = length, finish.status = stopped);
}

use journey_layer::journey_event;

fn main() {
    journey_event!(ABORTED, reason = "client_gone");
}

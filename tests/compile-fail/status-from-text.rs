use journey_layer::journey_event;

fn main() {
    let status = String::from("length");
    journey_event!(FINISHED, status = status.as_str());
}

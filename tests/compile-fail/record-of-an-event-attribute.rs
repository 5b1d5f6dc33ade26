use journey_layer::journey_record;

fn main() {
    journey_record!(status = length);
}

use journey_layer::journey_record;

fn main() {
    journey_record!(time_to_first_token = 0.2);
}

use journey_layer::journey_event;

fn main() {
    journey_event!(QUEUED, prefill_total_token = 12);
}

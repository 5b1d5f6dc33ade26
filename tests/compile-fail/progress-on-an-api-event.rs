use journey_layer::{Progress, journey_event};

fn main() {
    let progress = Progress::new();
    journey_event!(DEPARTED, ..progress);
}

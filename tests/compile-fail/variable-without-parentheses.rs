use journey_layer::{FinishStatus, journey_event};

fn main() {
    let outcome = FinishStatus::Length;
    journey_event!(FINISHED, status = outcome);
    println!("{outcome}");
}

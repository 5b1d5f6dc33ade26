//! `crate = path` leads every expansion to the layer.
#![deny(warnings)]

mod telemetry {
    pub use journey_layer as journey;
}

use telemetry::journey::{Progress, journey_span, macros::*};

#[journey_span(crate = telemetry::journey, scope = "vllm.api", err)]
async fn asynchronous() -> Result<(), String> {
    journey_event!(ARRIVED, crate = crate::telemetry::journey);
    journey_record!(crate = telemetry::journey, prompt_tokens = 1);
    Ok(())
}

#[journey_span(scope = "vllm.scheduler", crate = self::telemetry::journey)]
fn function() {
    journey_event!(FINISHED, status = length, crate = telemetry::journey, ..Progress::new());
}

fn main() {
    drop(asynchronous());
    function();
    let span = journey_span!(scope = "vllm.api", crate = ::journey_layer, request_id = %1);
    journey_record!(&span, n = 1, crate = telemetry::journey);
}

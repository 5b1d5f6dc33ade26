//! The shortest form of each macro.
#![deny(warnings)]

use journey_layer::{journey_span, macros::*};

#[journey_span(scope = "vllm.api")]
async fn completions() {
    journey_event!(ARRIVED);
    journey_event!(HANDOFF_TO_CORE);
    journey_event!(FIRST_RESPONSE);
    journey_record!(prompt_tokens = 3);
    journey_event!(DEPARTED);
}

#[journey_span(scope = "vllm.scheduler")]
fn sequence() {
    journey_event!(QUEUED);
    journey_event!(SCHEDULED);
    journey_event!(FIRST_TOKEN);
    journey_event!(PREEMPTED);
    journey_event!(FINISHED, status = stopped);
}

#[journey_span(scope = "vllm.scheduler", name = "scheduler_step")]
fn step() {
    journey_event!(BATCH_SUMMARY, step_id = 1);
    journey_event!(REQUEST_SNAPSHOT, step_id = 1, snapshot_request_id = "a");
}

fn main() {
    drop(completions());
    sequence();
    step();
    let span: journey_layer::tracing::Span = journey_span!(scope = "vllm.api");
    journey_event!(&span, ABORTED, reason = timeout);
    journey_layer::macros::journey_span!(scope = "vllm.scheduler").in_scope(|| journey_event!(QUEUED,));
}

//! A plain `fmt` layer, without ours, prints journeys sensibly.
#![deny(warnings)]

#[path = "support/mod.rs"]
mod support;

use journey_layer::{Progress, journey_span, macros::*};
use support::printed;

#[journey_span(scope = "vllm.api", request_id = id, fields(http.route = "/v1/completions"))]
fn handle(id: &str, prompt: &str) {
    journey_event!(ARRIVED);
    journey_record!(prompt_tokens = prompt.len(), temperature = 0.5);
    let core = journey_span!(scope = "vllm.scheduler", request_id = format!("{id}-1"));
    journey_event!(&core, SCHEDULED, kind = FIRST, ..Progress::new().step(7).prefill(0, 24));
    core.in_scope(|| journey_event!(FINISHED, status = length, step = 9));
    journey_event!(DEPARTED);
}

fn main() {
    let output = printed(|| handle("cmpl-1", "a secret"));
    let request = r#"llm_request{gen_ai.request.id="cmpl-1" http.route="/v1/completions""#;
    let recorded = format!("{request} gen_ai.usage.prompt_tokens=8 gen_ai.request.temperature=0.5}}");
    let core = format!(r#"{recorded}:llm_core{{gen_ai.request.id="cmpl-1-1"}}"#);
    let expected = [
        format!(" INFO {request}}}: vllm.api: new"),
        format!(" INFO {request}}}: vllm.api: api.ARRIVED"),
        format!(" INFO {core}: vllm.scheduler: new"),
        format!(
            r#" INFO {core}: vllm.scheduler: journey.SCHEDULED schedule.kind="FIRST" scheduler.step=7 prefill.done_tokens=0 prefill.total_tokens=24"#
        ),
        format!(r#" INFO {core}: vllm.scheduler: journey.FINISHED finish.status="length" scheduler.step=9"#),
        format!(" INFO {recorded}: vllm.api: api.DEPARTED"),
    ];
    let lines: Vec<&str> = output.lines().collect();
    assert_eq!(lines, expected);
}

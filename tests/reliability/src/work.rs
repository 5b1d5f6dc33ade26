//! Journeys as an engine makes them.

use journey_layer::{Builder, Journey, Progress, handoff, macros::*};
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;

/// Spans of one [`journey`].
pub const SPANS: u64 = 2;
/// Events of one [`journey`].
pub const EVENTS: u64 = 10;

/// A builder that no variable of this process reaches.
pub fn builder() -> Builder {
    Journey::builder().environment(|_| None)
}

/// Runs `f` with the journey's layer as this thread's subscriber.
pub fn traced<T>(journey: &Journey, f: impl FnOnce() -> T) -> T {
    let _default = tracing_subscriber::registry().with(journey.layer()).set_default();
    f()
}

/// One whole journey with everything that the engine says of a request: 2 spans, 10 events.
pub fn journey(id: &str) {
    let request = journey_span!(scope = "vllm.api", request_id = %id, route = "/v1/completions");
    journey_event!(&request, ARRIVED);
    journey_record!(
        &request,
        prompt_tokens = 24,
        temperature = 0.7,
        top_p = 0.95,
        max_tokens = 16,
        n = 1,
        model = "tiny"
    );
    let core =
        journey_span!(scope = "vllm.scheduler", request_id = %format_args!("{id}-0"), carrier = &handoff(&request));
    let progress = Progress::new().prefill(0, 24).decode(0, 16);
    journey_event!(&core, QUEUED, ..progress.step(0));
    journey_event!(&request, HANDOFF_TO_CORE);
    journey_event!(&core, SCHEDULED, ..progress.step(1));
    journey_event!(&core, FIRST_TOKEN, ..progress.prefill(24, 24).decode(1, 16).step(2));
    journey_event!(&request, FIRST_RESPONSE);
    journey_event!(&core, PREEMPTED, ..progress.prefill(24, 24).decode(8, 16).step(9));
    journey_event!(&core, SCHEDULED, ..progress.prefill(24, 24).decode(8, 16).step(11));
    journey_event!(&core, FINISHED, status = length, ..progress.prefill(24, 24).decode(16, 16).step(19));
    journey_record!(&request, completion_tokens = 16);
    journey_event!(&request, DEPARTED);
}

/// `count` journeys on each of `threads` threads, as fast as they can.
pub fn burst(pipeline: &Journey, threads: u64, count: u64) {
    std::thread::scope(|scope| {
        for thread in 0..threads {
            scope.spawn(move || traced(pipeline, || (0..count).for_each(|n| journey(&format!("cmpl-{thread}-{n}")))));
        }
    });
}

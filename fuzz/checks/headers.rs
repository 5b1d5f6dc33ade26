//! What must hold whatever headers a client sends.

use std::sync::OnceLock;

use journey_layer::opentelemetry_sdk::error::OTelSdkResult;
use journey_layer::opentelemetry_sdk::trace::{SpanData, SpanExporter};
use journey_layer::tracing::dispatcher::{self, Dispatch};
use journey_layer::{Exporter, Headers, Journey, handoff, macros::*};
use tracing_subscriber::layer::SubscriberExt;

/// Takes spans and forgets them.
#[derive(Debug)]
struct Nowhere;

impl SpanExporter for Nowhere {
    async fn export(&self, _: Vec<SpanData>) -> OTelSdkResult {
        Ok(())
    }
}

/// A header on each line: its name, a colon, its value.
struct Lines<'a>(&'a [u8]);

impl Headers for Lines<'_> {
    fn for_each(&self, name: &str, each: &mut dyn FnMut(&[u8])) {
        for line in self.0.split(|byte| *byte == b'\n') {
            if let Some(value) = line.strip_prefix(name.as_bytes()).and_then(|rest| rest.strip_prefix(b":")) {
                each(value);
            }
        }
    }
}

fn pipeline() -> &'static (Journey, Dispatch) {
    static PIPELINE: OnceLock<(Journey, Dispatch)> = OnceLock::new();
    PIPELINE.get_or_init(|| {
        let builder = Journey::builder().environment(|_| None).exporter(Exporter::new(Nowhere));
        let journey = builder.build().expect("a pipeline");
        let dispatch = Dispatch::new(tracing_subscriber::registry().with(journey.layer()));
        (journey, dispatch)
    })
}

/// Makes a journey with the headers in `data`.
///
/// # Panics
/// Something does not hold.
pub(crate) fn check(data: &[u8]) {
    let (journey, dispatch) = pipeline();
    dispatcher::with_default(dispatch, || {
        let headers = Lines(data);
        let request = journey_span!(scope = "vllm.api", headers = &headers);
        let carrier = handoff(&request);
        if let Some(traceparent) = carrier.get("traceparent") {
            assert_eq!(traceparent.len(), 55, "{traceparent}");
            let state = &carrier["tracestate"];
            let others = state.strip_prefix("journey=llm_request").expect("the journey's member comes first");
            assert!(others.len() <= ",".len() + 512, "{}", others.len());
            let is_ours = |member: &str| member.starts_with("journey=");
            assert!(!others.split(',').any(is_ours), "one from outside got through: {others}");
            assert_eq!(carrier["x-vllm-journey-sampled"], "1");
        } else {
            assert!(carrier.is_empty(), "{carrier:?}");
        }
        let core = journey_span!(scope = "vllm.scheduler", carrier = &carrier);
        let again = handoff(&core);
        assert_eq!(
            again.get("tracestate"),
            carrier.get("tracestate"),
            "what was passed on once is passed on unchanged"
        );
        drop(core);
        // The same bytes from a peer that is trusted.
        let _core = journey_span!(scope = "vllm.scheduler", carrier = &headers);
    });
    assert_eq!(journey.stats().spans.rejected(), 0, "nobody's request is refused for its headers");
}

//! Every argument of a span, in every spelling.
#![deny(warnings)]

use std::borrow::Cow;
use std::collections::{BTreeMap, HashMap};
use std::fmt;
use std::num::NonZeroU32;
use std::sync::Arc;

use journey_layer::macros::journey_span;
use journey_layer::tracing::Span;

#[derive(Debug)]
struct Id(u64);

impl fmt::Display for Id {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "chatcmpl-{}", self.0)
    }
}

struct Request {
    id: Id,
    model: Option<String>,
    max_tokens: Option<u32>,
    headers: HashMap<String, String>,
    span: Span,
}

fn request_spans(request: &Request) -> Span {
    let _ =
        journey_span!(scope = "vllm.api", name = "llm_request", request_id = %request.id, headers = &request.headers);
    let _ = journey_span!(scope = "vllm.api", request_id = ?request.id, headers = request.headers);
    let _ = journey_span!(scope = "vllm.api", "gen_ai.request.id" = "a", gen_ai.request.n = 2, http.route = "/v1");
    let _ = journey_span!(scope = "vllm.api", gen_ai.usage.input_tokens = 2, "gen_ai.usage.output_tokens" = 3_u64);
    journey_span!(
        scope = "vllm.api",
        request_id = format!("cmpl-{}", request.id.0),
        prompt_tokens = 12_u8,
        completion_tokens = -1_i16,
        top_p = 0.9_f32,
        max_tokens = request.max_tokens,
        temperature = Some(0.7),
        fields(n = NonZeroU32::MIN, gen_ai.response.model = request.model.as_deref(), "http.route" = "/v1/completions",),
    )
}

fn siblings(first: Arc<Span>, headers: &HashMap<String, String>) {
    let second = journey_span!(scope = "vllm.api", request_id = "b", headers = headers, sibling = first);
    drop(journey_span!(scope = "vllm.api", sibling = &second));
    drop(first);
}

fn core_spans(request: &Request, carrier: BTreeMap<String, String>) {
    let id: Arc<str> = "a".into();
    let _ = journey_span!(scope = "vllm.scheduler", request_id = id, carrier = &carrier);
    let _ = journey_span!(scope = "vllm.scheduler", request_id = &id, carrier = Some(&carrier));
    let _ = journey_span!(scope = "vllm.scheduler", request_id = Cow::Borrowed("a"), parent = &request.span);
    let parent = Arc::new(request.span.clone());
    let step = journey_span!(scope = "vllm.scheduler", name = "scheduler_step", parent = parent);
    let _ = journey_span!(
        scope = "vllm.scheduler",
        name = "model_forward",
        parent = if step.is_none() { &step } else { &parent }
    );
    // Nothing was moved.
    drop((id, carrier, parent, step));
}

fn early_exits(ids: &[&str]) -> Option<Span> {
    Some(journey_span!(scope = "vllm.scheduler", request_id = ids.first()?, parent = &Span::current()))
}

async fn awaits(headers: &HashMap<String, String>) -> Span {
    let id = async { 7 };
    journey_span!(scope = "vllm.api", request_id = format!("{}", id.await), headers = headers)
}

fn sends<T: Send>(_: T) {}

fn main() {
    let span = journey_span!(scope = "vllm.api");
    let request = Request { id: Id(1), model: None, max_tokens: Some(4), headers: HashMap::new(), span };
    drop(request_spans(&request));
    core_spans(&request, BTreeMap::new());
    siblings(Arc::new(request.span.clone()), &request.headers);
    assert!(early_exits(&["a"]).is_some());
    sends(awaits(&request.headers));
}

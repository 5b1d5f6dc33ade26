//! Every form of `journey_record!`.
#![deny(warnings)]

use journey_layer::tracing::Span;
use journey_layer::{journey_span, macros::*};

struct Usage {
    prompt_tokens: u32,
    completion_tokens: Option<u32>,
}

struct Handler {
    span: Span,
}

impl Handler {
    #[journey_span(scope = "vllm.api")]
    fn handle(&self, usage: &Usage, model: String) -> Option<()> {
        journey_record!(prompt_tokens = usage.prompt_tokens, completion_tokens = usage.completion_tokens?);
        journey_record!(gen_ai.response.model = model, "http.route" = "/v1/completions", temperature = 0.5);
        journey_record!(&self.span, top_p = Some(1.0), max_tokens = 5, n = 1,);
        journey_record!(self.span, request_id = %usage.prompt_tokens, model = ?model);
        Some(())
    }
}

#[journey_span(scope = "vllm.scheduler")]
async fn sequence() {
    journey_record!(request_id = async { "a" }.await);
}

fn main() {
    let span = journey_span!(scope = "vllm.api");
    journey_record!(span, prompt_tokens = 1);
    let usage = Usage { prompt_tokens: 1, completion_tokens: None };
    assert!(
        Handler { span }.handle(&usage, "tiny".into()).is_some(),
        "arguments are not evaluated where no one listens"
    );
    fn sends<T: Send>(_: T) {}
    sends(sequence());
}

//! The macros of `journey-layer`, which re-exports them: depend on that crate, not on this one.
//!
//! A call is parsed (`args`), held against the schema (`valid`) and turned into plain `tracing` calls (`expand_*`). A
//! mistake becomes a compiler error under the word that is wrong, with the way out, and all mistakes of a call are
//! reported at once; what else the call stands for compiles as if nothing had happened (`fallback`).
#![forbid(unsafe_code)]

mod args;
mod bind;
mod expand_event;
mod expand_fn;
mod expand_record;
mod expand_span;
mod fallback;
mod function;
#[cfg(test)]
mod fuzz;
mod valid;

use proc_macro::TokenStream;

/// Runs a function inside a journey span.
///
/// ```
/// use std::collections::HashMap;
///
/// use journey_layer::{journey_event, journey_span};
///
/// #[journey_span(scope = "vllm.api", request_id = %id, headers = headers, fields(http.route = "/v1/completions"), err)]
/// async fn completions(id: u64, headers: &HashMap<String, String>, prompt: String) -> Result<String, std::fmt::Error> {
///     journey_event!(ARRIVED);
///     let text = prompt.to_uppercase();
///     journey_event!(DEPARTED);
///     Ok(text)
/// }
/// # drop(completions(1, &HashMap::new(), String::new()));
/// ```
///
/// No argument of the function is recorded unless it is named: prompts are private.
///
/// # Arguments
///
/// | argument | meaning |
/// |---|---|
/// | `scope = "vllm.api"` | the instrumentation scope, `vllm.api` or `vllm.scheduler`; required |
/// | `name = "scheduler_step"` | the span, one of the scope; without it `llm_request` in `vllm.api`, `llm_core` in `vllm.scheduler` |
/// | `headers = expr` | W3C trace headers from outside (`http::HeaderMap`, a map of strings, an `Option` of one) |
/// | `carrier = expr` | the map that `journey_layer::handoff` made on the other side |
/// | `parent = expr` | a `tracing::Span` of this process, or a reference to one |
/// | `sibling = expr` | for a second `llm_request` of one client request: the first one's `tracing::Span`, or a reference to it |
/// | `request_id = expr`, .. | an attribute of the span, by its short name |
/// | `fields(http.route = expr, ..)` | attributes by their keys, quoted or not, or by their short names |
/// | `err` | an `Err` that the function returns ends the span with the error's text; `err(Debug)` where it has no `Display` |
/// | `crate = path` | the path of `journey_layer`, where it goes by another name |
///
/// At most one of `headers`, `carrier` and `parent` is given; without them the parent is the enclosing journey span, else
/// the active OpenTelemetry context. A span with a `sibling` is sampled as that one is, and without a parent of its own
/// begins in its trace: a completion with several prompts opens one `llm_request` for each, and they arrive together or not
/// at all. The attributes of a span and their short names are listed in `docs/schema.md`.
/// Integers, floats and texts are taken as they are, an `Option` records what it holds, and `%expr` or `?expr` records
/// what `Display` or `Debug` prints.
///
/// The expressions see the function's arguments. They are evaluated once, in the order of writing, and not at all when
/// the span is switched off or its journey is sampled out; only `headers`, `carrier`, `parent` and `sibling` are, because
/// the decision needs them.
///
/// # Where it goes
///
/// On a function or method, `async` or not, generic or not. A function that returns `impl Future`,
/// `Pin<Box<dyn Future>>` or a `BoxFuture` is treated like an `async fn`: the future runs inside the span. When its body is one
/// `async` block, alone or in `Box::pin` (what `async_trait` makes), the span opens with the first poll, as for an
/// `async fn`; else when the function is called, and what the function does before the future runs is inside as well.
/// Under `#[async_trait]` the attribute stands on the methods.
///
/// # Expansion
///
/// ```text
/// async fn completions(id: u64, headers: &HashMap<String, String>, prompt: String) -> Result<String, Error> {
///     let span = journey_span!(scope = "vllm.api", request_id = %id, headers = headers, ..);
///     let result = instrument(span.clone(), async move { /* the body */ }).await;
///     if let Err(error) = &result {
///         failed(&span, SpanName::LlmRequest, error);
///     }
///     result
/// }
/// ```
///
/// A function that is no future enters the span instead. Both tell the layer when the body panics or is dropped before
/// its end. Inside, `tracing::Span::current()` is the span.
#[proc_macro_attribute]
pub fn journey_span(args: TokenStream, item: TokenStream) -> TokenStream {
    expand_fn::expand(args.into(), item.into()).into()
}

/// Makes a journey span to keep: `journey_span!`, a `tracing::Span`.
///
/// For spans that no function bounds, such as the `llm_core` of a sequence that many scheduler steps work on. The span
/// lives until its last handle is dropped. `journey_layer::macros::journey_span` is its path: one name cannot be both an
/// attribute and an expression in one module.
///
/// ```
/// use journey_layer::macros::*;
/// use journey_layer::tracing::Span;
///
/// struct Sequence {
///     span: Span,
/// }
///
/// # let (id, carrier) = ("cmpl-1-a", std::collections::BTreeMap::new());
/// let sequence = Sequence { span: journey_span!(scope = "vllm.scheduler", request_id = id, carrier = &carrier) };
/// journey_event!(&sequence.span, QUEUED);
/// ```
///
/// It takes the arguments of [`#[journey_span]`](macro@journey_span), but for `err`.
///
/// # Expansion
///
/// ```text
/// if level_enabled!(Level::INFO) {
///     let admission = admit(SpanName::LlmCore, Parent::Carrier(&carrier));
///     match admission {
///         Admission::Build(mut ticket) => match (&id,) {
///             (request_id,) => {
///                 ticket.text(Attr::RequestId, request_id); // for the journey layer
///                 ticket.build(|| tracing::span!(
///                     target: "vllm.scheduler", Level::INFO, "llm_core", "gen_ai.request.id" = request_id,
///                     // and every other attribute of the span as `Empty`, so that it can be recorded later
///                 ))
///             }
///         },
///         Admission::Out(span) => span, // sampled out, or refused as a duplicate
///     }
/// } else {
///     Span::none()
/// }
/// ```
#[proc_macro]
pub fn journey_span_expr(input: TokenStream) -> TokenStream {
    expand_span::expand(input.into()).into()
}

/// Emits a lifecycle event on a journey span.
///
/// ```
/// use journey_layer::macros::*;
/// use journey_layer::{FinishStatus, Progress};
///
/// # let span = journey_span!(scope = "vllm.scheduler");
/// journey_event!(&span, QUEUED);
/// journey_event!(&span, SCHEDULED, ..Progress::new().step(7).prefill(0, 24));
/// let status = FinishStatus::Length;
/// journey_event!(&span, FINISHED, status = (status), step = 31);
///
/// journey_event!(ABORTED, reason = timeout, error = %"no answer in 30 s");
/// ```
///
/// # Arguments
///
/// | argument | meaning |
/// |---|---|
/// | `&span,` | the span, first; without it the nearest enclosing span that owns the event |
/// | `FINISHED` | the event, bare; `FIRST_RESPONSE` is short for `FIRST_RESPONSE_FROM_CORE` |
/// | `step = expr`, `scheduler.step = expr`, .. | an attribute of the event, by its short name or its key, quoted or not |
/// | `status = length` | an attribute with few values: one of them, bare or quoted; in parentheses or as any other expression a `FinishStatus`, `ScheduleKind`, `Phase` or `AbortReason` |
/// | `crate = path` | the path of `journey_layer`, where it goes by another name |
/// | `..expr` | last: a `journey_layer::Progress`, for the events of `llm_core`; what is given by name goes before it |
///
/// `FINISHED` needs `status`, `ABORTED` needs `reason`, the events of scheduler steps need `step_id`, and
/// `REQUEST_SNAPSHOT` also `snapshot_request_id`. Names, time stamps, and what follows from the events before (`phase`,
/// `kind`, counters as last given) are the layer's to fill in. An `Option` records what it holds.
///
/// The arguments are evaluated once, in the order of writing, `..expr` last, and not at all when the span is switched
/// off or sampled out. The result is `()`.
///
/// # Expansion
///
/// ```text
/// if level_enabled!(Level::INFO) && wants(&span) {
///     match (&31,) {
///         (step,) => {
///             // Straight to the journey layer of the span's subscriber, if it has one.
///             emit(&SITE, &span, |said| { said.status(FinishStatus::Length); said.int(Attr::SchedulerStep, step); });
///             // For other layers; where none wants it, it is off.
///             tracing::event!(
///                 name: "journey.FINISHED", target: "vllm.scheduler", parent: &span, Level::INFO,
///                 { "journey.shadow" = Empty, "finish.status" = "length", "scheduler.step" = step },
///                 "journey.FINISHED" // as the message, because `fmt` does not print the name of an event
///             )
///         }
///     }
/// }
/// ```
#[proc_macro]
pub fn journey_event(input: TokenStream) -> TokenStream {
    expand_event::expand(input.into()).into()
}

/// Sets attributes on a journey span that is already open.
///
/// ```
/// use journey_layer::macros::*;
///
/// # let span = journey_span!(scope = "vllm.api");
/// journey_record!(&span, prompt_tokens = 12, temperature = Some(0.7));
/// journey_record!(completion_tokens = 64, gen_ai.response.model = "tiny");
/// ```
///
/// # Arguments
///
/// | argument | meaning |
/// |---|---|
/// | `&span,` | the span, first; without it the nearest enclosing span that owns all the attributes |
/// | `prompt_tokens = expr`, `http.route = expr`, .. | an attribute, by its short name or its key, quoted or not |
/// | `crate = path` | the path of `journey_layer`, where it goes by another name |
///
/// The values are those of [`#[journey_span]`](macro@journey_span), and are evaluated under the same conditions. An
/// attribute that is set twice keeps the last value. The result is `()`.
///
/// # Expansion
///
/// ```text
/// if level_enabled!(Level::INFO) && wants(&span) {
///     match (&12, &Some(0.7)) {
///         (prompt_tokens, temperature) => {
///             // Straight to the journey layer, if it is alone.
///             if !record(&span, |said| { said.int(Attr::PromptTokens, prompt_tokens); /* .. */ }) {
///                 span.record("gen_ai.usage.prompt_tokens", prompt_tokens);
///                 span.record("gen_ai.request.temperature", temperature);
///             }
///         }
///     }
/// }
/// ```
#[proc_macro]
pub fn journey_record(input: TokenStream) -> TokenStream {
    expand_record::expand(input.into()).into()
}

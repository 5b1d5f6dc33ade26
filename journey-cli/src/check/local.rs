//! Rules that one span shows by itself.

use journey_schema::{HISTORICAL_DUPLICATE_SCOPE, Scope, SpanKind, SpanName, nearest};

use super::dialect::{Dialects, is_fork_step};
use super::findings::Finding;
use super::rules::Rule;
use super::{attributes, events};
use crate::model::{Attributes, Kind, Name, Span, StatusCode};
use crate::read::At;

/// Scopes of engines that trace journeys begin so; spans of any other scope are somebody else's.
const OUR_PREFIX: &str = "vllm.";

/// Findings of one span: a span of a million wrong events is wrong, and no more needs to be said.
const MAX_OF_ONE_SPAN: usize = 200;

/// Longest piece of the input that a message quotes.
const QUOTED: usize = 80;
/// Characters of a name that a finding keeps.
const MAX_KEPT: usize = 256;

/// What a span is, to the rules that look at several spans.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// A span of the schema, in its scope.
    Schema(SpanName),
    /// The `llm_request` that the removed `do_tracing()` opened.
    HistoricalDuplicate,
    /// A span of the schema in a scope that does not own it, or an unknown one in a scope of ours.
    Strange,
    /// A span of another library or service.
    Foreign,
}

/// One span under the rules, and where its findings go.
pub(super) struct Local<'a> {
    pub(super) span: &'a Span,
    pub(super) at: At,
    pub(super) dialects: Dialects,
    pub(super) found: &'a mut Vec<Finding>,
}

impl Local<'_> {
    pub(super) fn find(&mut self, rule: Rule, message: String) {
        if self.found.len() >= MAX_OF_ONE_SPAN {
            return;
        }
        self.found.push(Finding {
            rule,
            at: self.at,
            span: self.span.id,
            span_name: kept(self.span.name.as_str()),
            request_id: kept(self.span.request_id()),
            message,
        });
    }

    /// Input as a message may quote it: bounded, without control characters.
    pub(super) fn shorten(&self, text: &str) -> String {
        let mut shown: String =
            text.chars().take(QUOTED).map(|c| if c.is_control() { '\u{fffd}' } else { c }).collect();
        if shown.len() < text.len() {
            shown.push('…');
        }
        shown
    }
}

/// As much of a name as a finding keeps: one span may have many findings, and a name of any length.
fn kept(name: &str) -> Box<str> {
    match name.char_indices().nth(MAX_KEPT) {
        Some((end, _)) => format!("{}…", &name[..end]).into(),
        None => name.into(),
    }
}

/// Runs every rule that needs no other span. Returns what the span is.
pub fn check(span: &Span, at: At, dialects: Dialects, found: &mut Vec<Finding>) -> Role {
    let mut local = Local { span, at, dialects, found };
    let role = role(&mut local);
    if let Role::Schema(name) = role {
        if span.end < span.start {
            local.find(Rule::BadTime, "the span ends before it starts".to_owned());
        } else if span.start == 0 {
            local.find(Rule::BadTime, "the span has no start time".to_owned());
        }
        kind(&mut local, name);
        attributes::check_span(&mut local, name);
        events::check(&mut local, name);
        if name == SpanName::LlmRequest {
            status(&mut local);
        }
        if name == SpanName::SchedulerStep && span.parent.is_some() {
            local.find(Rule::WrongParent, "scheduler_step has a parent; it is a root with links".to_owned());
        }
    }
    role
}

fn role(local: &mut Local<'_>) -> Role {
    let span = local.span;
    let scope_name = span.scope.name.as_str();
    let name = local.dialects.span_name(span);
    let Some(scope) = local.dialects.scope(span) else {
        if scope_name == HISTORICAL_DUPLICATE_SCOPE {
            historical(local);
            return Role::HistoricalDuplicate;
        }
        if scope_name.starts_with(OUR_PREFIX) {
            let hint = if is_fork_step(scope_name, span.name.as_str()) {
                " (the Python fork's step tracing: accept it with --dialect vllm-fork)".to_owned()
            } else {
                nearest(scope_name, Scope::ALL.iter().map(|scope| scope.name()))
                    .map_or_else(String::new, |near| format!("; did you mean {near}?"))
            };
            let scope_name = local.shorten(scope_name);
            local.find(Rule::UnknownScope, format!("scope `{scope_name}`{hint}"));
            return Role::Strange;
        }
        let Some(name) = name else { return Role::Foreign };
        let shown = local.shorten(scope_name);
        local.find(
            Rule::WrongScope,
            format!("{} in scope `{shown}`; it belongs to {}", name.name(), name.scope().name()),
        );
        return Role::Strange;
    };
    match name {
        Some(name) if name.scope() == scope => Role::Schema(name),
        Some(name) => {
            let owner = name.scope().name();
            local.find(Rule::WrongScope, format!("{} in scope {scope_name}; it belongs to {owner}", name.name()));
            Role::Strange
        }
        None => {
            let given = local.shorten(span.name.as_str());
            let near = nearest(&given, SpanName::ALL.iter().map(|name| name.name()));
            let hint = near.map_or_else(String::new, |near| format!("; did you mean {near}?"));
            local.find(Rule::UnknownSpan, format!("span `{given}` in scope {scope_name}{hint}"));
            Role::Strange
        }
    }
}

/// The duplicate that journeys are known for: only its scope gives it away, for its start is set back to the arrival.
fn historical(local: &mut Local<'_>) {
    let span = local.span;
    if !matches!(span.name, Name::Known(SpanName::LlmRequest)) {
        local.find(
            Rule::UnknownScope,
            format!("scope `{HISTORICAL_DUPLICATE_SCOPE}`, which the removed do_tracing() used; nothing belongs there"),
        );
        return;
    }
    let place =
        if span.parent.is_some() { "beside the llm_core of the true one" } else { "as the root of a trace of its own" };
    let tokens = if span.attributes.attr(journey_schema::Attr::CompletionTokens).is_some() {
        "; it carries gen_ai.usage.completion_tokens, which the true one may lack: merge before dropping it"
    } else {
        ""
    };
    local.find(
        Rule::DuplicateRequest,
        format!(
            "llm_request in scope `{HISTORICAL_DUPLICATE_SCOPE}`, {place}: the removed do_tracing() opens it when the request \
             has finished, with its start set back to the arrival{tokens}"
        ),
    );
}

fn kind(local: &mut Local<'_>, name: SpanName) {
    let wanted = match name.kind() {
        SpanKind::Server => Kind::SERVER,
        SpanKind::Internal => Kind::INTERNAL,
    };
    // OTLP leaves the kind out for "unspecified", which receivers take as INTERNAL.
    if local.span.kind != wanted && !(local.span.kind == Kind(0) && wanted == Kind::INTERNAL) {
        local.find(Rule::WrongKind, format!("{} has kind {}, not {wanted}", name.name(), local.span.kind));
    }
}

fn status(local: &mut Local<'_>) {
    use journey_schema::Event;
    let error = local.span.status == StatusCode::Error;
    if local.span.event(Event::Aborted).is_some() && !error {
        local.find(Rule::AbortedStatus, "api.ABORTED, but the status is not ERROR".to_owned());
    } else if local.span.event(Event::Departed).is_some() && local.span.event(Event::Aborted).is_none() && error {
        local.find(Rule::AbortedStatus, "api.DEPARTED, but the status is ERROR".to_owned());
    }
}

//! Rules that need several spans: parents, duplicates, both spans or neither.

use std::collections::HashMap;

use foldhash::fast::RandomState;
use journey_schema::{Attr, Event, SpanName, carrier};

use super::findings::Finding;
use super::local::Role;
use super::rules::Rule;
use crate::model::{Attributes, Span, SpanId, SpanRef, Value};
use crate::read::At;

/// What is remembered of each span: about 130 bytes, with its request id.
#[derive(Clone, Debug)]
struct Record {
    role: Role,
    at: At,
    parent: Option<SpanId>,
    request_id: Box<str>,
    start: u64,
    end: u64,
    /// Times the span was exported beyond the first.
    repeats: u32,
    /// `gen_ai.request.n`.
    n: u32,
    departed: bool,
    handed_off: bool,
    /// The trace state says that the parent is an `llm_request`.
    from_handoff: bool,
    links: Box<[SpanRef]>,
}

/// Every span seen, by its id.
#[derive(Debug, Default)]
pub struct Index {
    records: HashMap<SpanRef, Record, RandomState>,
}

impl Index {
    /// Remembers a span. `role` is what [`super::local::check`] found it to be.
    pub fn add(&mut self, span: &Span, at: At, role: Role) {
        if let Some(record) = self.records.get_mut(&span.id) {
            record.repeats += 1;
            return;
        }
        let of_schema = matches!(role, Role::Schema(_) | Role::HistoricalDuplicate);
        let n = span.attributes.attr(Attr::N).and_then(Value::as_int).and_then(|n| u32::try_from(n).ok());
        self.records.insert(
            span.id,
            Record {
                role,
                at,
                parent: span.parent,
                request_id: if of_schema { span.request_id().into() } else { Box::default() },
                start: span.start,
                end: span.end,
                repeats: 0,
                n: n.unwrap_or(1),
                departed: span.event(Event::Departed).is_some(),
                handed_off: span.event(Event::HandoffToCore).is_some(),
                from_handoff: from_handoff(&span.trace_state),
                links: if role == Role::Schema(SpanName::SchedulerStep) {
                    span.links.as_slice().into()
                } else {
                    Box::default()
                },
            },
        );
    }

    /// How many spans of that role there are.
    pub fn count(&self, role: Role) -> usize {
        self.records.values().filter(|record| record.role == role).count()
    }

    /// Runs the rules over all that was added.
    pub fn check(&self, find: &mut dyn FnMut(Finding)) {
        let mut cores: HashMap<SpanRef, u32, RandomState> = HashMap::default();
        let mut sequences: HashMap<(SpanRef, &str), SpanRef, RandomState> = HashMap::default();
        let mut by_id: HashMap<&str, Vec<SpanRef>, RandomState> = HashMap::default();
        for (id, record) in &self.records {
            if record.repeats > 0 && record.role != Role::Foreign {
                let times = record.repeats + 1;
                self.find(find, *id, record, Rule::DuplicateSpan, format!("exported {times} times"));
            }
            match record.role {
                Role::Schema(SpanName::LlmCore) => {
                    self.parent(find, *id, record, SpanName::LlmRequest);
                    if let Some(parent) = self.parent_of(*id, record) {
                        *cores.entry(parent).or_default() += 1;
                        if !record.request_id.is_empty() {
                            self.same_sequence(find, &mut sequences, (parent, &record.request_id), *id, record);
                        }
                    }
                }
                Role::Schema(SpanName::ModelForward) => self.parent(find, *id, record, SpanName::SchedulerStep),
                Role::Schema(SpanName::SchedulerStep) => self.links(find, *id, record),
                Role::Schema(SpanName::LlmRequest)
                    if !self.nested(find, *id, record) && !record.request_id.is_empty() =>
                {
                    by_id.entry(&record.request_id).or_default().push(*id);
                }
                _ => {}
            }
        }
        for ids in by_id.into_values().filter(|ids| ids.len() > 1) {
            self.same_id(find, ids);
        }
        for (id, record) in &self.records {
            if record.role == Role::Schema(SpanName::LlmRequest) {
                self.cores(find, *id, record, cores.get(id).copied().unwrap_or(0));
            }
        }
    }

    fn parent_of(&self, id: SpanRef, record: &Record) -> Option<SpanRef> {
        record.parent.map(|span_id| SpanRef { trace_id: id.trace_id, span_id })
    }

    fn parent(&self, find: &mut dyn FnMut(Finding), id: SpanRef, record: &Record, wanted: SpanName) {
        let Some(parent) = self.parent_of(id, record) else {
            let message = format!("no parent; it should be an {}", wanted.name());
            return self.find(find, id, record, Rule::MissingParent, message);
        };
        let (rule, message) = match self.records.get(&parent).map(|parent| parent.role) {
            Some(Role::Schema(name)) if name == wanted => return,
            Some(Role::Schema(name)) => {
                (Rule::WrongParent, format!("its parent is a {}, not an {}", name.name(), wanted.name()))
            }
            Some(_) => (Rule::WrongParent, format!("its parent {} is no {}", parent.span_id, wanted.name())),
            None => (Rule::DanglingParent, format!("its parent {} is in none of the files", parent.span_id)),
        };
        self.find(find, id, record, rule, message);
    }

    /// A second `llm_request` under one of the same journey, or opened from a handoff's carrier.
    fn nested(&self, find: &mut dyn FnMut(Finding), id: SpanRef, record: &Record) -> bool {
        let parent = self.parent_of(id, record);
        let message = match parent.and_then(|parent| self.records.get(&parent)).map(|parent| parent.role) {
            Some(Role::Schema(name)) if name.is_journey() => {
                format!("nested: its parent is the journey's own {}", name.name())
            }
            _ if record.from_handoff => {
                "handed off: its trace state says that its parent is an llm_request, so it was opened on the core's side".to_owned()
            }
            _ => return false,
        };
        self.find(find, id, record, Rule::DuplicateRequest, message);
        true
    }

    /// Requests of one id that were live at the same time.
    fn same_id(&self, find: &mut dyn FnMut(Finding), mut ids: Vec<SpanRef>) {
        ids.sort_by_key(|id| (self.records[id].start, *id));
        let mut open = ids[0];
        for id in &ids[1..] {
            let (record, before) = (&self.records[id], &self.records[&open]);
            if record.start < before.end {
                let message = format!(
                    "same id: another llm_request of this gen_ai.request.id was live, span {} of trace {}",
                    open.span_id, open.trace_id
                );
                self.find(find, *id, record, Rule::DuplicateRequest, message);
            }
            if record.end > before.end {
                open = *id;
            }
        }
    }

    fn same_sequence<'a>(
        &'a self,
        find: &mut dyn FnMut(Finding),
        sequences: &mut HashMap<(SpanRef, &'a str), SpanRef, RandomState>,
        key: (SpanRef, &'a str),
        id: SpanRef,
        record: &Record,
    ) {
        let Some(other) = sequences.insert(key, id) else { return };
        // The map's order is not the input's: the later of the two is the duplicate.
        let later = if (self.records[&other].start, other) > (record.start, id) { other } else { id };
        let first = if later == id { other } else { id };
        sequences.insert(key, first);
        let message = format!("llm_core span {} has the same parent and gen_ai.request.id", first.span_id);
        self.find(find, later, &self.records[&later], Rule::DuplicateCore, message);
    }

    /// Both spans or neither; and a core without a handoff shows that the handoff was not traced.
    fn cores(&self, find: &mut dyn FnMut(Finding), id: SpanRef, record: &Record, cores: u32) {
        if cores == 0 && record.handed_off {
            let message = "api.HANDOFF_TO_CORE, but no llm_core has it as parent".to_owned();
            self.find(find, id, record, Rule::MissingCore, message);
        } else if record.departed && record.handed_off && cores < record.n {
            let message = format!("gen_ai.request.n is {}, but {cores} llm_core have it as parent", record.n);
            self.find(find, id, record, Rule::MissingCore, message);
        } else if cores > 0 && !record.handed_off && !record.departed {
            let message = "api.HANDOFF_TO_CORE missing: its llm_core shows that it was handed off".to_owned();
            self.find(find, id, record, Rule::MissingEvent, message);
        }
    }

    fn links(&self, find: &mut dyn FnMut(Finding), id: SpanRef, record: &Record) {
        for link in &record.links {
            if let Some(linked) = self.records.get(link)
                && linked.role != Role::Schema(SpanName::LlmCore)
            {
                let message =
                    format!("it links to span {} of trace {}, which is no llm_core", link.span_id, link.trace_id);
                self.find(find, id, record, Rule::WrongLink, message);
            }
        }
    }

    fn find(&self, find: &mut dyn FnMut(Finding), span: SpanRef, record: &Record, rule: Rule, message: String) {
        let span_name = match record.role {
            Role::Schema(name) => name.name(),
            Role::HistoricalDuplicate => SpanName::LlmRequest.name(),
            Role::Strange | Role::Foreign => "span",
        };
        find(Finding {
            rule,
            at: record.at,
            span,
            span_name: span_name.into(),
            request_id: record.request_id.clone(),
            message,
        });
    }
}

/// Whether a trace state has the member that marks a handoff.
fn from_handoff(trace_state: &str) -> bool {
    trace_state.split(',').any(|member| {
        member
            .trim()
            .split_once('=')
            .is_some_and(|(key, value)| key == carrier::TRACESTATE_KEY && value == carrier::TRACESTATE_VALUE)
    })
}

//! Known ways in which an engine's traces differ from the schema, to be accepted on request.

use clap::ValueEnum;
use journey_schema::{Attr, Scope, SpanName};

use crate::model::{Name, Span};

/// A dialect of the schema.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Dialect {
    /// The Python fork: step tracing in a third scope, `vllm.scheduler.step`, as spans `scheduler_steps_N`.
    VllmFork,
    /// Older trees of the Python fork: core events without `ts.monotonic_ns`.
    VllmForkOld,
}

/// The scope in which the Python fork traces steps.
const FORK_STEP_SCOPE: &str = "vllm.scheduler.step";
const FORK_STEP_SPAN: &str = "scheduler_steps_";

/// The dialects that a run accepts.
#[derive(Clone, Copy, Debug, Default)]
pub struct Dialects {
    fork: bool,
    fork_old: bool,
}

impl FromIterator<Dialect> for Dialects {
    fn from_iter<I: IntoIterator<Item = Dialect>>(dialects: I) -> Self {
        let mut accepted = Self::default();
        for dialect in dialects {
            match dialect {
                Dialect::VllmFork => accepted.fork = true,
                Dialect::VllmForkOld => accepted.fork_old = true,
            }
        }
        accepted
    }
}

impl Dialects {
    /// Every dialect at once.
    pub fn all() -> Self {
        Dialect::value_variants().iter().copied().collect()
    }

    /// The scope that owns the span, with the dialect's scopes folded into the schema's.
    pub fn scope(self, span: &Span) -> Option<Scope> {
        Scope::from_name(&span.scope.name)
            .or_else(|| (self.fork && span.scope.name == FORK_STEP_SCOPE).then_some(Scope::Scheduler))
    }

    /// The span's name, with the dialect's names folded into the schema's.
    pub fn span_name(self, span: &Span) -> Option<SpanName> {
        match &span.name {
            Name::Known(name) => Some(*name),
            Name::Other(name) => (self.fork && is_fork_step(&span.scope.name, name)).then_some(SpanName::SchedulerStep),
        }
    }

    /// Whether core events may lack that attribute.
    pub fn may_lack(self, attr: Attr) -> bool {
        self.fork_old && attr == Attr::TsMonotonicNs
    }
}

/// Whether the span is the Python fork's batch of scheduler steps.
pub(super) fn is_fork_step(scope: &str, name: &str) -> bool {
    scope == FORK_STEP_SCOPE && name.starts_with(FORK_STEP_SPAN)
}

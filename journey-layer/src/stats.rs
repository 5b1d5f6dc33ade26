//! The ledger: every span and every event is accounted for, under a reason.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::atomic::Ordering::Relaxed;

use crate::sync::AtomicU64;
use crate::table::Census;

/// Declares [`Reason`] with its table.
macro_rules! reasons {
    ($($(#[$doc:meta])* $variant:ident = $name:literal, $class:ident;)+) => {
        /// Why a span or an event did not arrive, or what the layer had to correct.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
        #[non_exhaustive]
        pub enum Reason { $($(#[$doc])* $variant,)+ }

        impl Reason {
            /// Every reason.
            pub const ALL: &'static [Self] = &[$(Self::$variant,)+];

            /// The reason as metrics and messages spell it.
            pub const fn as_str(self) -> &'static str {
                match self { $(Self::$variant => $name,)+ }
            }

            pub(crate) const fn class(self) -> Class {
                match self { $(Self::$variant => Class::$class,)+ }
            }
        }
    };
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Class {
    /// Refused because it would have been wrong.
    Rejected,
    /// Right, but lost.
    Dropped,
    /// Arrived (or never began), with something to tell about it; not part of the balance.
    Noted,
}

reasons! {
    /// A `llm_request` inside a `llm_request` or `llm_core` of the same journey.
    Nested = "nested", Rejected;
    /// A `llm_request` whose remote parent is itself an `llm_request` or `llm_core`.
    HandedOff = "handed_off", Rejected;
    /// A `llm_request` with the `gen_ai.request.id` of a live one.
    SameId = "same_id", Rejected;
    /// A second `llm_core` for the same sequence.
    SameSequence = "same_sequence", Rejected;
    /// A span in a scope that is neither `vllm.api` nor `vllm.scheduler`.
    UnknownScope = "unknown_scope", Rejected;
    /// A span name that its scope does not own.
    UnknownSpan = "unknown_span", Rejected;
    /// An event of a rejected duplicate span.
    DuplicateSpan = "duplicate_span", Rejected;
    /// A second terminal event on a span.
    SecondTerminal = "second_terminal", Rejected;
    /// An event name that the schema does not have.
    UnknownEvent = "unknown_event", Rejected;

    /// There is no exporter (`OTEL_TRACES_EXPORTER=none`). No flush reports it.
    NoExporter = "no_exporter", Dropped;
    /// A span in a process that was forked off after the pipeline was built: the export thread is the parent's.
    Forked = "forked", Dropped;
    /// A span processor was given the span, and its exporter never saw it.
    ProcessorDropped = "processor_dropped", Dropped;
    /// An event with no enclosing journey span of its scope.
    OrphanEvent = "orphan_event", Dropped;
    /// An event after its span had been exported.
    Late = "late", Dropped;
    /// A span beyond the bound on live spans.
    LiveLimit = "live_limit", Dropped;
    /// An event beyond the bound on events of one span.
    EventLimit = "event_limit", Dropped;
    /// A `llm_core` with no `llm_request` to belong to: both spans or neither.
    NoParent = "no_parent", Dropped;
    /// The export queue was at its bound.
    QueueFull = "queue_full", Dropped;
    /// An exporter returned an error.
    ExportFailed = "export_failed", Dropped;
    /// An exporter did not answer in time.
    ExportTimeout = "export_timeout", Dropped;
    /// The receiver took the batch and refused this part of it (OTLP partial success). It does not say which spans
    /// those are: the number of their events is an estimate, pro rata.
    PartialSuccess = "partial_success", Dropped;
    /// A spooled request was found cut short or changed; its file is set aside.
    SpoolCorrupt = "spool_corrupt", Dropped;
    /// The pipeline had been shut down, or its time to flush ran out.
    Shutdown = "shutdown", Dropped;

    /// A span that was sent from the spool, one of an earlier process or of this one.
    SentFromSpool = "sent_from_spool", Noted;
    /// A file in the spool that does not even tell how many spans it holds: set aside if it is broken, left to the next start
    /// if the disk does not give it.
    SpoolUnreadable = "spool_unreadable", Noted;
    /// An `llm_request` or `llm_core` that was sampled out (it never began).
    SampledOut = "sampled_out", Noted;
    /// An event where the lifecycle does not allow it; exported as it is.
    IllegalOrder = "illegal_order", Noted;
    /// A span that closed without its terminal event; the layer added one.
    TerminalAdded = "terminal_added", Noted;
    /// A finished span whose handle somebody still held when the grace ended.
    LeakedHandle = "leaked_handle", Noted;
    /// A value that the wire cannot carry (NaN, infinite, beyond i64), left out.
    InvalidValue = "invalid_value", Noted;
    /// A field that the schema does not have, left out.
    UnknownField = "unknown_field", Noted;
    /// A text, or a `tracestate`, longer than its limit, cut.
    Truncated = "truncated", Noted;
    /// A `traceparent` that is not valid W3C Trace Context, ignored.
    InvalidTraceparent = "invalid_traceparent", Noted;
    /// A `tracestate` that is not valid W3C Trace Context, ignored.
    InvalidTracestate = "invalid_tracestate", Noted;
    /// A journey header from outside, stripped.
    ForgedHeader = "forged_header", Noted;
    /// A span attribute that was set after the span had been exported.
    LateAttribute = "late_attribute", Noted;
    /// An entry that left the memory for duplicates before its retention ended.
    Evicted = "evicted", Noted;
}

const REASONS: usize = Reason::ALL.len();

/// The process's counters. Relaxed: a snapshot is exact at a quiescent moment.
#[derive(Debug)]
pub(crate) struct Stats {
    spans_started: AtomicU64,
    spans_exported: AtomicU64,
    spans_recovered: AtomicU64,
    spans_spooled: AtomicU64,
    events_started: AtomicU64,
    events_exported: AtomicU64,
    events_recovered: AtomicU64,
    events_spooled: AtomicU64,
    spans: [AtomicU64; REASONS],
    events: [AtomicU64; REASONS],
}

/// A number of spans, and of the events on them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Count {
    pub(crate) spans: u64,
    pub(crate) events: u64,
}

impl Count {
    /// Both together.
    pub(crate) fn and(self, other: Self) -> Self {
        Self { spans: self.spans + other.spans, events: self.events + other.events }
    }

    /// What has come since `before`.
    pub(crate) fn since(self, before: Self) -> Self {
        Self { spans: self.spans.saturating_sub(before.spans), events: self.events.saturating_sub(before.events) }
    }
}

impl Stats {
    pub(crate) fn new() -> Self {
        let zeros = || std::array::from_fn(|_| AtomicU64::new(0));
        Self {
            spans_started: AtomicU64::new(0),
            spans_exported: AtomicU64::new(0),
            spans_recovered: AtomicU64::new(0),
            spans_spooled: AtomicU64::new(0),
            events_started: AtomicU64::new(0),
            events_exported: AtomicU64::new(0),
            events_recovered: AtomicU64::new(0),
            events_spooled: AtomicU64::new(0),
            spans: zeros(),
            events: zeros(),
        }
    }

    pub(crate) fn span_started(&self) {
        self.spans_started.fetch_add(1, Relaxed);
    }

    pub(crate) fn event_started(&self) {
        self.events_started.fetch_add(1, Relaxed);
    }

    pub(crate) fn started(&self, count: Count) {
        self.spans_started.fetch_add(count.spans, Relaxed);
        self.events_started.fetch_add(count.events, Relaxed);
    }

    pub(crate) fn exported(&self, count: Count) {
        self.spans_exported.fetch_add(count.spans, Relaxed);
        self.events_exported.fetch_add(count.events, Relaxed);
    }

    /// Found in the spool at the start.
    pub(crate) fn recovered(&self, count: Count) {
        self.spans_recovered.fetch_add(count.spans, Relaxed);
        self.events_recovered.fetch_add(count.events, Relaxed);
    }

    pub(crate) fn spooled(&self, count: Count) {
        self.spans_spooled.fetch_add(count.spans, Relaxed);
        self.events_spooled.fetch_add(count.events, Relaxed);
    }

    /// They have left the spool, for whatever is counted next.
    pub(crate) fn unspooled(&self, count: Count) {
        self.spans_spooled.fetch_sub(count.spans, Relaxed);
        self.events_spooled.fetch_sub(count.events, Relaxed);
    }

    /// Spans that did not arrive (or a note), with the events they carried.
    pub(crate) fn count(&self, reason: Reason, count: Count) {
        self.spans[reason as usize].fetch_add(count.spans, Relaxed);
        self.events[reason as usize].fetch_add(count.events, Relaxed);
    }

    pub(crate) fn span(&self, reason: Reason) {
        self.spans[reason as usize].fetch_add(1, Relaxed);
    }

    pub(crate) fn event(&self, reason: Reason) {
        self.events[reason as usize].fetch_add(1, Relaxed);
    }

    /// What was counted here, in the layers' tables (`census`), and is `queued` for export. A request's thread counts in
    /// its table, where it holds the lock anyway.
    pub(crate) fn snapshot(&self, census: Census, queued: Count) -> JourneyStats {
        let live = census.open.and(queued);
        let pick = |table: &[AtomicU64; REASONS], class: Class| {
            let rows = Reason::ALL.iter().filter(|reason| reason.class() == class);
            rows.map(|reason| (*reason, table[*reason as usize].load(Relaxed))).filter(|(_, n)| *n > 0).collect()
        };
        let ledger = |[started, recovered, exported, spooled]: [&AtomicU64; 4], in_tables, live, table| Ledger {
            started: started.load(Relaxed) + in_tables,
            recovered: recovered.load(Relaxed),
            exported: exported.load(Relaxed),
            spooled: spooled.load(Relaxed),
            live,
            rejected: pick(table, Class::Rejected),
            dropped: pick(table, Class::Dropped),
        };
        let mut noted: BTreeMap<Reason, u64> = pick(&self.spans, Class::Noted);
        for (reason, n) in pick(&self.events, Class::Noted) {
            *noted.entry(reason).or_default() += n;
        }
        JourneyStats {
            spans: ledger(
                [&self.spans_started, &self.spans_recovered, &self.spans_exported, &self.spans_spooled],
                census.started.spans,
                live.spans,
                &self.spans,
            ),
            events: ledger(
                [&self.events_started, &self.events_recovered, &self.events_exported, &self.events_spooled],
                census.started.events,
                live.events,
                &self.events,
            ),
            noted,
        }
    }
}

/// What became of every span and event since the pipeline was built.
///
/// ```
/// let capture = journey_layer::testing::capture();
/// let span = journey_layer::macros::journey_span!(scope = "vllm.api");
/// assert_eq!(capture.stats().spans.live, 1);
/// drop(span);
/// let stats = capture.stats();
/// assert_eq!((stats.spans.started, stats.spans.exported), (1, 1));
/// assert!(stats.balances());
/// ```
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct JourneyStats {
    /// The spans' ledger.
    pub spans: Ledger,
    /// The events' ledger.
    pub events: Ledger,
    /// Corrections and remarks on what did arrive (or never began); not part of the balance.
    pub noted: BTreeMap<Reason, u64>,
}

/// `started + recovered = exported + rejected + dropped + spooled + live`, at every quiescent moment.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Ledger {
    /// Began: seen by the layer, those that it rejected included. Sampled-out spans never began.
    pub started: u64,
    /// Found in the spool at the start: of an earlier process, and this one's to account for.
    pub recovered: u64,
    /// Taken by every exporter.
    pub exported: u64,
    /// On disk, to be sent later, by this process or the next.
    pub spooled: u64,
    /// Open, or ended and waiting for the exporters.
    pub live: u64,
    /// Refused, by reason.
    pub rejected: BTreeMap<Reason, u64>,
    /// Lost, by reason.
    pub dropped: BTreeMap<Reason, u64>,
}

impl JourneyStats {
    /// Whether both ledgers balance.
    pub fn balances(&self) -> bool {
        self.spans.balances() && self.events.balances()
    }

    /// [`Self::noted`] as a metric has it: every reason for a note, those with a zero as well, so that a rate sees the
    /// first one.
    pub fn notes(&self) -> impl Iterator<Item = (Reason, u64)> {
        of_class(Class::Noted, &self.noted)
    }
}

impl Ledger {
    /// Whether every one that started is accounted for.
    pub fn balances(&self) -> bool {
        self.started + self.recovered == self.exported + self.spooled + self.live + self.rejected() + self.dropped()
    }

    /// The counters as a metric has them, with the state and the reason for labels: `started`, `recovered`, `exported`, then
    /// `rejected` and `dropped` for every reason, those with a zero as well, so that a rate sees the first one.
    pub fn counters(&self) -> impl Iterator<Item = (&'static str, Option<Reason>, u64)> {
        let totals = [("started", self.started), ("recovered", self.recovered), ("exported", self.exported)];
        let totals = totals.map(|(state, n)| (state, None, n));
        let rejected = of_class(Class::Rejected, &self.rejected).map(|(reason, n)| ("rejected", Some(reason), n));
        let dropped = of_class(Class::Dropped, &self.dropped).map(|(reason, n)| ("dropped", Some(reason), n));
        totals.into_iter().chain(rejected).chain(dropped)
    }

    /// All that were rejected.
    pub fn rejected(&self) -> u64 {
        self.rejected.values().sum()
    }

    /// All that were dropped.
    pub fn dropped(&self) -> u64 {
        self.dropped.values().sum()
    }
}

fn of_class(class: Class, counts: &BTreeMap<Reason, u64>) -> impl Iterator<Item = (Reason, u64)> {
    let reasons = Reason::ALL.iter().filter(move |reason| reason.class() == class);
    reasons.map(|reason| (*reason, counts.get(reason).copied().unwrap_or(0)))
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl fmt::Display for JourneyStats {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let list = |f: &mut fmt::Formatter<'_>, what: &str, rows: &BTreeMap<Reason, u64>| {
            rows.iter().try_for_each(|(reason, n)| write!(f, ", {what}({reason}) {n}"))
        };
        for (name, ledger) in [("spans", &self.spans), ("events", &self.events)] {
            write!(f, "{name}: started {}", ledger.started)?;
            if ledger.recovered > 0 {
                write!(f, " + recovered {}", ledger.recovered)?;
            }
            write!(f, " = exported {}", ledger.exported)?;
            list(f, "rejected", &ledger.rejected)?;
            list(f, "dropped", &ledger.dropped)?;
            if ledger.spooled > 0 {
                write!(f, ", spooled {}", ledger.spooled)?;
            }
            writeln!(f, ", live {}", ledger.live)?;
        }
        if !self.noted.is_empty() {
            let rows: Vec<_> = self.noted.iter().map(|(reason, n)| format!("{reason} {n}")).collect();
            writeln!(f, "noted: {}", rows.join(", "))?;
        }
        Ok(())
    }
}

//! The rules: id, weight, what each is about and the way out.

/// How bad a finding is. Both fail a check.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Level {
    /// Dashboards or joins that rely on the schema break.
    Error,
    /// The trace can be used, but something in it is not as it should be.
    Warning,
}

impl Level {
    /// The word for it, also SARIF's.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Error => "error",
            Self::Warning => "warning",
        }
    }
}

/// A row of the rule table.
#[derive(Clone, Copy, Debug)]
pub struct RuleInfo {
    /// Stable id, in kebab case.
    pub id: &'static str,
    /// Its weight.
    pub level: Level,
    /// What is wrong, in one sentence.
    pub title: &'static str,
    /// The way out.
    pub help: &'static str,
}

macro_rules! rules {
    ($($(#[$doc:meta])* $variant:ident = $id:literal, $level:ident, $title:literal, $help:literal;)+) => {
        /// A rule of the checker.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
        pub enum Rule { $(#[doc = $title] $variant,)+ }

        impl Rule {
            /// Every rule, the gravest first.
            pub const ALL: &'static [Self] = &[$(Self::$variant,)+];

            /// Its row.
            pub const fn info(self) -> &'static RuleInfo {
                const TABLE: &[RuleInfo] = &[$(RuleInfo { id: $id, level: Level::$level, title: $title, help: $help },)+];
                &TABLE[self as usize]
            }

            /// The rule called `id`.
            pub fn from_id(id: &str) -> Option<Self> {
                Self::ALL.iter().copied().find(|rule| rule.info().id == id)
            }
        }
    };
}

rules! {
    DuplicateRequest = "duplicate-llm-request", Error,
        "a second llm_request for one request",
        "open llm_request once, where the request arrives (scope vllm.api); later code takes the span along or records on it. What only the duplicate carries (gen_ai.usage.completion_tokens, often) belongs on the original";
    DuplicateCore = "duplicate-llm-core", Error,
        "a second llm_core for one sequence",
        "open llm_core once, when the sequence is added; a resumed sequence goes on in the same span";
    DuplicateSpan = "duplicate-span", Error,
        "the same span was exported more than once",
        "register one span processor and exporter per provider; give each file once; let a retry wait for the first attempt's answer";
    MissingParent = "missing-parent", Error,
        "a span that needs a parent has none",
        "pass the carrier (traceparent, tracestate, x-vllm-journey-sampled) with the request to the core, and open llm_core from it";
    DanglingParent = "dangling-parent", Error,
        "the parent is in none of the files",
        "give the files of the API server and of the core together; if they are all here, the parent was never exported: look at the API process's exporter and sampler";
    WrongParent = "wrong-parent", Error,
        "the parent is of the wrong kind",
        "llm_core is a child of llm_request, model_forward of scheduler_step; scheduler_step is a root that links to the llm_core spans of its batch";
    MissingCore = "missing-core", Error,
        "an llm_request whose llm_core spans are in none of the files",
        "give the core's file as well; if it is here, sampling or export differs between the two processes: both spans or neither";
    UnknownScope = "unknown-scope", Error,
        "an instrumentation scope that the schema does not have",
        "use vllm.api or vllm.scheduler, no third one; --dialect names the traces that are known to have another";
    WrongScope = "wrong-scope", Error,
        "a span of the schema in a scope that does not own it",
        "llm_request belongs to vllm.api; llm_core, scheduler_step and model_forward to vllm.scheduler";
    UnknownSpan = "unknown-span-name", Error,
        "a span name that the schema does not have",
        "vllm.api has llm_request; vllm.scheduler has llm_core, scheduler_step and model_forward";
    WrongKind = "wrong-kind", Error,
        "the span kind is not the schema's",
        "llm_request is SERVER, every other span INTERNAL";
    MissingTerminal = "missing-terminal", Error,
        "the span ended without its terminal event",
        "end llm_request with DEPARTED or ABORTED, llm_core with FINISHED, on every path: errors, time-outs and dropped futures too";
    AfterTerminal = "event-after-terminal", Error,
        "an event after the terminal one",
        "emit one terminal event, last";
    MissingEvent = "missing-event", Error,
        "an event that must have happened was not emitted",
        "emit it where it happens, on every route and on the streaming as well as the full path";
    EventOrder = "event-order", Error,
        "events in an order that the lifecycle does not allow",
        "llm_request: ARRIVED, HANDOFF_TO_CORE, FIRST_RESPONSE_FROM_CORE, DEPARTED or ABORTED; llm_core: QUEUED, SCHEDULED, (PREEMPTED, SCHEDULED)*, FIRST_TOKEN once while running, FINISHED";
    UnknownEvent = "unknown-event", Error,
        "an event that the schema does not have",
        "use the wire names of the schema: api.*, journey.*, step.*";
    WrongSpanForEvent = "event-on-wrong-span", Error,
        "an event on a span that does not own it",
        "api.* events belong on llm_request, journey.* on llm_core, step.* on scheduler_step";
    MissingAttribute = "missing-attribute", Error,
        "an attribute that must be there is not",
        "record it on the streaming and on the full path; the seven of llm_request and the two clock readings of core events are what dashboards are built on";
    WrongType = "wrong-type", Error,
        "an attribute of the wrong type",
        "record numbers as numbers: the schema gives each attribute one type, and backends drop or split what differs";
    UnknownValue = "unknown-value", Error,
        "a value outside its enumeration",
        "use one of the values of the schema";
    EventTypeMismatch = "event-type-mismatch", Error,
        "event.type does not name the event it is on",
        "set event.type to the bare identifier, which is the event's name without its prefix";
    WrongScheduleKind = "wrong-schedule-kind", Error,
        "schedule.kind contradicts the events before it",
        "FIRST on the first SCHEDULED of a sequence, RESUME on every later one";
    WrongPhase = "wrong-phase", Error,
        "phase contradicts the events before it",
        "WAITING when queued, PREFILL until the first token, DECODE from it on";
    CounterMismatch = "counter-mismatch", Error,
        "a progress counter contradicts the events",
        "prefill.done_tokens and decode.done_tokens never fall (high-water marks) nor exceed their totals; num_preemptions counts the PREEMPTED events so far";
    AbortedStatus = "wrong-status", Error,
        "the span status contradicts the terminal event",
        "set status ERROR with api.ABORTED, and leave it unset with api.DEPARTED";
    BadTime = "bad-time", Error,
        "times that cannot be",
        "take start, events and end from one clock, in order, inside the span";
    ClockMismatch = "clock-mismatch", Error,
        "monotonic and wall clock disagree within a span",
        "read the clock once per event and write both readings from it; if the engine does, the host's wall clock was stepped here";
    LatencyMismatch = "latency-mismatch", Error,
        "a derived latency that its events do not give",
        "derive gen_ai.latency.* and journey.time_preempted from the span's own events, in seconds";
    WrongLink = "wrong-link", Error,
        "a scheduler_step links to a span that is no llm_core",
        "link each llm_core of the batch, and nothing else";
    MisplacedAttribute = "misplaced-attribute", Warning,
        "an attribute of the schema on an event that does not own it",
        "move it to the event or span that the schema names for it";
    UnknownAttribute = "unknown-attribute", Warning,
        "an attribute that is nearly one of the schema's",
        "correct the key";
    DroppedEvents = "dropped-events", Warning,
        "the SDK dropped events of a journey for its limits",
        "raise OTEL_SPAN_EVENT_COUNT_LIMIT; the terminal event must survive any limit";
}

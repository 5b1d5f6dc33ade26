//! What the layer can be told: sampling, duplicates, bounds.

use std::time::Duration;

/// How the decision about a journey is made, once, when its `llm_request` would be created.
///
/// A parent is what the request's headers say, so that under the default a client decides about its own journeys, as the
/// specification has it for services behind one another. On a port that anybody reaches, [`Rate`](Self::Rate) leaves
/// clients nothing to say: neither the sampled flag nor the trace id counts.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Sampling {
    /// The sampled flag of a valid remote or active parent; without one, `root` of all journeys (0.0 to 1.0).
    ParentBased {
        /// Share of the journeys without a parent that are sampled.
        root: f64,
    },
    /// This share of all journeys (0.0 to 1.0), whatever the parent says: what the Python engine does.
    Rate(f64),
    /// This share of the trace ids (0.0 to 1.0), whatever the parent says: `traceidratio` of the specification. Where
    /// there is a parent, its trace id decides, and whoever chose that knows how.
    TraceIdRatio(f64),
}

impl Default for Sampling {
    /// `ParentBased { root: 1.0 }`, the default of the OpenTelemetry specification.
    fn default() -> Self {
        Self::ParentBased { root: 1.0 }
    }
}

/// What is done with a second `llm_request` of a journey (or a second `llm_core` of a sequence).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum OnDuplicate {
    /// It is not exported; attributes it brings that the original lacks are set on the original while that is live.
    #[default]
    Merge,
    /// It is not exported, and what it brings is lost with it.
    Drop,
    /// Panics where the duplicate is made. For tests.
    Panic,
}

/// The layer's settings.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct LayerConfig {
    pub(crate) sampling: Sampling,
    /// Share of the scheduler steps that are traced, 0.0 to 1.0.
    pub(crate) step_sample_rate: f64,
    pub(crate) duplicates: OnDuplicate,
    /// How long a closed span is remembered for telling duplicates.
    pub(crate) retention: Duration,
    /// Keys of closed spans that are remembered at most.
    pub(crate) max_retained: usize,
    /// How long a finished span waits for the last handle before it is exported all the same.
    pub(crate) grace: Duration,
    /// Open spans at most; further ones are dropped (`live_limit`).
    pub(crate) max_live: usize,
    /// Events of one span at most, the terminal event included.
    pub(crate) max_events: usize,
    /// Bytes of one text value at most.
    pub(crate) max_value_length: usize,
    /// Whether an entered journey span is the active OpenTelemetry context.
    pub(crate) context_activation: bool,
}

impl Default for LayerConfig {
    fn default() -> Self {
        Self {
            sampling: Sampling::default(),
            step_sample_rate: 0.0,
            duplicates: OnDuplicate::default(),
            retention: Duration::from_secs(60),
            max_retained: 1 << 16,
            grace: Duration::from_secs(2),
            max_live: 1 << 18,
            // OTEL_SPAN_EVENT_COUNT_LIMIT's default.
            max_events: 128,
            max_value_length: 4096,
            context_activation: true,
        }
    }
}

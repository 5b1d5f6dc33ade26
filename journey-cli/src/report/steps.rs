//! What sampled scheduler steps say of the engine as a whole.

use journey_schema::{Attr, Event};

use super::stats::Distribution;
use crate::model::{Attributes, Span, Value};

/// Figures of the steps that were traced.
#[derive(Debug, Default)]
pub struct Steps {
    /// `step.BATCH_SUMMARY` events.
    pub count: u64,
    /// `step.duration_us`.
    pub duration: Distribution,
    /// `batch.scheduled_tokens`, summed.
    pub tokens: i64,
    /// Most sequences on the running list.
    pub running: i64,
    /// Most sequences in the waiting queue.
    pub waiting: i64,
    /// Highest `kv.usage_gpu_ratio`.
    pub kv_usage: Option<f64>,
}

impl Steps {
    /// Takes the summaries of a `scheduler_step`.
    pub fn add(&mut self, span: &Span) {
        for event in span.events.iter().filter(|event| event.name.known() == Some(Event::BatchSummary)) {
            let int = |attr: Attr| event.attributes.attr(attr).and_then(Value::as_int);
            self.count += 1;
            if let Some(micros) = int(Attr::StepDuration).and_then(|micros| u64::try_from(micros).ok()) {
                self.duration.add(micros.saturating_mul(1_000));
            }
            self.tokens = self.tokens.saturating_add(int(Attr::ScheduledTokens).unwrap_or(0));
            self.running = self.running.max(int(Attr::RunningDepth).unwrap_or(0));
            self.waiting = self.waiting.max(int(Attr::WaitingDepth).unwrap_or(0));
            if let Some(usage) = event.attributes.attr(Attr::KvUsage).and_then(Value::as_f64) {
                self.kv_usage = Some(self.kv_usage.map_or(usage, |most| most.max(usage)));
            }
        }
    }
}

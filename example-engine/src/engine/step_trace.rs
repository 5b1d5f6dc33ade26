//! What a sampled scheduler step says about itself.

use journey_layer::macros::{journey_event, journey_span};
use journey_layer::tracing::Span;
use rand::RngExt;
use rustix::time::{ClockId, clock_gettime};

use super::scheduler::{Scheduler, StepView};
use super::stats::SchedulerStats;
use crate::model_runner::SchedulerOutput;

/// One step, from before it is planned until its outcome is taken.
///
/// The span of a step that is not sampled stands in for it: it costs a few nanoseconds, and lets a `model_forward` inside
/// it know that it is not sampled either.
pub(super) struct StepTrace {
    /// The `scheduler_step`, to be entered while the step runs.
    pub(super) span: Span,
    started: i64,
    before: SchedulerStats,
    planned: Option<Planned>,
}

/// What only the moment after planning shows: a sequence that finishes in the step leaves nothing behind.
struct Planned {
    stats: SchedulerStats,
    num_prefill_reqs: u64,
    prefill_tokens: u64,
}

impl StepTrace {
    pub(super) fn begin(scheduler: &Scheduler) -> Self {
        let span = journey_span!(scope = "vllm.scheduler", name = "scheduler_step");
        Self { span, started: monotonic_ns(), before: scheduler.stats(), planned: None }
    }

    /// Links the step to the sequences in it and takes a snapshot of some of them.
    pub(super) fn planned(&mut self, scheduler: &Scheduler, output: &SchedulerOutput, snapshot_rate: f64) {
        if !journey_layer::is_recorded(&self.span) {
            return;
        }
        let mut planned = Planned { stats: scheduler.stats(), num_prefill_reqs: 0, prefill_tokens: 0 };
        for view in scheduler.step_views(output) {
            self.span.follows_from(view.span);
            if view.is_prefill {
                planned.num_prefill_reqs += 1;
                planned.prefill_tokens += view.num_scheduled_tokens;
            }
            if rand::rng().random_bool(snapshot_rate) {
                self.snapshot(output.step, &view);
            }
        }
        self.planned = Some(planned);
    }

    fn snapshot(&self, step: u64, view: &StepView<'_>) {
        journey_event!(
            &self.span,
            REQUEST_SNAPSHOT,
            step_id = step,
            snapshot_request_id = view.request_id,
            request_phase = (view.phase),
            num_prompt_tokens = view.num_prompt_tokens,
            num_computed_tokens = view.num_computed_tokens,
            num_output_tokens = view.num_output_tokens,
            request_num_preemptions = view.num_preemptions,
            scheduled_tokens_this_step = view.num_scheduled_tokens,
            kv_blocks_allocated_gpu = view.num_blocks,
            kv_blocks_cached_gpu = view.num_blocks_from_cache,
            effective_prompt_len = view.effective_prompt_len,
        );
    }

    /// Sums the step up and ends its span.
    pub(super) fn end(self, scheduler: &Scheduler, output: &SchedulerOutput) {
        let Some(Planned { stats, num_prefill_reqs, prefill_tokens }) = self.planned else { return };
        let ended = monotonic_ns();
        let scheduled_tokens = output.total_num_scheduled_tokens as u64;
        journey_event!(
            &self.span,
            BATCH_SUMMARY,
            step_id = output.step,
            ts_start_ns = self.started,
            ts_end_ns = ended,
            duration_us = (ended - self.started) / 1000,
            running_depth = stats.num_running_reqs,
            waiting_depth = stats.num_waiting_reqs,
            num_prefill_reqs = num_prefill_reqs,
            num_decode_reqs = output.scheduled_seqs.len() as u64 - num_prefill_reqs,
            scheduled_tokens = scheduled_tokens,
            prefill_tokens = prefill_tokens,
            decode_tokens = scheduled_tokens - prefill_tokens,
            num_finished = scheduler.stats().num_finished() - self.before.num_finished(),
            num_preempted = stats.num_preemptions - self.before.num_preemptions,
            kv_usage_gpu_ratio = 1.0 - stats.num_free_blocks as f64 / stats.num_blocks as f64,
            kv_blocks_total_gpu = stats.num_blocks,
            kv_blocks_free_gpu = stats.num_free_blocks,
        );
    }
}

/// The clock of the events' `ts.monotonic_ns`, so that a step and the events in it compare.
fn monotonic_ns() -> i64 {
    let now = clock_gettime(ClockId::Monotonic);
    now.tv_sec * 1_000_000_000 + now.tv_nsec
}

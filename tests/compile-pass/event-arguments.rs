//! Every argument of an event, in every spelling.
#![deny(warnings)]

use std::sync::Arc;

use journey_layer::macros::journey_span;
use journey_layer::tracing::Span;
use journey_layer::{AbortReason, FinishStatus, Phase, Progress, ScheduleKind, journey_event};

struct Sequence {
    span: Span,
    status: FinishStatus,
    phase: Option<Phase>,
    step: u64,
}

impl Sequence {
    fn progress(&self) -> Progress {
        Progress::new().step(self.step).prefill(8, 8)
    }

    fn kind(&self) -> ScheduleKind {
        ScheduleKind::Resume
    }

    fn events(&self) {
        journey_event!(&self.span, QUEUED, ..self.progress());
        journey_event!(self.span, SCHEDULED, kind = FIRST, ..self.progress());
        journey_event!(&self.span, SCHEDULED, kind = "RESUME", step = self.step, ..&self.progress());
        journey_event!(&self.span, SCHEDULED, schedule.kind = self.kind(), "scheduler.step" = self.step);
        journey_event!(&self.span, SCHEDULED, kind = (self.kind()), phase = self.phase, ..self.progress());
        journey_event!(&self.span, PREEMPTED, num_preemptions = 1, phase = Phase::Prefill);
        let status = self.status;
        journey_event!(
            &self.span,
            FINISHED,
            status = (status),
            decode.done_tokens = 3,
            decode_max_tokens = Some(4_i64)
        );
        journey_event!(&self.span, FINISHED, status = &status, prefill_recomputed_tokens = None::<u32>,);
        journey_event!(&self.span, FINISHED, finish.status = length);
    }
}

fn request_events(span: &Span, error: &dyn std::error::Error) {
    journey_event!(span, ARRIVED);
    journey_event!(span, ABORTED, reason = generation_error, error = %error);
    journey_event!(span, ABORTED, reason = AbortReason::Timeout, error = ?error);
    journey_event!(span, ABORTED, reason = Some(AbortReason::Timeout), error = "too slow");
    let shared = Arc::new(span.clone());
    journey_event!(shared, FIRST_RESPONSE_FROM_CORE);
    journey_event!(&shared, DEPARTED);
}

fn step_events(step: u64, usage: f64) {
    journey_event!(
        BATCH_SUMMARY,
        step_id = step,
        queue.running_depth = 2_usize,
        kv_usage_gpu_ratio = usage,
        "kv.blocks_free_gpu" = 7,
    );
    journey_event!(REQUEST_SNAPSHOT, step_id = step, request.id = String::from("a"), request.phase = DECODE);
}

fn early_exits(progress: Option<Progress>, status: Result<FinishStatus, ()>) -> Result<(), ()> {
    journey_event!(FINISHED, status = status?, ..progress.ok_or(())?);
    Ok(())
}

/// In positions of an expression.
fn positions(done: bool) {
    match done {
        true => journey_event!(QUEUED),
        false => journey_event!(FINISHED, status = aborted),
    }
    let unit: () = journey_event!(QUEUED);
    unit
}

/// Through somebody's own macro.
macro_rules! finished {
    ($span:expr, $status:ident, $step:expr) => {
        journey_event!($span, FINISHED, status = $status, step = $step)
    };
    ($status:expr) => {
        journey_event!(FINISHED, status = $status)
    };
    (event $event:ident, $layer:path) => {
        journey_event!($event, crate = $layer)
    };
    (open $scope:expr, $id:expr) => {
        journey_span!(scope = $scope, request_id = $id)
    };
}

fn main() {
    let span = journey_span!(scope = "vllm.scheduler");
    Sequence { span: span.clone(), status: FinishStatus::Length, phase: None, step: 4 }.events();
    request_events(&span, &std::fmt::Error);
    step_events(1, 0.5);
    assert_eq!(early_exits(None, Ok(FinishStatus::Stopped)), Ok(()));
    positions(true);
    finished!(&span, stopped, 1 + 2);
    finished!(FinishStatus::Stopped);
    finished!(length);
    finished!(event QUEUED, journey_layer);
    drop(finished!(open "vllm.api", "a".to_owned() + "b"));
}

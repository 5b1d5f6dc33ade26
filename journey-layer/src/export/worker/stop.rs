//! How the export thread ends.

use std::time::Instant;

use crate::export::batch::{Batch, Loss};
use crate::export::worker::{TICK, Worker};
use crate::stats::Reason;

impl Worker {
    /// The last thing that the thread does: whatever is left is spooled, or lost and says so.
    pub(super) fn stop(mut self) {
        let Some(request) = self.shutdown.take() else { return };
        let loose = (!self.loose.is_empty()).then(|| Batch::new(self.loose.drain(..).collect()));
        self.batches.extend(loose);
        let spooled = self.put_all_by();
        let mut result = if self.batches.is_empty() { Ok(()) } else { Err(self.timed_out(&request)) };
        if spooled > 0 {
            self.notices.push(format!("{spooled} spans were not delivered and are in the spool, for the next start"));
        }
        for mut batch in std::mem::take(&mut self.batches) {
            let message = self.lanes.iter().find_map(|lane| lane.trouble.clone()).unwrap_or("no time was left".into());
            batch.loss.get_or_insert(Loss { reason: Reason::Shutdown, message });
            self.settle(batch);
        }
        let end = request.deadline.max(Instant::now() + TICK);
        if result.is_ok() {
            self.report_overflow(Instant::now());
            let flushed = self.flush_lanes(end);
            result = self.shared.take_lost().and(self.runtime.block_on(flushed));
        }
        let remaining = end.saturating_duration_since(Instant::now()).max(TICK);
        let stopped: Vec<_> = self.lanes.iter_mut().filter_map(|lane| lane.shutdown(remaining)).collect();
        self.runtime.block_on(async {
            for stopped in stopped {
                let _ = tokio::time::timeout_at(end.into(), stopped).await;
            }
        });
        self.chores(Instant::now(), true);
        self.lanes.clear();
        let flushes = self.shared.stop();
        // A name that is still being looked up must not hold the thread.
        self.runtime.shutdown_background();
        for waiting in flushes.into_iter().chain(self.flushes) {
            waiting.reply.send(result.clone());
        }
        request.reply.send(result);
    }

    /// Puts into the spool what its lane has not settled. Returns the number of spans; what other lanes lack, or the
    /// spool could not take, stays.
    fn put_all_by(&mut self) -> u64 {
        let Some(mine) = self.lanes.iter().position(|lane| lane.spool.is_some()) else { return 0 };
        let mut spans = 0;
        while let Some(batch) = self.batches.get_mut((self.lanes[mine].next - self.first) as usize) {
            if !self.lanes[mine].put_by(batch, Instant::now()) {
                break;
            }
            spans += batch.count.spans;
        }
        self.retire();
        spans
    }
}

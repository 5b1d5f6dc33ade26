//! The export thread: batches, exporters, flushes, ticks. Nothing here runs on a request's thread.

mod stop;
#[cfg(test)]
mod tests;

use std::collections::VecDeque;
use std::future::Future;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::sync::{Weak, mpsc};
use std::time::{Duration, Instant};

use opentelemetry::Context;
use opentelemetry_sdk::Resource;
use tokio::runtime::Runtime;

use crate::error::{BuildError, FlushError};
use crate::export::batch::{Batch, Item, Loss};
use crate::export::convert::Conversion;
use crate::export::exporter::{Destination, Start};
use crate::export::lane::{Drive, Lane};
use crate::export::local::PANICKED;
use crate::export::notices::Notices;
use crate::export::request::{FlushResult, Request};
use crate::export::sink::{Shared, Taken};
use crate::export::spool::{self, Spool};
use crate::stats::Reason;

/// What the thread is to do; it builds the exporters itself, so that what they spawn lives on its runtime.
pub(crate) struct Plan {
    pub(crate) destinations: Vec<Destination>,
    pub(crate) conversion: Conversion,
    pub(crate) resource: Resource,
    /// Of the one exporter that sends over the network.
    pub(crate) spool: Option<spool::Settings>,
    /// To be said when somebody listens.
    pub(crate) warnings: Vec<String>,
}

/// Between two ticks.
const TICK: Duration = Duration::from_millis(250);
/// Bytes of one batch on the wire: gRPC receivers take 4 MiB by default.
const MAX_BATCH_BYTES: usize = 3 << 20;
/// What is left of a shutdown's time for the spool; a quarter of it, if that is less.
const SPOOL_TIME: Duration = Duration::from_secs(1);

/// Starts the thread and waits until its exporters stand.
///
/// # Errors
/// An exporter could not be built, or the thread not be started.
pub(crate) fn spawn(plan: Plan, shared: Arc<Shared>) -> Result<(), BuildError> {
    let (sender, ready) = mpsc::sync_channel(1);
    let body = move || {
        // Exporters must not trace their own work into the pipeline they serve.
        let _suppressed = Context::enter_telemetry_suppressed_scope();
        match Worker::new(plan, shared) {
            Ok(worker) => {
                let _ = sender.send(Ok(()));
                worker.run();
            }
            Err(error) => drop(sender.send(Err(error))),
        }
    };
    std::thread::Builder::new().name("journey-export".into()).spawn(body).map_err(BuildError::Thread)?;
    ready.recv().unwrap_or_else(|_| Err(BuildError::Exporter("the export thread panicked at its start".into())))
}

struct Worker {
    shared: Arc<Shared>,
    runtime: Runtime,
    conversion: Arc<Conversion>,
    lanes: Vec<Lane>,
    /// Taken from the queue, not yet in a batch.
    loose: VecDeque<Item>,
    /// Memory for the queue.
    empty: Vec<Item>,
    /// Not yet settled by every lane, oldest first.
    batches: VecDeque<Batch>,
    /// Number of the first of [`Self::batches`].
    first: u64,
    /// Number of the first that was not packed.
    unpacked: u64,
    /// Spans that are settled, and come after the first batch.
    ahead: u64,
    flushes: Vec<Request>,
    shutdown: Option<Request>,
    last_batch: Instant,
    last_tick: Instant,
    overflowed: u64,
    notices: Notices,
}

impl Worker {
    fn new(plan: Plan, shared: Arc<Shared>) -> Result<Self, BuildError> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(BuildError::Thread)?;
        let start = Start { resource: &plan.resource, limits: &shared.limits, semconv: plan.conversion.semconv };
        let lanes = plan.destinations.into_iter().map(|destination| {
            let name = destination.label.clone();
            let _in_runtime = runtime.enter();
            destination.start(&start).and_then(|exporting| Lane::start(name, exporting))
        });
        let mut lanes = lanes.collect::<Result<Vec<_>, _>>()?;
        if let (Some(settings), Some(lane)) = (plan.spool, lanes.iter_mut().find(|lane| lane.is_remote())) {
            let spool = Spool::open(&settings, shared.stats.clone());
            let directory = settings.directory;
            lane.spool = Some(spool.map_err(|source| BuildError::Spool { directory, source })?);
        }
        let now = Instant::now();
        Ok(Self {
            shared,
            runtime,
            conversion: Arc::new(plan.conversion),
            lanes,
            loose: VecDeque::new(),
            empty: Vec::new(),
            batches: VecDeque::new(),
            first: 0,
            unpacked: 0,
            ahead: 0,
            flushes: Vec::new(),
            shutdown: None,
            last_batch: now,
            last_tick: now,
            overflowed: 0,
            notices: Notices::new(plan.warnings),
        })
    }

    fn run(mut self) {
        loop {
            let now = Instant::now();
            self.tick(now);
            self.collect(now);
            let progress = self.advance(now) | self.relieve(now) | self.pack(now);
            self.retire();
            self.answer(now);
            let end = |request: &Request| self.is_settled(request) || self.last_moment(request) <= now;
            if self.shutdown.as_ref().is_some_and(end) {
                return self.stop();
            }
            let until = if progress { now } else { self.next_wake() };
            let shared = self.shared.clone();
            self.runtime.block_on(async {
                // Lets requests under way move on even when there is no time to wait.
                tokio::task::yield_now().await;
                let _ = tokio::time::timeout_at(until.into(), shared.signal.notified()).await;
            });
        }
    }

    fn tick(&mut self, now: Instant) {
        if now.duration_since(self.last_tick) >= TICK {
            self.last_tick = now;
            self.chores(now, false);
        }
    }

    /// Warnings, and what the layer has to do.
    fn chores(&mut self, now: Instant, last: bool) {
        self.report_overflow(now);
        let tick = self.shared.tick.get().and_then(Weak::upgrade);
        self.notices.say(tick.as_deref(), last);
        if let Some(tick) = tick {
            // What it calls includes subscribers, which are anybody's code.
            let _ = catch_unwind(AssertUnwindSafe(|| tick.tick()));
        }
    }

    fn report_overflow(&mut self, now: Instant) {
        let overflowed = self.shared.overflowed.load(Relaxed);
        if overflowed > self.overflowed {
            let loss = Loss { reason: Reason::QueueFull, message: "the export queue is full".into() };
            self.report(overflowed - self.overflowed, loss, now);
            self.overflowed = overflowed;
        }
    }

    /// Takes what was submitted, and makes batches of it.
    fn collect(&mut self, now: Instant) {
        let Taken { mut items, mut flushes, shutdown } = self.shared.take(std::mem::take(&mut self.empty));
        let asked = !flushes.is_empty() || shutdown.is_some();
        self.flushes.append(&mut flushes);
        self.shutdown = self.shutdown.take().or(shutdown);
        if asked {
            self.lanes.iter_mut().for_each(|lane| lane.hurry(now));
        }
        self.loose.extend(items.drain(..));
        self.empty = items;
        let limits = &self.shared.limits;
        let waited = now.duration_since(self.last_batch) >= limits.schedule_delay;
        let now_or_never = waited || self.shutdown.is_some() || !self.flushes.is_empty();
        if waited {
            self.last_batch = now;
        }
        while self.loose.len() >= limits.max_batch || (now_or_never && !self.loose.is_empty()) {
            let mut bytes = 0;
            let fits = self.loose.iter().take(limits.max_batch).take_while(|item| {
                bytes += item.wire_size();
                bytes <= MAX_BATCH_BYTES
            });
            let fits = fits.count().max(1);
            self.batches.push_back(Batch::new(self.loose.drain(..fits).collect()));
        }
    }

    /// Lets every lane take its next step. Returns whether one moved on.
    fn advance(&mut self, now: Instant) -> bool {
        let mut progress = false;
        let drive = Drive { runtime: &self.runtime, shared: &self.shared, conversion: &self.conversion, now };
        let mut lost = Vec::new();
        for lane in &mut self.lanes {
            let batch = self.batches.get_mut((lane.next - self.first) as usize);
            progress |= lane.advance(batch, &drive);
            if let Some(trouble) = &lane.trouble
                && self.notices.due(trouble, now)
            {
                self.notices.push(format!("export failed, to be tried again: {trouble}"));
            }
            if let Some(spool) = &mut lane.spool {
                for warning in spool.warnings.drain(..) {
                    if self.notices.due(&warning, now) {
                        self.notices.push(warning);
                    }
                }
                lost.append(&mut spool.lost);
            }
        }
        lost.into_iter().for_each(|(spans, loss)| self.report(spans, loss, now));
        progress
    }

    /// Moves a batch from the queue to the spool when the queue is half full in an outage, or three quarters full of
    /// what a receiver does not take fast enough. Returns whether it did.
    fn relieve(&mut self, now: Instant) -> bool {
        let (bytes, max) = (self.shared.queued_bytes(), self.shared.limits.max_queue_bytes);
        let Some(mine) = self.lanes.iter().position(|lane| lane.spool.is_some()) else { return false };
        let lane = &self.lanes[mine];
        if bytes <= max / 2 || bytes <= max / 4 * 3 && lane.trouble.is_none() {
            return false;
        }
        // What is on its way stays, and may arrive at any moment; what another exporter has yet to take stays in memory.
        let number = lane.next + u64::from(lane.is_sending());
        let is_free = self.lanes.iter().enumerate().all(|(at, lane)| at == mine || lane.next > number);
        let at = (number - self.first) as usize;
        let Some(batch) = self.batches.get_mut(at).filter(|_| is_free) else { return false };
        if !self.lanes[mine].spool(batch, now) {
            return false;
        }
        let batch = self.batches.remove(at).expect("it is there");
        // Those behind it have other numbers now.
        let next = self.lanes.iter_mut().map(|lane| &mut lane.next).chain([&mut self.unpacked]);
        next.filter(|next| **next > number).for_each(|next| *next -= 1);
        if self.lanes[mine].is_sending() {
            // A flush that waits for the one on its way is not to take this one's end for it.
            self.ahead += self.account(batch);
        } else {
            self.settle(batch);
        }
        true
    }

    /// Packs a batch that will wait, as far as anybody can tell. Returns whether there was one.
    fn pack(&mut self, now: Instant) -> bool {
        self.unpacked = self.unpacked.max(self.first);
        let will_wait = self.lanes.iter().any(|lane| lane.is_stalled(now));
        let Some(batch) = self.batches.get_mut((self.unpacked - self.first) as usize).filter(|_| will_wait) else {
            return false;
        };
        let before = batch.size;
        batch.pack(&self.shared.pool);
        self.shared.resize(before, batch.size);
        self.unpacked += 1;
        true
    }

    /// Writes the batches that every lane has settled into the ledger.
    fn retire(&mut self) {
        let done = self.lanes.iter().map(|lane| lane.next).min().unwrap_or(self.first + self.batches.len() as u64);
        while self.first < done {
            let mut batch = self.batches.pop_front().expect("a lane settles only batches that exist");
            if self.lanes.is_empty() {
                batch.loss = Some(Loss { reason: Reason::NoExporter, message: String::new() });
            }
            self.first += 1;
            self.settle(batch);
        }
    }

    /// Writes a batch into the ledger that every lane has settled, and all before it.
    fn settle(&mut self, batch: Batch) {
        let spans = self.account(batch) + std::mem::take(&mut self.ahead);
        self.shared.settled.fetch_add(spans, Relaxed);
    }

    /// Writes a batch into the ledger. Returns the number of its spans.
    fn account(&mut self, batch: Batch) -> u64 {
        let (count, size) = (batch.count, batch.size);
        let spool = self.lanes.iter_mut().find_map(|lane| lane.spool.as_mut());
        let lost = batch.account(&self.shared.stats, &self.shared.pool, spool);
        // What nobody was to take is missed by nobody.
        if let Some((spans, loss)) = lost.filter(|(_, loss)| loss.reason != Reason::NoExporter) {
            self.report(spans, loss, Instant::now());
        }
        self.shared.release(count, size);
        count.spans
    }

    fn report(&mut self, spans: u64, loss: Loss, now: Instant) {
        if self.notices.due(&loss.message, now) {
            self.notices.push(format!("spans were lost ({}): {}", loss.reason, loss.message));
        }
        self.shared.lose(spans, loss);
    }

    fn is_settled(&self, request: &Request) -> bool {
        self.shared.settled.load(Relaxed) >= request.target
    }

    /// When a shutdown has to come to its end.
    fn last_moment(&self, request: &Request) -> Instant {
        let has_spool = self.lanes.iter().any(|lane| lane.spool.is_some());
        let margin = if has_spool { SPOOL_TIME.min(request.timeout / 4) } else { Duration::ZERO };
        request.deadline.checked_sub(margin).unwrap_or(request.deadline)
    }

    /// Answers the flushes that are done, or late.
    fn answer(&mut self, now: Instant) {
        let (done, waiting): (Vec<_>, Vec<_>) =
            std::mem::take(&mut self.flushes).into_iter().partition(|request| self.is_settled(request));
        if !done.is_empty() {
            self.report_overflow(now);
            let lost = self.shared.take_lost();
            for request in done {
                let (lost, flushed) = (lost.clone(), self.flush_lanes(request.deadline));
                // Apart from the loop: an exporter may take all the time there is.
                self.runtime.spawn(async move { request.reply.send(lost.and(flushed.await)) });
            }
        }
        let (late, waiting): (Vec<_>, Vec<_>) = waiting.into_iter().partition(|request| request.deadline <= now);
        for request in late {
            let result = Err(self.timed_out(&request));
            request.reply.send(result);
        }
        self.flushes = waiting;
    }

    /// The exporters' own flushes.
    fn flush_lanes(&self, deadline: Instant) -> impl Future<Output = FlushResult> + Send + use<> {
        let flushes: Vec<_> = self.lanes.iter().filter_map(Lane::flush).collect();
        async move {
            let mut result = Ok(());
            for (name, flushed) in flushes {
                let message = match tokio::time::timeout_at(deadline.into(), flushed).await {
                    Ok(Ok(Ok(()))) => continue,
                    Ok(Ok(Err(message))) => message,
                    Ok(Err(_)) => PANICKED.into(),
                    Err(_) => "it did not come back in time".into(),
                };
                result = Err(FlushError::Exporter { message: format!("{name}: {message}") });
            }
            result
        }
    }

    fn timed_out(&self, request: &Request) -> FlushError {
        let pending = request.target - self.shared.settled.load(Relaxed).min(request.target);
        let cause = self.lanes.iter().find_map(|lane| lane.trouble.clone()).unwrap_or("no answer yet".into());
        FlushError::Timeout { pending, timeout: request.timeout, cause }
    }

    fn next_wake(&self) -> Instant {
        let batch = self.last_batch + self.shared.limits.schedule_delay;
        let flushes = self.flushes.iter().map(|request| request.deadline);
        let requests = flushes.chain(self.shutdown.as_ref().map(|request| self.last_moment(request)));
        let lanes = self.lanes.iter().filter_map(Lane::due);
        requests.chain(lanes).chain([batch, self.last_tick + TICK]).min().unwrap_or(batch)
    }
}

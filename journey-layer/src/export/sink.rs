//! The callers' side of the export thread: a bounded queue, and flush and shutdown that are safe on any thread.
//!
//! ```text
//! requests' threads ──submit──► queue (bytes bounded) ──► export thread ─► batches ─┬─► lane: OTLP
//!        │                                                                         ├─► lane: file
//!        └──flush / shutdown──► requests ◄──reply── when accounted for, or too late ┘
//! ```

use std::sync::atomic::Ordering::Relaxed;
use std::sync::{Arc, OnceLock, Weak, mpsc};
use std::time::{Duration, Instant};

use opentelemetry_sdk::trace::SpanData;
use tokio::sync::{Notify, oneshot};

use crate::error::{BuildError, FlushError};
use crate::export::batch::{Item, Loss, Size};
use crate::export::packed::Packed;
use crate::export::request::{FlushResult, Reply, Request};
use crate::export::worker::{self, Plan};
use crate::pool::RecordPool;
use crate::record::SpanRecord;
use crate::sink::Sink;
use crate::stats::{Count, Reason, Stats};
use crate::sync::{AtomicU64, Mutex};

/// What the export thread calls about four times a second.
pub(crate) trait Tick: Send + Sync {
    /// Chores of the layer that no request should pay for.
    fn tick(&self);

    /// Whether the subscriber that the layer is part of is known.
    fn is_heard(&self) -> bool;

    /// Says a warning through the subscriber that the layer is part of.
    fn warn(&self, message: String);
}

/// Bounds of the queue and of a batch.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Limits {
    /// Bytes of all spans that wait for the exporters.
    pub(crate) max_queue_bytes: usize,
    /// Spans that wait for the exporters; not bounded unless `OTEL_BSP_MAX_QUEUE_SIZE` says so.
    pub(crate) max_queue_spans: usize,
    /// Spans of one batch.
    pub(crate) max_batch: usize,
    /// The longest that a span waits for its batch to fill.
    pub(crate) schedule_delay: Duration,
    /// The longest that one attempt to export a batch may take.
    pub(crate) export_timeout: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            max_queue_bytes: 64 << 20,
            max_queue_spans: usize::MAX,
            max_batch: 512,
            schedule_delay: Duration::from_secs(5),
            export_timeout: Duration::from_secs(30),
        }
    }
}

#[derive(Default)]
struct Queue {
    items: Vec<Item>,
    /// Items ever taken; numbers them.
    submitted: u64,
    /// What waits: here, in a batch or with an exporter.
    waiting: Count,
    size: Size,
    flushes: Vec<Request>,
    shutdown: Option<Request>,
    /// No item is taken any more.
    closed: bool,
    /// The thread has ended, and answers nobody.
    stopped: bool,
}

/// Requests pack their records when others take more than this part of the bytes: the export thread, which packs what
/// waits in an outage, cannot keep up.
const PACKED_FROM: usize = 8;

/// What callers and the export thread share.
pub(crate) struct Shared {
    pub(crate) limits: Limits,
    pub(crate) stats: Arc<Stats>,
    queue: Mutex<Queue>,
    pub(crate) signal: Notify,
    pub(crate) tick: OnceLock<Weak<dyn Tick>>,
    /// The process that has the export thread.
    process: u32,
    /// Records that are used again.
    pub(crate) pool: RecordPool,
    /// Spans that were dropped because the queue was full.
    pub(crate) overflowed: AtomicU64,
    /// Items accounted for.
    pub(crate) settled: AtomicU64,
    lost: Mutex<Option<(u64, Loss)>>,
}

/// What the export thread takes at once.
pub(crate) struct Taken {
    pub(crate) items: Vec<Item>,
    pub(crate) flushes: Vec<Request>,
    pub(crate) shutdown: Option<Request>,
}

impl Shared {
    pub(crate) fn new(limits: Limits, stats: Arc<Stats>) -> Self {
        Self {
            limits,
            stats,
            queue: Mutex::default(),
            signal: Notify::new(),
            tick: OnceLock::new(),
            process: std::process::id(),
            pool: RecordPool::default(),
            overflowed: AtomicU64::new(0),
            settled: AtomicU64::new(0),
            lost: Mutex::default(),
        }
    }

    /// Everything that was submitted and asked for. The queue goes on with the memory of `empty`.
    pub(crate) fn take(&self, empty: Vec<Item>) -> Taken {
        let mut queue = self.queue.lock();
        Taken {
            items: std::mem::replace(&mut queue.items, empty),
            flushes: std::mem::take(&mut queue.flushes),
            shutdown: queue.shutdown.take(),
        }
    }

    /// The thread ends. Returns the flushes that came meanwhile; later ones are answered at once.
    pub(crate) fn stop(&self) -> Vec<Request> {
        let mut queue = self.queue.lock();
        queue.stopped = true;
        std::mem::take(&mut queue.flushes)
    }

    pub(crate) fn release(&self, count: Count, size: Size) {
        let mut queue = self.queue.lock();
        queue.waiting = queue.waiting.since(count);
        queue.size = queue.size.without(size);
    }

    /// What took `before` takes `after` now.
    pub(crate) fn resize(&self, before: Size, after: Size) {
        let mut queue = self.queue.lock();
        queue.size = queue.size.without(before).and(after);
    }

    /// Remembers a loss for the next flush to report.
    pub(crate) fn lose(&self, spans: u64, loss: Loss) {
        let mut lost = self.lost.lock();
        let before = lost.as_ref().map_or(0, |(spans, _)| *spans);
        *lost = Some((before + spans, loss));
    }

    pub(crate) fn take_lost(&self) -> FlushResult {
        match self.lost.lock().take() {
            None => Ok(()),
            Some((spans, Loss { reason, message })) => Err(FlushError::Lost { spans, reason, message }),
        }
    }

    pub(crate) fn submit(&self, item: Item) {
        if let Some(mut record) = self.push(item) {
            // Outside the lock, for which others wait.
            let packed = Packed::new(&mut record);
            self.pool.put_back(record);
            self.push(Item::Packed(packed));
        }
    }

    /// Takes an item, or counts it as lost. Returns a record that is to be packed first.
    fn push(&self, item: Item) -> Option<Box<SpanRecord>> {
        let (count, size) = (item.count(), item.size());
        let mut queue = self.queue.lock();
        let packs = queue.size.packable > self.limits.max_queue_bytes / PACKED_FROM && matches!(item, Item::Record(_));
        let size = if packs { Size::default() } else { size };
        let spans = queue.waiting.spans + 1;
        let full =
            queue.size.bytes + size.bytes > self.limits.max_queue_bytes || spans > self.limits.max_queue_spans as u64;
        if full || queue.closed {
            let forked = queue.stopped && std::process::id() != self.process;
            drop(queue);
            let reason = match (full, forked) {
                (true, _) => Reason::QueueFull,
                (false, true) => Reason::Forked,
                (false, false) => Reason::Shutdown,
            };
            if full {
                self.overflowed.fetch_add(1, Relaxed);
            }
            self.stats.count(reason, count);
            return None;
        }
        match item {
            Item::Record(record) if packs => return Some(record),
            item => queue.items.push(item),
        }
        queue.submitted += 1;
        queue.waiting = queue.waiting.and(count);
        queue.size = queue.size.and(size);
        // Waking costs a system call: once per batch, and the delay takes care of the rest.
        let wake = queue.items.len() == self.limits.max_batch;
        drop(queue);
        if wake && !self.is_forked() {
            self.signal.notify_one();
        }
        None
    }

    /// Whether this is a child of the process that has the export thread: then nothing will leave, and all that is
    /// or comes here is counted as lost. Asked once per batch and per flush, since it costs a system call.
    fn is_forked(&self) -> bool {
        if std::process::id() == self.process {
            return false;
        }
        let mut queue = self.queue.lock();
        queue.closed = true;
        queue.stopped = true;
        queue.items.clear();
        queue.size = Size::default();
        // The export thread's own share was copied too, and is exported over there.
        let count = std::mem::take(&mut queue.waiting);
        drop(queue);
        self.stats.count(Reason::Forked, count);
        true
    }

    /// Bytes of all spans that wait.
    pub(crate) fn queued_bytes(&self) -> usize {
        self.queue.lock().size.bytes
    }

    pub(crate) fn backlog(&self) -> Count {
        self.queue.lock().waiting
    }

    pub(crate) fn request(&self, timeout: Duration, reply: Reply, shutdown: bool) {
        let before = self.backlog().spans;
        if self.is_forked() {
            let message = "the export thread is the parent process's: build the pipeline after the fork".into();
            let loss = FlushError::Lost { spans: before, reason: Reason::Forked, message };
            return reply.send(if before > 0 { Err(loss) } else { Ok(()) });
        }
        let mut queue = self.queue.lock();
        // A forever is as good as a century, and does not overflow the clock.
        let deadline = Instant::now() + timeout.min(Duration::from_secs(100 * 365 * 86_400));
        let request = Request { target: queue.submitted, timeout, deadline, reply };
        if queue.stopped || (shutdown && queue.closed) {
            drop(queue);
            return request.reply.send(Ok(()));
        }
        if shutdown {
            queue.closed = true;
            queue.shutdown = Some(request);
        } else {
            queue.flushes.push(request);
        }
        drop(queue);
        self.signal.notify_one();
    }
}

/// The sink that hands spans to exporters from a thread of its own.
pub(crate) struct ExportSink {
    shared: Arc<Shared>,
}

/// The thread answers by the deadline; a caller gives it this much longer before it takes it for stuck.
const STUCK: Duration = Duration::from_millis(500);

impl ExportSink {
    /// Starts the export thread.
    ///
    /// # Errors
    /// An exporter could not be built, or the thread not be started.
    pub(crate) fn start(plan: Plan, limits: Limits, stats: Arc<Stats>) -> Result<Arc<Self>, BuildError> {
        let shared = Arc::new(Shared::new(limits, stats));
        worker::spawn(plan, shared.clone())?;
        Ok(Arc::new(Self { shared }))
    }

    /// Calls `tick` from the export thread from now on, as long as it lives.
    pub(crate) fn set_tick(&self, tick: Weak<dyn Tick>) {
        let _ = self.shared.tick.set(tick);
        self.shared.signal.notify_one();
    }

    /// Takes a span of our provider.
    pub(crate) fn submit_raw(&self, span: SpanData) {
        self.shared.submit(Item::Raw(Box::new(span)));
    }

    /// [`Sink::flush`], for async callers: blocks nothing, and needs no particular runtime.
    pub(crate) async fn flush_async(&self, timeout: Duration) -> FlushResult {
        self.ask_async(timeout, false).await
    }

    /// [`Sink::shutdown`], for async callers.
    pub(crate) async fn shutdown_async(&self, timeout: Duration) -> FlushResult {
        self.ask_async(timeout, true).await
    }

    async fn ask_async(&self, timeout: Duration, shutdown: bool) -> FlushResult {
        let (sender, receiver) = oneshot::channel();
        self.shared.request(timeout, Reply::Task(sender), shutdown);
        receiver.await.unwrap_or_else(|_| Err(self.overdue(timeout)))
    }

    fn ask(&self, timeout: Duration, shutdown: bool) -> FlushResult {
        let (sender, receiver) = mpsc::sync_channel(1);
        self.shared.request(timeout, Reply::Thread(sender), shutdown);
        receiver.recv_timeout(timeout.saturating_add(STUCK)).unwrap_or_else(|_| Err(self.overdue(timeout)))
    }

    fn overdue(&self, timeout: Duration) -> FlushError {
        let submitted = self.shared.queue.lock().submitted;
        let pending = submitted - self.shared.settled.load(Relaxed).min(submitted);
        FlushError::Timeout { pending, timeout, cause: "the export thread does not answer".into() }
    }
}

impl Sink for ExportSink {
    fn submit(&self, record: Box<SpanRecord>) {
        self.shared.submit(Item::Record(record));
    }

    fn pool(&self) -> &RecordPool {
        &self.shared.pool
    }

    fn backlog(&self) -> Count {
        self.shared.backlog()
    }

    fn flush(&self, timeout: Duration) -> FlushResult {
        self.ask(timeout, false)
    }

    fn shutdown(&self, timeout: Duration) -> FlushResult {
        self.ask(timeout, true)
    }
}

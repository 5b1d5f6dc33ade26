//! One exporter's way through the batches: in order, one at a time, with retries of its own.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use tokio::runtime::Runtime;
use tokio::sync::oneshot;
use tokio::task::JoinHandle;

use crate::error::BuildError;
use crate::export::backoff::pause;
use crate::export::batch::{Batch, Item, Loss, Refused};
use crate::export::convert::Conversion;
use crate::export::local::{Local, LocalThread, PANICKED, guarded};
use crate::export::sink::Shared;
use crate::export::spool::Spool;
use crate::stats::Reason;

/// What became of a batch that an exporter took.
#[derive(Debug, Default)]
pub(crate) struct Accepted {
    /// Spans that were lost all the same.
    pub(crate) refused: Vec<Refused>,
}

/// Why an attempt failed.
#[derive(Debug)]
pub(crate) enum Failure {
    /// The batch would fail again.
    Permanent(Loss),
    /// It may go through later; not before `after`, where the receiver said so.
    Transient { message: String, after: Option<Duration> },
}

impl Failure {
    pub(crate) fn permanent(message: impl Into<String>) -> Self {
        Self::Permanent(Loss { reason: Reason::ExportFailed, message: message.into() })
    }

    pub(crate) fn transient(message: impl Into<String>) -> Self {
        Self::Transient { message: message.into(), after: None }
    }
}

pub(crate) type Outcome = Result<Accepted, Failure>;

/// Sends one encoded batch; called again for a retry.
pub(crate) type Attempt = Box<dyn Fn() -> Sending + Send>;

/// An attempt under way.
pub(crate) type Sending = Pin<Box<dyn Future<Output = Outcome> + Send>>;

/// An exporter that waits for the network, on the export thread's runtime.
pub(crate) trait Remote: Send {
    /// Writes a batch as an `ExportTraceServiceRequest`.
    fn encode(&mut self, items: &[Item]) -> Bytes;

    /// Makes an encoded batch ready to be sent, once for all attempts.
    fn prepare(&self, request: Bytes) -> Attempt;
}

pub(crate) enum Exporting {
    Local(Box<dyn Local>),
    Remote(Box<dyn Remote>),
}

enum Driver {
    Local(LocalThread),
    Remote(Box<dyn Remote>),
}

enum State {
    Idle,
    /// Something is with the exporter.
    Flying(JoinHandle<Outcome>, Cargo),
    /// An attempt failed; the next is due then. `forced`: the receiver named the time, and a flush does not hurry it.
    Waiting {
        until: Instant,
        forced: bool,
    },
}

enum Cargo {
    /// The batch that is next.
    Batch,
    /// A request from the spool.
    Spooled(u64),
}

pub(crate) struct Lane {
    name: String,
    driver: Driver,
    state: State,
    /// When something was last given to the exporter.
    sent: Instant,
    /// The batch under way, encoded.
    attempt: Option<Attempt>,
    failures: u32,
    /// Number of the batch that is next.
    pub(crate) next: u64,
    /// What the latest failed attempt said, until one succeeds.
    pub(crate) trouble: Option<String>,
    /// Where batches go that cannot be sent.
    pub(crate) spool: Option<Spool>,
    /// When the spool took nothing more.
    spool_refused: Option<Instant>,
}

/// An exporter that has had something for longer than this gets nowhere.
const STALLED: Duration = Duration::from_millis(200);
/// A spool that is full is not asked again for this long: asking means encoding.
const SPOOL_PAUSE: Duration = Duration::from_secs(1);

impl Lane {
    /// # Errors
    /// The exporter's thread could not be started.
    pub(crate) fn start(name: String, exporting: Exporting) -> Result<Self, BuildError> {
        let driver = match exporting {
            Exporting::Local(exporter) => Driver::Local(LocalThread::start(exporter).map_err(BuildError::Thread)?),
            Exporting::Remote(exporter) => Driver::Remote(exporter),
        };
        Ok(Self {
            name,
            driver,
            state: State::Idle,
            sent: Instant::now(),
            attempt: None,
            failures: 0,
            next: 0,
            trouble: None,
            spool: None,
            spool_refused: None,
        })
    }

    /// Whether it sends over the network, and so may have a spool.
    pub(crate) fn is_remote(&self) -> bool {
        matches!(self.driver, Driver::Remote(_))
    }

    /// Does what can be done now with `batch`, the one that is next, or else with the spool. Returns whether something
    /// is settled.
    pub(crate) fn advance(&mut self, batch: Option<&mut Batch>, drive: &Drive<'_>) -> bool {
        match std::mem::replace(&mut self.state, State::Idle) {
            State::Flying(handle, cargo) if handle.is_finished() => {
                let outcome = drive.runtime.block_on(handle).unwrap_or_else(|error| {
                    if error.is_panic() {
                        Err(Failure::permanent(PANICKED))
                    } else {
                        Err(Failure::transient("the attempt was cancelled"))
                    }
                });
                match cargo {
                    Cargo::Batch => {
                        let batch = batch.expect("a batch under way is not retired");
                        self.settle(outcome, batch, drive.now)
                    }
                    Cargo::Spooled(number) => self.settle_spooled(outcome, number, drive.now),
                }
            }
            State::Waiting { until, forced } if until > drive.now => {
                self.state = State::Waiting { until, forced };
                false
            }
            State::Idle | State::Waiting { .. } => match batch {
                Some(batch) => match self.send(batch, drive) {
                    Ok(handle) => {
                        self.state = State::Flying(handle, Cargo::Batch);
                        false
                    }
                    Err(()) => self.settle(Err(Failure::permanent(PANICKED)), batch, drive.now),
                },
                None => {
                    self.send_spooled(drive);
                    false
                }
            },
            flying @ State::Flying(..) => {
                self.state = flying;
                false
            }
        }
    }

    fn send(&mut self, batch: &Batch, drive: &Drive<'_>) -> Result<JoinHandle<Outcome>, ()> {
        self.sent = drive.now;
        match &mut self.driver {
            Driver::Local(thread) => {
                let outcome = thread.export(batch.spans(drive.conversion));
                let lost = |_| Err(Failure::permanent(PANICKED));
                // Its time is its own: what it was given cannot be taken back and given again.
                Ok(drive.launch(Box::pin(async move { outcome.await.unwrap_or_else(lost) })))
            }
            Driver::Remote(exporter) => {
                let attempt = match self.attempt.take() {
                    Some(attempt) => attempt,
                    None => guarded(|| {
                        let request = exporter.encode(batch.items());
                        exporter.prepare(request)
                    })?,
                };
                let sending = drive.within_limit(attempt());
                self.attempt = Some(attempt);
                Ok(drive.launch(sending))
            }
        }
    }

    fn send_spooled(&mut self, drive: &Drive<'_>) {
        if let (Driver::Remote(exporter), Some(spool)) = (&self.driver, &mut self.spool)
            && let Some((number, request)) = spool.front()
            && let Ok(attempt) = guarded(|| exporter.prepare(request.into()))
        {
            self.sent = drive.now;
            self.state = State::Flying(drive.launch(drive.within_limit(attempt())), Cargo::Spooled(number));
        }
    }

    fn settle(&mut self, outcome: Outcome, batch: &mut Batch, now: Instant) -> bool {
        match outcome {
            Ok(accepted) => batch.refuse(accepted.refused, &self.name),
            Err(Failure::Permanent(loss)) => {
                batch.loss.get_or_insert(self.named(loss));
            }
            Err(Failure::Transient { message, after }) => return self.back_off(&message, after, now),
        }
        self.succeeded();
        self.next += 1;
        true
    }

    fn settle_spooled(&mut self, outcome: Outcome, number: u64, now: Instant) -> bool {
        let outcome = outcome.map_err(|failure| match failure {
            Failure::Permanent(loss) => Failure::Permanent(self.named(loss)),
            transient @ Failure::Transient { .. } => transient,
        });
        let spool = self.spool.as_mut().expect("what was spooled has a spool");
        match outcome {
            Ok(accepted) => spool.sent(number, accepted.refused),
            Err(Failure::Permanent(loss)) => spool.refused(number, loss),
            Err(Failure::Transient { message, after }) => return self.back_off(&message, after, now),
        }
        self.succeeded();
        true
    }

    fn back_off(&mut self, message: &str, after: Option<Duration>, now: Instant) -> bool {
        self.state = State::Waiting { until: now + pause(self.failures, after), forced: after.is_some() };
        self.failures += 1;
        self.trouble = Some(format!("{}: {message}", self.name));
        false
    }

    fn succeeded(&mut self) {
        self.trouble = None;
        self.attempt = None;
        self.failures = 0;
    }

    fn named(&self, loss: Loss) -> Loss {
        Loss { message: format!("{}: {}", self.name, loss.message), ..loss }
    }

    /// Writes `batch` to the spool, this lane's settlement of it. Returns whether the spool took it.
    pub(crate) fn spool(&mut self, batch: &mut Batch, now: Instant) -> bool {
        let (Driver::Remote(exporter), Some(spool)) = (&mut self.driver, &mut self.spool) else { return false };
        if self.spool_refused.is_some_and(|at| now.duration_since(at) < SPOOL_PAUSE) {
            return false;
        }
        let Ok(request) = guarded(|| exporter.encode(batch.items())) else { return false };
        match spool.push(&request, batch.count) {
            Ok(number) => batch.spooled = Some(number),
            Err(error) => {
                self.spool_refused = Some(now);
                spool.warnings.push(format!("a batch could not be spooled: {error}"));
                return false;
            }
        }
        if !self.is_sending() {
            // The batch that is next is another one now.
            self.attempt = None;
        }
        true
    }

    /// Puts `batch`, the one that is next, into the spool at the end, whether it is on its way or not. Returns whether the
    /// spool took it.
    pub(crate) fn put_by(&mut self, batch: &mut Batch, now: Instant) -> bool {
        if !self.spool(batch, now) {
            return false;
        }
        self.next += 1;
        // It may have arrived all the same; nobody waits for the answer.
        if let State::Flying(handle, Cargo::Batch) = &self.state {
            handle.abort();
            self.attempt = None;
            self.back_off("no answer before the batch was spooled", None, now);
        }
        true
    }

    /// Whether the batch that is next is on its way.
    pub(crate) fn is_sending(&self) -> bool {
        matches!(self.state, State::Flying(_, Cargo::Batch))
    }

    /// Whether its latest attempt failed, or takes long: batches will wait.
    pub(crate) fn is_stalled(&self, now: Instant) -> bool {
        let is_flying = matches!(self.state, State::Flying(..));
        self.trouble.is_some() || is_flying && now.duration_since(self.sent) > STALLED
    }

    /// Somebody waits: try now, unless the receiver asked for patience.
    pub(crate) fn hurry(&mut self, now: Instant) {
        if let State::Waiting { until, forced: false } = &mut self.state {
            *until = now;
        }
    }

    /// When there is something to do, unless the network says so earlier.
    pub(crate) fn due(&self) -> Option<Instant> {
        match self.state {
            State::Waiting { until, .. } => Some(until),
            State::Idle | State::Flying(..) => None,
        }
    }

    /// The exporter's own flush, of what it was given so far.
    pub(crate) fn flush(&self) -> Option<(String, oneshot::Receiver<Result<(), String>>)> {
        match &self.driver {
            Driver::Local(thread) => Some((self.name.clone(), thread.flush())),
            Driver::Remote(_) => None,
        }
    }

    /// Gives up what is under way.
    pub(crate) fn shutdown(&mut self, timeout: Duration) -> Option<oneshot::Receiver<()>> {
        if let State::Flying(handle, _) = std::mem::replace(&mut self.state, State::Idle) {
            handle.abort();
        }
        match &self.driver {
            Driver::Local(thread) => Some(thread.shutdown(timeout)),
            Driver::Remote(_) => None,
        }
    }
}

/// What a lane needs of the export thread.
pub(crate) struct Drive<'a> {
    pub(crate) runtime: &'a Runtime,
    pub(crate) shared: &'a Arc<Shared>,
    pub(crate) conversion: &'a Arc<Conversion>,
    pub(crate) now: Instant,
}

impl Drive<'_> {
    fn launch(&self, sending: Sending) -> JoinHandle<Outcome> {
        let shared = self.shared.clone();
        self.runtime.spawn(async move {
            let outcome = sending.await;
            // One thread runs both: it looks again only after this poll, which is the task's last.
            shared.signal.notify_one();
            outcome
        })
    }

    fn within_limit(&self, sending: Sending) -> Sending {
        let limit = self.shared.limits.export_timeout;
        Box::pin(async move {
            let sent = tokio::time::timeout(limit, sending).await;
            sent.unwrap_or_else(|_| Err(Failure::transient(format!("no answer within {limit:?}"))))
        })
    }
}

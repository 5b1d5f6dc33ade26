//! One exporter's way through the batches: in order, one at a time, with retries of its own.

use std::future::Future;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::Pin;
use std::sync::Arc;
use std::time::{Duration, Instant};

use opentelemetry_sdk::trace::SpanData;
use rand::RngExt;
use tokio::runtime::Runtime;
use tokio::task::JoinHandle;

use crate::export::batch::{Batch, Item, Loss};
use crate::export::convert::Conversion;
use crate::export::sink::Shared;
use crate::stats::Reason;

/// What a receiver made of a batch that it took.
#[derive(Debug, Default)]
pub(crate) struct Accepted {
    /// Spans that it refused all the same (OTLP partial success).
    pub(crate) rejected: u64,
    pub(crate) message: String,
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

/// An exporter that does its work on the export thread, at once.
pub(crate) trait Local: Send {
    fn export(&mut self, spans: Vec<SpanData>) -> Outcome;

    /// Everything exported so far goes where it belongs.
    fn flush(&mut self) -> Result<(), String> {
        Ok(())
    }

    /// Called now and then.
    fn tick(&mut self, _now: Instant) {}

    fn shutdown(&mut self, _timeout: Duration) {}
}

/// Sends one encoded batch; called again for a retry.
pub(crate) type Attempt = Box<dyn Fn() -> Pin<Box<dyn Future<Output = Outcome> + Send>> + Send>;

/// An exporter that waits for the network, on the export thread's runtime.
pub(crate) trait Remote: Send {
    /// Encodes a batch, once for all attempts.
    fn encode(&mut self, items: &[Item]) -> Attempt;
}

pub(crate) enum Exporting {
    Local(Box<dyn Local>),
    Remote(Box<dyn Remote>),
}

enum State {
    Idle,
    /// A request is on its way.
    Flying(JoinHandle<Outcome>),
    /// An attempt failed; the next is due then. `forced`: the receiver named the time, and a flush does not hurry it.
    Waiting {
        until: Instant,
        forced: bool,
    },
}

pub(crate) struct Lane {
    name: String,
    exporting: Exporting,
    state: State,
    /// The batch under way, encoded.
    attempt: Option<Attempt>,
    failures: u32,
    /// Number of the batch that is next.
    pub(crate) next: u64,
    /// What the latest failed attempt said, until one succeeds.
    pub(crate) trouble: Option<String>,
}

const FIRST_BACKOFF: Duration = Duration::from_millis(100);
const MAX_BACKOFF: Duration = Duration::from_secs(10);
/// A receiver that asks for more patience than this does not get it.
const MAX_RETRY_AFTER: Duration = Duration::from_secs(300);

impl Lane {
    pub(crate) fn new(name: String, exporting: Exporting) -> Self {
        Self { name, exporting, state: State::Idle, attempt: None, failures: 0, next: 0, trouble: None }
    }

    /// Does what can be done now with `batch`, the one that is next. Returns whether it is settled.
    pub(crate) fn advance(&mut self, batch: &mut Batch, drive: &Drive<'_>) -> bool {
        if let State::Waiting { until, .. } = self.state
            && until > drive.now
        {
            return false;
        }
        let outcome = match (&mut self.exporting, std::mem::replace(&mut self.state, State::Idle)) {
            (Exporting::Local(exporter), _) => {
                guarded(|| exporter.export(batch.span_data(drive.conversion))).unwrap_or_else(panicked)
            }
            (Exporting::Remote(_), State::Flying(handle)) if !handle.is_finished() => {
                self.state = State::Flying(handle);
                return false;
            }
            (Exporting::Remote(_), State::Flying(handle)) => drive.runtime.block_on(handle).unwrap_or_else(|error| {
                if error.is_panic() { panicked(()) } else { Err(Failure::transient("the attempt was cancelled")) }
            }),
            (Exporting::Remote(exporter), State::Idle | State::Waiting { .. }) => {
                let attempt = match self.attempt.take() {
                    Some(attempt) => Ok(attempt),
                    None => guarded(|| exporter.encode(batch.items())),
                };
                match attempt {
                    Err(()) => panicked(()),
                    Ok(attempt) => {
                        let sending = attempt();
                        self.attempt = Some(attempt);
                        self.state = State::Flying(drive.launch(sending));
                        return false;
                    }
                }
            }
        };
        self.settle(outcome, batch, drive.now)
    }

    fn settle(&mut self, outcome: Outcome, batch: &mut Batch, now: Instant) -> bool {
        match outcome {
            Ok(accepted) => {
                if accepted.rejected > batch.rejected {
                    batch.rejected = accepted.rejected;
                    batch.rejection = format!("{}: {}", self.name, accepted.message);
                }
                self.trouble = None;
            }
            Err(Failure::Permanent(Loss { reason, message })) => {
                let message = format!("{}: {message}", self.name);
                batch.loss.get_or_insert(Loss { reason, message });
                self.trouble = None;
            }
            Err(Failure::Transient { message, after }) => {
                let backoff = FIRST_BACKOFF.saturating_mul(1 << self.failures.min(10)).min(MAX_BACKOFF);
                let jittered = backoff.mul_f64(rand::rng().random_range(0.5..1.0));
                let wait = after.map_or(jittered, |after| after.min(MAX_RETRY_AFTER).max(jittered));
                self.state = State::Waiting { until: now + wait, forced: after.is_some() };
                self.failures += 1;
                self.trouble = Some(format!("{}: {message}", self.name));
                return false;
            }
        }
        self.attempt = None;
        self.failures = 0;
        self.next += 1;
        true
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
            State::Idle | State::Flying(_) => None,
        }
    }

    pub(crate) fn tick(&mut self, now: Instant) {
        if let Exporting::Local(exporter) = &mut self.exporting {
            let _ = guarded(|| exporter.tick(now));
        }
    }

    pub(crate) fn flush(&mut self) -> Result<(), String> {
        match &mut self.exporting {
            Exporting::Local(exporter) => guarded(|| exporter.flush())
                .unwrap_or_else(|()| Err(PANICKED.into()))
                .map_err(|message| format!("{}: {message}", self.name)),
            Exporting::Remote(_) => Ok(()),
        }
    }

    /// Gives up what is under way.
    pub(crate) fn shutdown(&mut self, timeout: Duration) {
        if let State::Flying(handle) = std::mem::replace(&mut self.state, State::Idle) {
            handle.abort();
        }
        if let Exporting::Local(exporter) = &mut self.exporting {
            let _ = guarded(|| exporter.shutdown(timeout));
        }
    }
}

/// What a lane needs of the export thread.
pub(crate) struct Drive<'a> {
    pub(crate) runtime: &'a Runtime,
    pub(crate) shared: &'a Arc<Shared>,
    pub(crate) conversion: &'a Conversion,
    pub(crate) now: Instant,
}

impl Drive<'_> {
    fn launch(&self, sending: Pin<Box<dyn Future<Output = Outcome> + Send>>) -> JoinHandle<Outcome> {
        let limit = self.shared.limits.export_timeout;
        let shared = self.shared.clone();
        self.runtime.spawn(async move {
            let sent = tokio::time::timeout(limit, sending).await;
            // One thread runs both: it looks again only after this poll, which is the task's last.
            shared.signal.notify_one();
            sent.unwrap_or_else(|_| Err(Failure::transient(format!("no answer within {limit:?}"))))
        })
    }
}

const PANICKED: &str = "the exporter panicked";

fn panicked<T>(_: T) -> Outcome {
    Err(Failure::permanent(PANICKED))
}

/// Runs code of an exporter, which may be a user's.
fn guarded<T>(f: impl FnOnce() -> T) -> Result<T, ()> {
    catch_unwind(AssertUnwindSafe(f)).map_err(drop)
}

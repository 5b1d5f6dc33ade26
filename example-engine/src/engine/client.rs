//! The handle to a running core, and the stream of one sequence's outputs.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use futures_core::Stream;
use parking_lot::Mutex;
use tokio::sync::{mpsc, oneshot};

use super::error::EngineError;
use super::request::{EngineCoreOutput, EngineCoreRequest};
use super::stats::SchedulerStats;

/// What a handle asks of the core's thread.
pub(super) enum Command {
    /// Take a sequence; the answer says whether it was taken.
    Add(Box<EngineCoreRequest>, oneshot::Sender<Result<OutputStream, EngineError>>),
    /// Abort the sequence with this number: what a dropped stream does. Ids may be used again, numbers are not.
    Abort(u64),
    /// Take nothing new, finish within the time, abort what is left, end; then answer.
    Shutdown(Duration, std::sync::mpsc::Sender<()>),
}

/// What the handles and the core's thread share.
#[derive(Default)]
pub(super) struct Shared {
    pub(super) stats: Mutex<SchedulerStats>,
    /// Why the core ended, once it has.
    pub(super) dead: Mutex<Option<String>>,
}

/// A running core in this process: a thread with its own loop. A clone is another handle to the same core.
///
/// The core ends when [`shutdown`](Self::shutdown) was called, or when the last handle and the last stream are gone.
#[derive(Clone)]
pub struct EngineCore {
    pub(super) commands: mpsc::UnboundedSender<Command>,
    pub(super) shared: Arc<Shared>,
}

impl EngineCore {
    /// Hands a sequence to the core. Resolves when the core has really taken it: it waits or runs from then on.
    ///
    /// Dropping the future, or the stream it gives, aborts the sequence.
    ///
    /// # Errors
    /// Why the core did not take it.
    pub async fn add_request(&self, request: EngineCoreRequest) -> Result<OutputStream, EngineError> {
        let (reply, answer) = oneshot::channel();
        self.commands.send(Command::Add(Box::new(request), reply)).map_err(|_| self.dead())?;
        answer.await.map_err(|_| self.dead())?
    }

    /// The core's gauges and counters, as of its last step.
    pub fn stats(&self) -> SchedulerStats {
        *self.shared.stats.lock()
    }

    /// Whether the core takes requests and runs.
    ///
    /// # Errors
    /// Why it does not any more.
    pub fn health(&self) -> Result<(), EngineError> {
        match self.commands.is_closed() {
            true => Err(self.dead()),
            false => Ok(()),
        }
    }

    /// Ends the core: takes nothing new from now on, lets the unfinished sequences finish for at most `drain`, aborts what
    /// is left, and returns when the core's thread has done so. Blocks; from async code use `spawn_blocking`.
    pub fn shutdown(&self, drain: Duration) {
        let (done, ended) = std::sync::mpsc::channel();
        if self.commands.send(Command::Shutdown(drain, done)).is_ok() {
            // An error says that the thread has ended, which is what is waited for.
            let _ = ended.recv();
        }
    }

    fn dead(&self) -> EngineError {
        EngineError::Dead(self.shared.dead.lock().clone().unwrap_or_else(|| "it was shut down".to_owned()))
    }
}

impl std::fmt::Debug for EngineCore {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("EngineCore").field("stats", &self.stats()).finish_non_exhaustive()
    }
}

/// The outputs of one sequence, one per step that brought any. The last one has a `finish_reason`.
///
/// Dropped before that, it aborts the sequence. It ends without a `finish_reason` only when the core died.
#[derive(Debug)]
pub struct OutputStream {
    pub(super) outputs: mpsc::UnboundedReceiver<EngineCoreOutput>,
    pub(super) number: u64,
    pub(super) commands: mpsc::UnboundedSender<Command>,
    pub(super) finished: bool,
}

impl OutputStream {
    /// The next output; `None` after the last one.
    pub async fn next(&mut self) -> Option<EngineCoreOutput> {
        std::future::poll_fn(|cx| Pin::new(&mut *self).poll_next(cx)).await
    }
}

impl Stream for OutputStream {
    type Item = EngineCoreOutput;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let next = self.outputs.poll_recv(cx);
        if let Poll::Ready(output) = &next {
            self.finished |= output.as_ref().is_none_or(|output| output.finish_reason.is_some());
        }
        next
    }
}

impl Drop for OutputStream {
    fn drop(&mut self) {
        if !self.finished {
            // A core that has ended has no sequence left to abort.
            let _ = self.commands.send(Command::Abort(self.number));
        }
    }
}

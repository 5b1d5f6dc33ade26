//! What somebody asks of the export thread, and where the answer goes.

use std::sync::mpsc;
use std::time::{Duration, Instant};

use tokio::sync::oneshot;

use crate::error::FlushError;

pub(crate) type FlushResult = Result<(), FlushError>;

/// What somebody waits for.
pub(crate) struct Request {
    /// Number of the last item that it is about.
    pub(crate) target: u64,
    pub(crate) timeout: Duration,
    pub(crate) deadline: Instant,
    pub(crate) reply: Reply,
}

/// Where the answer goes: to a blocked thread, or to a task of whatever executor.
pub(crate) enum Reply {
    Thread(mpsc::SyncSender<FlushResult>),
    Task(oneshot::Sender<FlushResult>),
}

impl Reply {
    /// Nobody may be there any more to read it: then it was given up, and the ledger has the outcome.
    pub(crate) fn send(self, result: FlushResult) {
        match self {
            Self::Thread(sender) => drop(sender.try_send(result)),
            Self::Task(sender) => drop(sender.send(result)),
        }
    }
}

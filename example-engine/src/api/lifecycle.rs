//! Serving, draining, stopped: the server's way down.

use tokio::sync::watch;

/// Where the server is on its way.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Phase {
    Serving,
    Draining,
    Stopped,
}

/// The phase, shared by all who must know it.
#[derive(Debug)]
pub struct Lifecycle(watch::Sender<Phase>);

impl Lifecycle {
    /// A server that takes requests.
    pub fn new() -> Self {
        Self(watch::Sender::new(Phase::Serving))
    }

    /// From now on new requests are refused.
    pub fn drain(&self) {
        self.advance(Phase::Draining);
    }

    /// From now on the requests that are left are aborted.
    pub fn stop(&self) {
        self.advance(Phase::Stopped);
    }

    /// Whether new requests are refused.
    pub fn is_draining(&self) -> bool {
        *self.0.borrow() >= Phase::Draining
    }

    /// Whether what is left is to be aborted.
    pub fn is_stopped(&self) -> bool {
        *self.0.borrow() >= Phase::Stopped
    }

    /// Resolves when new requests are refused.
    pub async fn draining(&self) {
        self.reached(Phase::Draining).await;
    }

    /// Resolves when what is left is to be aborted.
    pub async fn stopped(&self) {
        self.reached(Phase::Stopped).await;
    }

    async fn reached(&self, phase: Phase) {
        // An error would say that the sender is gone, which is `self`.
        let _ = self.0.subscribe().wait_for(|now| *now >= phase).await;
    }

    fn advance(&self, phase: Phase) {
        self.0.send_if_modified(|now| std::mem::replace(now, (*now).max(phase)) < phase);
    }
}

impl Default for Lifecycle {
    fn default() -> Self {
        Self::new()
    }
}

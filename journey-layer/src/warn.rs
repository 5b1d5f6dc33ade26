//! Warnings, once per callsite and reason, off the request's thread.

use std::io::Write;

use parking_lot::Mutex;
use tracing_core::dispatcher::{self, WeakDispatch};

/// Messages that wait for the export thread. A layer must not emit an event from inside a callback: under a scoped
/// dispatcher it would be lost, and under a global one it would run every layer again, within the request.
#[derive(Default)]
pub(crate) struct Warnings(Mutex<Vec<String>>);

/// Beyond this many unsaid messages, further ones are only in the ledger.
const MAX_WAITING: usize = 256;

impl Warnings {
    pub(crate) fn push(&self, message: String) {
        let mut waiting = self.0.lock();
        if waiting.len() < MAX_WAITING {
            waiting.push(message);
        }
    }

    /// Says what waits, through the subscriber of the layer that had cause to warn. Where that layer is alone nobody
    /// listens to anything but journeys, and standard error is the only place left.
    pub(crate) fn say(&self, dispatch: Option<&WeakDispatch>, alone: bool) {
        let waiting = std::mem::take(&mut *self.0.lock());
        if waiting.is_empty() {
            return;
        }
        if alone {
            let mut out = std::io::stderr().lock();
            // Without a standard error there is the ledger.
            return waiting.iter().for_each(|message| drop(writeln!(out, "WARN journey_layer: {message}")));
        }
        let say = || waiting.iter().for_each(|message| tracing::warn!(target: "journey_layer", "{message}"));
        match dispatch.and_then(WeakDispatch::upgrade) {
            Some(dispatch) => dispatcher::with_default(&dispatch, say),
            None => say(),
        }
    }
}

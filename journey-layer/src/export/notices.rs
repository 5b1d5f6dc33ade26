//! Warnings of the export thread: each kind once in a while.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use crate::export::sink::Tick;

/// Between two warnings of one kind.
const INTERVAL: Duration = Duration::from_secs(60);
/// How long warnings of the start wait for a subscriber that hears them.
const PATIENCE: Duration = Duration::from_secs(5);
/// Kinds come from a handful of messages, unless an exporter makes them up.
const MAX_KINDS: usize = 64;

pub(crate) struct Notices {
    started: Instant,
    said: HashMap<String, Instant>,
    waiting: Vec<String>,
}

impl Notices {
    pub(crate) fn new(waiting: Vec<String>) -> Self {
        Self { started: Instant::now(), said: HashMap::new(), waiting }
    }

    /// To be said with the next tick.
    pub(crate) fn push(&mut self, message: String) {
        self.waiting.push(message);
    }

    /// Whether a warning of this kind has not been said for a while. Digits do not tell kinds apart: addresses of
    /// retries and durations differ where the trouble is one.
    pub(crate) fn due(&mut self, kind: &str, now: Instant) -> bool {
        let kind: String = kind.chars().filter(|c| !c.is_ascii_digit()).collect();
        match self.said.get(&kind) {
            Some(last) if now.duration_since(*last) < INTERVAL => false,
            _ => {
                if self.said.len() >= MAX_KINDS {
                    self.said.clear();
                }
                self.said.insert(kind, now);
                true
            }
        }
    }

    /// Says what waits, through the subscriber that the layer is part of where there is one. `last`: it is now or never.
    pub(crate) fn say(&mut self, tick: Option<&dyn Tick>, last: bool) {
        if !last && self.started.elapsed() < PATIENCE && tick.is_none_or(|tick| !tick.is_heard()) {
            return;
        }
        for message in self.waiting.drain(..) {
            match tick {
                Some(tick) => tick.warn(message),
                None => tracing::warn!(target: "journey_layer", "{message}"),
            }
        }
    }
}

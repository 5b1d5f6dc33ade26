//! One error type per boundary that can fail.

use std::time::Duration;

use crate::stats::Reason;

/// What a flush or a shutdown could not deliver.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum FlushError {
    /// The time ran out with spans still queued. They stay queued after a flush; after a shutdown they are counted
    /// as dropped (`shutdown`).
    #[error("{pending} spans were not delivered within {timeout:?}")]
    Timeout {
        /// Spans not yet accounted for.
        pending: u64,
        /// The time that was given.
        timeout: Duration,
    },
    /// Spans were lost since the last flush.
    #[error("{spans} spans were lost ({reason}): {message}")]
    Lost {
        /// Spans lost.
        spans: u64,
        /// Why, as counted in the ledger; the latest reason where there were several.
        reason: Reason,
        /// What the exporter said.
        message: String,
    },
}

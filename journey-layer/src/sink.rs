//! The seam between the layer and whatever takes its finished records.

use std::time::Duration;

use crate::error::FlushError;
use crate::pool::RecordPool;
use crate::record::SpanRecord;
use crate::stats::Count;

/// Takes finished records. Called on the threads of requests: `submit` does not block, allocate without bound or call
/// into OpenTelemetry.
pub(crate) trait Sink: Send + Sync {
    /// Takes a record. From here on the sink accounts for it: exported, or dropped with a reason.
    fn submit(&self, record: Box<SpanRecord>);

    /// Where new records come from, and where the sink puts those it is done with.
    fn pool(&self) -> &RecordPool;

    /// Records taken and not yet accounted for.
    fn backlog(&self) -> Count;

    /// Waits until everything submitted before the call is accounted for.
    ///
    /// # Errors
    /// The time ran out, or an exporter failed since the last flush; what was lost is in the ledger and in the error.
    fn flush(&self, timeout: Duration) -> Result<(), FlushError>;

    /// Flushes, then stops. Later records are dropped as [`Reason::Shutdown`](crate::Reason::Shutdown).
    ///
    /// # Errors
    /// As [`Self::flush`]. A second shutdown does nothing and returns `Ok`.
    fn shutdown(&self, timeout: Duration) -> Result<(), FlushError>;
}

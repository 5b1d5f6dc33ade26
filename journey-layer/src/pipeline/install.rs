//! One pipeline for the whole process, once.

use std::sync::Weak;

use opentelemetry::Context;
use parking_lot::Mutex;
use tracing_subscriber::layer::SubscriberExt;

use crate::error::InitError;
use crate::pipeline::{Builder, Inner, Journey};

/// What is installed. Weak: the last handle's drop is what flushes at the end of `main`.
static INSTALLED: Mutex<Option<Weak<Inner>>> = Mutex::new(None);

/// Installs journeys for the whole process, configured by the `OTEL_*` environment variables: a registry with the
/// journey layer alone, as the global default subscriber.
///
/// Keep the handle until the end of `main`: its drop flushes. To have other layers beside it, use
/// [`Journey::builder`] and [`Journey::layer`].
///
/// ```no_run
/// fn main() -> Result<(), Box<dyn std::error::Error>> {
///     let journey = journey_layer::init()?;
///     // Serve.
///     journey.shutdown(std::time::Duration::from_secs(5))?;
///     Ok(())
/// }
/// ```
///
/// # Errors
/// As [`Builder::install`].
pub fn init() -> Result<Journey, InitError> {
    Journey::builder().install()
}

impl Builder {
    /// [`init`], with these settings. With the same settings a second call returns the handle of the first, from
    /// whatever thread.
    ///
    /// # Errors
    /// The settings cannot work; journeys are installed with other settings (which go on working); they were, and have
    /// been shut down; the process has another global subscriber; or it is an exporter that calls, while it is started.
    pub fn install(self) -> Result<Journey, InitError> {
        let ready = self.resolve()?;
        // Held until all is in place: who comes second at the first use waits for the first. But the first waits for its
        // exporters, whose threads trace nothing.
        let mut installed = match Context::is_current_telemetry_suppressed() {
            true => INSTALLED.try_lock().ok_or(InitError::Exporter)?,
            false => INSTALLED.lock(),
        };
        if let Some(inner) = installed.as_ref() {
            let journey = Journey { inner: inner.upgrade().ok_or(InitError::ShutDown)? };
            let first = &journey.inner.fingerprint;
            if *first == ready.fingerprint {
                return Ok(journey);
            }
            return Err(InitError::Conflict {
                installed: first.destinations(),
                refused: ready.fingerprint.destinations(),
                difference: ready.fingerprint.difference(first),
            });
        }
        let journey = ready.start()?;
        let subscriber = tracing_subscriber::registry().with(journey.lone_layer());
        tracing::subscriber::set_global_default(subscriber).map_err(|_| InitError::SubscriberSet)?;
        *installed = Some(std::sync::Arc::downgrade(&journey.inner));
        Ok(journey)
    }
}

//! An exporter that works on a thread of its own: whatever blocks there holds nobody else up.

use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::mpsc::{self, Receiver, RecvTimeoutError, Sender};
use std::time::{Duration, Instant};

use opentelemetry::Context;
use tokio::sync::oneshot;

use crate::export::batch::Spans;
use crate::export::lane::{Failure, Outcome};

/// An exporter that does its work where it is called.
pub(crate) trait Local: Send {
    fn export(&mut self, spans: Spans) -> Outcome;

    /// Everything exported so far goes where it belongs.
    fn flush(&mut self) -> Result<(), String> {
        Ok(())
    }

    /// How often [`Self::tick`] is called, if at all.
    fn period(&self) -> Option<Duration> {
        None
    }

    fn tick(&mut self, _now: Instant) {}

    fn shutdown(&mut self, _timeout: Duration) {}
}

enum Call {
    Export(Spans, oneshot::Sender<Outcome>),
    Flush(oneshot::Sender<Result<(), String>>),
    Shutdown(Duration, oneshot::Sender<()>),
}

/// The handle to the exporter's thread, which ends when the handle is dropped and what it was asked for is done.
pub(crate) struct LocalThread {
    calls: Sender<Call>,
}

impl LocalThread {
    pub(crate) fn start(exporter: Box<dyn Local>) -> io::Result<Self> {
        let (calls, receiver) = mpsc::channel();
        std::thread::Builder::new().name("journey-lane".into()).spawn(move || run(exporter, &receiver))?;
        Ok(Self { calls })
    }

    pub(crate) fn export(&self, spans: Spans) -> oneshot::Receiver<Outcome> {
        self.call(|reply| Call::Export(spans, reply))
    }

    pub(crate) fn flush(&self) -> oneshot::Receiver<Result<(), String>> {
        self.call(Call::Flush)
    }

    pub(crate) fn shutdown(&self, timeout: Duration) -> oneshot::Receiver<()> {
        self.call(|reply| Call::Shutdown(timeout, reply))
    }

    fn call<T>(&self, call: impl FnOnce(oneshot::Sender<T>) -> Call) -> oneshot::Receiver<T> {
        let (reply, receiver) = oneshot::channel();
        // The thread outlives the handle; if it did not, the receiver would see the sender dropped.
        let _ = self.calls.send(call(reply));
        receiver
    }
}

fn run(mut exporter: Box<dyn Local>, calls: &Receiver<Call>) {
    // Exporters must not trace their own work into the pipeline they serve.
    let _suppressed = Context::enter_telemetry_suppressed_scope();
    let period = exporter.period();
    let mut last_tick = Instant::now();
    loop {
        let call = match period {
            Some(period) => calls.recv_timeout(period.saturating_sub(last_tick.elapsed())),
            None => calls.recv().map_err(RecvTimeoutError::from),
        };
        match call {
            Ok(Call::Export(spans, reply)) => {
                let outcome = guarded(|| exporter.export(spans)).unwrap_or_else(|()| Err(Failure::permanent(PANICKED)));
                let _ = reply.send(outcome);
            }
            Ok(Call::Flush(reply)) => {
                let _ = reply.send(guarded(|| exporter.flush()).unwrap_or_else(|()| Err(PANICKED.into())));
            }
            Ok(Call::Shutdown(timeout, reply)) => {
                let _ = guarded(|| exporter.shutdown(timeout));
                let _ = reply.send(());
            }
            Err(RecvTimeoutError::Timeout) => {
                last_tick = Instant::now();
                let _ = guarded(|| exporter.tick(last_tick));
            }
            Err(RecvTimeoutError::Disconnected) => break,
        }
    }
    // Its drop is anybody's code as well.
    let _ = guarded(move || drop(exporter));
}

pub(crate) const PANICKED: &str = "the exporter panicked";

/// Runs code of an exporter, which may be a user's.
pub(crate) fn guarded<T>(f: impl FnOnce() -> T) -> Result<T, ()> {
    catch_unwind(AssertUnwindSafe(f)).map_err(drop)
}

//! An `fmt` layer that prints to memory, and a way to run a future that never waits.

use std::io;
use std::pin::pin;
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll, Waker};

use journey_layer::tracing;
use tracing_subscriber::filter::Targets;
use tracing_subscriber::fmt::format::FmtSpan;
use tracing_subscriber::prelude::*;

#[derive(Clone, Default)]
struct Buffer(Arc<Mutex<Vec<u8>>>);

impl io::Write for Buffer {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.lock().expect("nobody panicked while printing").write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// What a plain `fmt` layer prints while `run` runs: one line per event, and per span that opens.
pub fn printed(run: impl FnOnce()) -> String {
    filtered("info", run)
}

/// The same behind a filter by target and level.
pub fn filtered(filter: &str, run: impl FnOnce()) -> String {
    let buffer = Buffer::default();
    let writer = buffer.clone();
    let fmt = tracing_subscriber::fmt::layer()
        .with_ansi(false)
        .without_time()
        .with_span_events(FmtSpan::NEW)
        .with_writer(move || writer.clone());
    let filter: Targets = filter.parse().expect("a list of targets and levels");
    let subscriber = tracing_subscriber::registry().with(filter).with(fmt);
    tracing::subscriber::with_default(subscriber, run);
    let bytes = buffer.0.lock().expect("nobody panicked while printing").clone();
    String::from_utf8(bytes).expect("fmt prints text")
}

/// Runs a future to its end.
pub fn block_on<T>(future: impl Future<Output = T>) -> T {
    let mut future = pin!(future);
    match future.as_mut().poll(&mut Context::from_waker(Waker::noop())) {
        Poll::Ready(output) => output,
        Poll::Pending => panic!("the future waits for something"),
    }
}

//! A journey through a stack.

use std::thread;
use std::time::{Duration, Instant};

use super::{Command, Figures, Measure, Reply, figures, per, requests};
use crate::error::Error;
use crate::stacks::{Kind, Stack};
use crate::work::Request;
use crate::{alloc, cpu};

/// Whole journeys.
pub(super) struct Journeys {
    line: Line,
}

/// A stack, fed no faster than it takes.
pub(super) struct Line {
    pub(super) stack: Stack,
    requests: Vec<Request>,
    /// Spans that were sent, for those that arrive.
    sent: u64,
}

/// Journeys between two looks at the clock: their spans are one batch of the SDK's processor.
const BURST: usize = 256;
/// Where nothing is delivered, a journey may take as little as the look at the clock.
const LONG_BURST: usize = 4096;

impl Line {
    pub(super) fn new(stack: Stack, first: usize) -> Self {
        let burst = if stack.kind.delivers() { BURST } else { LONG_BURST };
        let sent = stack.delivered();
        Self { stack, requests: requests(first, burst), sent }
    }

    /// Runs about `journeys` of them, and `around` around each burst. Returns how many it were.
    pub(super) fn run(&mut self, journeys: usize, mut around: impl FnMut(&dyn Fn())) -> usize {
        let bursts = journeys.div_ceil(self.requests.len());
        for _ in 0..bursts {
            around(&|| self.stack.run(&self.requests));
            if self.stack.kind.delivers() {
                self.sent += 2 * self.requests.len() as u64;
                self.wait();
            }
        }
        bursts * self.requests.len()
    }

    /// Lets the background catch up, as an engine does that has other things to do.
    fn wait(&self) {
        let (backlog, patience) = self.stack.slack();
        let until = Instant::now() + patience;
        while self.sent > self.stack.delivered() + backlog && Instant::now() < until {
            thread::sleep(Duration::from_micros(200));
        }
    }

    /// Waits until everything has arrived.
    pub(super) fn flush(&self) -> Result<(), Error> {
        self.stack.flush()?;
        let arrived = self.stack.delivered();
        if arrived == self.sent {
            return Ok(());
        }
        let message = format!("{arrived} spans and not {}", self.sent);
        Err(Error::Delivery { stack: self.stack.kind.to_string(), message })
    }
}

impl Journeys {
    pub(super) fn new(kind: Kind, endpoint: &str) -> Result<Self, Error> {
        Ok(Self { line: Line::new(Stack::install(kind, endpoint)?, 0) })
    }

    fn round(&mut self, journeys: usize) -> Result<Reply, Error> {
        let (thread, process) = (cpu::thread_time(), cpu::process_time());
        let mut producer = Duration::ZERO;
        let ran = self.line.run(journeys, |burst| {
            let begin = cpu::thread_time();
            burst();
            producer += cpu::thread_time() - begin;
        });
        self.line.flush()?;
        let process = cpu::process_time() - process;
        // What this thread did between the bursts is the benchmark's own: waiting, and asking for what has arrived.
        let own = cpu::thread_time() - thread - producer;
        Ok(figures([("producer_ns", per(producer, ran)), ("process_ns", per(process - own, ran))]))
    }

    fn allocations(&mut self, journeys: usize) -> Result<Reply, Error> {
        let mut producer = 0;
        alloc::count(true);
        let before = alloc::counted();
        let ran = self.line.run(journeys, |burst| {
            let begin = alloc::counted().thread;
            burst();
            producer += alloc::counted().thread - begin;
        });
        self.line.flush()?;
        let after = alloc::counted();
        alloc::count(false);
        let own = after.thread - before.thread - producer;
        let process = after.process - before.process - own;
        let each = |count: u64| count as f64 / ran as f64;
        Ok(figures([("producer_allocs", each(producer)), ("process_allocs", each(process))]))
    }
}

impl Measure for Journeys {
    fn obey(&mut self, command: Command) -> Result<Reply, Error> {
        match command {
            Command::Check(journeys) => {
                let census = self.line.stack.census(&requests(1 << 20, journeys))?;
                self.line.sent = self.line.stack.delivered();
                Ok(Reply { figures: Figures::new(), census })
            }
            Command::Allocations(journeys) => self.allocations(journeys),
            Command::Round(journeys) => self.round(journeys),
        }
    }
}

/// Single events.
pub(super) struct Events {
    stack: Stack,
    requests: Vec<Request>,
}

/// Sequences that are scheduled together.
const TOGETHER: usize = 64;
/// Batches between two flushes: their spans fit into the SDK's queue.
const FLUSHED: usize = 8;

impl Events {
    pub(super) fn new(kind: Kind, endpoint: &str) -> Result<Self, Error> {
        Ok(Self { stack: Stack::install(kind, endpoint)?, requests: requests(0, TOGETHER) })
    }
}

impl Measure for Events {
    fn obey(&mut self, command: Command) -> Result<Reply, Error> {
        let (Command::Check(events) | Command::Allocations(events) | Command::Round(events)) = command;
        let mut times = Vec::new();
        for batch in 1..=events.div_ceil(TOGETHER) {
            times.push(self.stack.schedule(&self.requests));
            if batch % FLUSHED == 0 {
                self.stack.flush()?;
            }
        }
        self.stack.flush()?;
        // Wall time: whoever else runs on the core is in a part of the batches, and not in the median.
        times.sort();
        Ok(figures([("wall_ns", per(times[times.len() / 2], TOGETHER))]))
    }
}

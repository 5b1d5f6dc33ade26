//! One producer, and two on separate cores.

use std::sync::Barrier;
use std::thread;
use std::time::Duration;

use super::{Command, Measure, Reply, figures, per, requests};
use crate::cpu;
use crate::error::Error;
use crate::stacks::{Kind, Stack};
use crate::work::Request;

pub(super) struct Producers {
    stack: Stack,
    cores: [usize; 2],
    requests: [Vec<Request>; 2],
}

impl Producers {
    pub(super) fn new(kind: Kind, endpoint: &str) -> Result<Self, Error> {
        let allowed = cpu::allowed().map_err(Error::io("asking for the cores"))?;
        let &[first, .., last] = allowed.as_slice() else {
            return Err(Error::Cores { needed: 2, allowed: allowed.len() });
        };
        let stack = Stack::install(kind, endpoint)?;
        Ok(Self { stack, cores: [first, last], requests: [requests(0, 256), requests(256, 256)] })
    }

    /// CPU time of a journey on each of the first `producers` cores.
    fn produce(&self, producers: usize, journeys: usize) -> f64 {
        let barrier = Barrier::new(producers);
        let times: Vec<Duration> = thread::scope(|scope| {
            let threads: Vec<_> = self.cores[..producers]
                .iter()
                .zip(&self.requests)
                .map(|(core, requests)| {
                    let barrier = &barrier;
                    scope.spawn(move || {
                        // Where the core is gone meanwhile, the two share one, and the figure shows it.
                        let _ = cpu::pin(&[*core]);
                        barrier.wait();
                        let begin = cpu::thread_time();
                        (0..journeys.div_ceil(requests.len())).for_each(|_| self.stack.run(requests));
                        cpu::thread_time() - begin
                    })
                })
                .collect();
            threads.into_iter().map(|thread| thread.join().expect("a producer does not panic")).collect()
        });
        let ran = journeys.div_ceil(self.requests[0].len()) * self.requests[0].len();
        per(times.iter().sum(), ran * producers)
    }
}

impl Measure for Producers {
    fn obey(&mut self, command: Command) -> Result<Reply, Error> {
        let (Command::Check(journeys) | Command::Allocations(journeys) | Command::Round(journeys)) = command;
        let one = self.produce(1, journeys);
        self.stack.flush()?;
        let two = self.produce(2, journeys);
        self.stack.flush()?;
        Ok(figures([("one_ns", one), ("two_ns", two)]))
    }
}

//! One event with few journeys live, and with many.

use tracing::Span;

use super::{Command, Measure, Reply, figures, per, requests};
use crate::cpu;
use crate::error::Error;
use crate::stacks::{Kind, Stack};
use crate::work::{Macros, Phase, Request, Vocabulary};

pub(super) struct Live {
    stack: Stack,
    /// The journeys that are live throughout.
    standing: Vec<Open>,
    hot: Vec<Request>,
    /// Where the next events of `spread_ns` go.
    at: usize,
}

struct Open {
    request: Request,
    api: Span,
    core: Span,
}

/// Journeys that get all events of `hot_ns`, and events that each of them gets.
const HOT: usize = 10;
const EVENTS: usize = 20;
/// A step that leads to every journey before it leads to one twice, and never to a neighbour.
const STRIDE: usize = 7919;

fn open(request: Request) -> Open {
    let mut api = Macros.request(&request);
    Macros.arrived(&mut api);
    let mut core = Macros.sequence(&request, &api);
    Macros.handed_off(&mut api);
    Macros.queued(&mut core, || request.progress(0, Phase::Waiting, 0, 0, 0));
    Macros.scheduled(&mut core, || request.progress(17, Phase::Prefill, 0, 0, 0));
    Open { request, api, core }
}

impl Open {
    /// Two events: off the running list, and back.
    fn bounce(&mut self, step: u64) {
        Macros.preempted(&mut self.core, || self.request.progress(step, Phase::Prefill, 0, 0, step));
        Macros.resumed(&mut self.core, || self.request.progress(step, Phase::Prefill, 0, 0, step));
    }

    fn close(mut self) {
        Macros.finished(&mut self.core, || self.request.progress(118, Phase::Decode, 24, 96, 1));
        Macros.first_response(&mut self.api);
        Macros.departed(&mut self.api);
    }
}

impl Live {
    pub(super) fn new(journeys: usize, endpoint: &str) -> Result<Self, Error> {
        let stack = Stack::install(Kind::Journey, endpoint)?;
        let standing = requests(HOT, journeys.saturating_sub(HOT)).into_iter().map(open).collect();
        Ok(Self { stack, standing, hot: requests(0, HOT), at: 0 })
    }

    fn hot(&self) -> f64 {
        let mut open: Vec<Open> = self.hot.iter().cloned().map(open).collect();
        let begin = cpu::thread_time();
        for step in 1..=EVENTS as u64 / 2 {
            open.iter_mut().for_each(|open| open.bounce(step));
        }
        let time = cpu::thread_time() - begin;
        open.into_iter().for_each(Open::close);
        per(time, HOT * EVENTS)
    }

    fn spread(&mut self) -> f64 {
        let begin = cpu::thread_time();
        for _ in 0..HOT * EVENTS / 2 {
            self.at = (self.at + STRIDE) % self.standing.len();
            self.standing[self.at].bounce(1);
        }
        per(cpu::thread_time() - begin, HOT * EVENTS)
    }
}

impl Measure for Live {
    fn obey(&mut self, command: Command) -> Result<Reply, Error> {
        let (Command::Check(events) | Command::Allocations(events) | Command::Round(events)) = command;
        let times = events.div_ceil(HOT * EVENTS);
        let hot = (0..times).map(|_| self.hot()).sum::<f64>() / times as f64;
        let spread =
            if self.standing.is_empty() { hot } else { (0..times).map(|_| self.spread()).sum::<f64>() / times as f64 };
        self.stack.flush()?;
        Ok(figures([("hot_ns", hot), ("spread_ns", spread)]))
    }
}

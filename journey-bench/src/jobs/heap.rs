//! What a live journey holds.

use super::{Command, Measure, Reply, figures, requests};
use crate::alloc;
use crate::error::Error;
use crate::stacks::{Kind, Stack};
use crate::work::{Macros, Phase, Vocabulary};

pub(super) struct Heap {
    stack: Stack,
}

impl Heap {
    pub(super) fn new(endpoint: &str) -> Result<Self, Error> {
        Ok(Self { stack: Stack::install(Kind::Journey, endpoint)? })
    }
}

impl Measure for Heap {
    /// Both spans, their attributes, three API events and six core events; with the registry's share.
    fn obey(&mut self, command: Command) -> Result<Reply, Error> {
        let (Command::Check(journeys) | Command::Allocations(journeys) | Command::Round(journeys)) = command;
        let requests = requests(0, journeys);
        let mut open = Vec::with_capacity(journeys);
        alloc::count(true);
        let before = alloc::counted().bytes;
        for request in &requests {
            let mut api = Macros.request(request);
            Macros.arrived(&mut api);
            let mut core = Macros.sequence(request, &api);
            Macros.handed_off(&mut api);
            Macros.queued(&mut core, || request.progress(0, Phase::Waiting, 0, 0, 0));
            Macros.scheduled(&mut core, || request.progress(17, Phase::Prefill, 0, 0, 0));
            Macros.first_token(&mut core, || request.progress(18, Phase::Decode, 24, 1, 0));
            Macros.first_response(&mut api);
            Macros.preempted(&mut core, || request.progress(40, Phase::Decode, 24, 23, 1));
            Macros.resumed(&mut core, || request.progress(44, Phase::Prefill, 24, 23, 1));
            Macros.preempted(&mut core, || request.progress(60, Phase::Decode, 24, 39, 2));
            open.push((api, core));
        }
        let bytes = alloc::counted().bytes - before;
        alloc::count(false);
        for ((mut api, mut core), request) in open.into_iter().zip(&requests) {
            Macros.finished(&mut core, || request.progress(118, Phase::Decode, 24, 96, 2));
            Macros.departed(&mut api);
        }
        self.stack.flush()?;
        Ok(figures([("bytes", bytes as f64 / journeys as f64)]))
    }
}

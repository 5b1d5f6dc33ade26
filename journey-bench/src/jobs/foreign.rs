//! What a callsite pays that is none of ours.

use std::hint::black_box;

use super::{Command, Measure, Reply, figures, per};
use crate::cpu;
use crate::error::Error;
use crate::stacks::{Kind, Stack};

pub(super) struct Foreign {
    _stack: Stack,
}

impl Foreign {
    pub(super) fn new(kind: Kind, endpoint: &str) -> Result<Self, Error> {
        Ok(Self { _stack: Stack::install(kind, endpoint)? })
    }
}

impl Measure for Foreign {
    fn obey(&mut self, command: Command) -> Result<Reply, Error> {
        let (Command::Check(calls) | Command::Allocations(calls) | Command::Round(calls)) = command;
        let begin = cpu::thread_time();
        for call in 0..calls {
            tracing::debug!(target: "hyper::proto::h1::io", bytes = black_box(call), "flushed");
        }
        Ok(figures([("call_ns", per(cpu::thread_time() - begin, calls))]))
    }
}

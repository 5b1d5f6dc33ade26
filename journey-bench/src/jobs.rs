//! What is measured, each in a process of its own.

mod foreign;
mod heap;
mod live;
mod producers;
mod stack;

use std::collections::BTreeMap;
use std::fmt;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::census::Census;
use crate::error::Error;
use crate::stacks::Kind;
use crate::work::Request;

/// Something to measure.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Job {
    /// A journey through a stack: `producer_ns` and `process_ns` of CPU time.
    Stack(Kind),
    /// One SCHEDULED event with its eleven attributes: `wall_ns`.
    Event(Kind),
    /// One event of ours with so many journeys live: `hot_ns` where the same ten get them all, `spread_ns` where every
    /// live journey gets its share.
    Live(usize),
    /// `bytes` of heap for a live journey.
    Heap,
    /// A journey with one producer, and with two on separate cores: `one_ns` and `two_ns` of CPU time on a producer.
    Producers(Kind),
    /// One `debug!` of a target that is not ours: `call_ns`.
    Foreign(Kind),
}

/// Figures by name.
pub type Figures = BTreeMap<String, f64>;

/// What a process that measures is told to do.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Command {
    /// Do it so many times and tell what arrived.
    Check(usize),
    /// Do it so many times and count allocations: `producer_allocs` and `process_allocs`.
    Allocations(usize),
    /// Do it so many times and take the time.
    Round(usize),
}

/// What it answers.
#[derive(Debug, Default, Serialize, Deserialize)]
pub struct Reply {
    /// What was measured.
    pub figures: Figures,
    /// What arrived, where that can be seen in the process itself.
    pub census: Option<Census>,
}

/// Measures one job.
pub trait Measure {
    /// Carries a command out.
    ///
    /// # Errors
    /// Something did not arrive.
    fn obey(&mut self, command: Command) -> Result<Reply, Error>;
}

impl Job {
    /// Sets it up in this process.
    ///
    /// # Errors
    /// The stack cannot be set up.
    pub fn start(self, endpoint: &str) -> Result<Box<dyn Measure>, Error> {
        Ok(match self {
            Self::Stack(kind) => Box::new(stack::Journeys::new(kind, endpoint)?),
            Self::Event(kind) => Box::new(stack::Events::new(kind, endpoint)?),
            Self::Live(journeys) => Box::new(live::Live::new(journeys, endpoint)?),
            Self::Heap => Box::new(heap::Heap::new(endpoint)?),
            Self::Producers(kind) => Box::new(producers::Producers::new(kind, endpoint)?),
            Self::Foreign(kind) => Box::new(foreign::Foreign::new(kind, endpoint)?),
        })
    }

    /// Whether it needs more cores than the one that is measured on.
    pub fn is_wide(self) -> bool {
        matches!(self, Self::Producers(_))
    }

    /// Whether what it delivers is to be checked, and its allocations counted.
    pub fn is_stack(self) -> Option<Kind> {
        match self {
            Self::Stack(kind) => Some(kind),
            _ => None,
        }
    }
}

impl fmt::Display for Job {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Stack(kind) => write!(f, "{kind}"),
            Self::Event(kind) => write!(f, "one event of {kind}"),
            Self::Live(journeys) => write!(f, "{journeys} live journeys"),
            Self::Heap => write!(f, "heap"),
            Self::Producers(kind) => write!(f, "two producers of {kind}"),
            Self::Foreign(kind) => write!(f, "a foreign event with {kind}"),
        }
    }
}

/// Requests to go through again and again: a request's id is free for another when its journey has ended.
fn requests(from: usize, count: usize) -> Vec<Request> {
    (from..from + count).map(Request::new).collect()
}

/// One figure of nanoseconds each.
fn per(time: Duration, count: usize) -> f64 {
    time.as_nanos() as f64 / count as f64
}

fn figures<const N: usize>(list: [(&str, f64); N]) -> Reply {
    Reply { figures: list.into_iter().map(|(name, value)| (name.to_owned(), value)).collect(), census: None }
}

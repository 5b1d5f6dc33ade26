//! The parent: starts a process for each job, has each prove what it delivers, and then lets them take turns.

use std::collections::BTreeMap;

use crate::census::Census;
use crate::child::Measuring;
use crate::cpu;
use crate::error::Error;
use crate::jobs::{Command, Figures, Job};
use crate::sink::Sink;
use crate::stacks::Kind;
use crate::work;

/// How much is measured.
#[derive(Clone, Copy, Debug)]
pub struct Effort {
    /// Rounds of each job.
    pub rounds: usize,
    /// Whether this is a trial of the harness: few journeys a round.
    pub quick: bool,
    /// The core that is measured on.
    pub core: usize,
}

/// What was measured.
#[derive(Debug, Default)]
pub struct Results {
    /// One figure a round, by job and name.
    pub series: BTreeMap<(Job, String), Vec<f64>>,
    /// Attributes that a journey delivered, of stacks where they can be seen.
    pub attributes: BTreeMap<Kind, f64>,
    /// Bytes of the OTLP requests' bodies for a journey.
    pub otlp_bytes: BTreeMap<Kind, f64>,
}

/// Journeys whose delivery is looked at name by name.
const CHECKED: usize = 96;

impl Results {
    /// The rounds of a figure.
    pub fn rounds(&self, job: Job, figure: &str) -> &[f64] {
        self.series.get(&(job, figure.to_owned())).map_or(&[], Vec::as_slice)
    }

    fn add(&mut self, job: Job, figures: Figures) {
        for (name, figure) in figures {
            self.series.entry((job, name)).or_default().push(figure);
        }
    }
}

/// Where the journeys of the busy and of the quiet process are live.
pub fn live_journeys(quick: bool) -> [usize; 2] {
    [10, if quick { 2_000 } else { 100_000 }]
}

/// Everything that is measured, apart from the heap: it has no rounds.
fn jobs(quick: bool, cores: usize) -> Vec<Job> {
    let stacks = Kind::all().iter().copied().map(Job::Stack);
    let events = [Kind::TracingOpentelemetry, Kind::Sdk, Kind::Fastrace, Kind::Journey].map(Job::Event);
    let live = live_journeys(quick).map(Job::Live);
    let foreign = [Kind::NoSubscriber, Kind::Journey].map(Job::Foreign);
    let producers = [Kind::Floor, Kind::Journey].map(Job::Producers).into_iter().filter(|_| cores > 1);
    stacks.chain(events).chain(live).chain(foreign).chain(producers).collect()
}

/// Repetitions in a round, so that each job takes some ten milliseconds.
fn size(job: Job, quick: bool) -> usize {
    let full = match job {
        Job::Stack(Kind::NoSubscriber | Kind::JourneyDisabled | Kind::JourneySampledOut) => 1 << 16,
        Job::Stack(Kind::Registry | Kind::Floor) => 1 << 14,
        Job::Stack(kind) if kind.is_ours() => 1 << 12,
        Job::Stack(_) => 1 << 11,
        Job::Event(_) => 1 << 12,
        Job::Live(_) => 4_000,
        Job::Heap => 20_000,
        Job::Producers(_) => 1 << 11,
        Job::Foreign(_) => 1 << 22,
    };
    if quick { full / 8 } else { full }
}

/// Repetitions before anything is measured: until the pools are full, and the memory for duplicates at its bound.
fn warm_up(job: Job, quick: bool) -> usize {
    match job {
        Job::Stack(kind) if kind.is_ours() && !quick => 40_000,
        _ => size(job, quick),
    }
}

/// Measures everything.
///
/// # Errors
/// A process failed, or a stack did not deliver what the others do.
pub fn run(effort: Effort, mut progress: impl FnMut(&str)) -> Result<Results, Error> {
    let cores = cpu::allowed().map_err(Error::io("asking for the cores"))?;
    let others = beside(effort.core, &cores);
    let sink = Sink::start(others.clone())?;
    let mut results = Results::default();

    progress("starting the stacks");
    let jobs = jobs(effort.quick, cores.len());
    let start = |job: &Job| Measuring::start(*job, &sink.endpoint(), effort.core);
    let mut processes = jobs.iter().map(start).collect::<Result<Vec<_>, _>>()?;
    // Not before: a process starts with the cores of its parent.
    cpu::pin(&others).map_err(Error::io("moving off the core that is measured on"))?;
    for process in &mut processes {
        process.reply()?;
    }

    progress("checking what they deliver, and warming up");
    for process in &mut processes {
        let job = process.job;
        if let Some(kind) = job.is_stack() {
            let arrived = check(process, kind, &sink)?;
            results.attributes.extend(arrived.map(|attributes| (kind, attributes)));
        }
        let traffic = sink.traffic().1;
        let warm_up = warm_up(job, effort.quick);
        process.ask(Command::Round(warm_up))?;
        if let Some(kind) = job.is_stack() {
            let bytes = (sink.traffic().1 - traffic) as f64;
            if kind.is_otlp() {
                results.otlp_bytes.insert(kind, bytes / warm_up as f64);
            }
            results.add(job, process.ask(Command::Allocations(size(job, effort.quick)))?.figures);
        }
    }

    for round in 0..effort.rounds {
        progress(&format!("round {} of {}", round + 1, effort.rounds));
        for process in &mut processes {
            let figures = process.ask(Command::Round(size(process.job, effort.quick)))?.figures;
            results.add(process.job, figures);
        }
    }
    drop(processes);

    progress("weighing live journeys");
    let mut heap = Measuring::start(Job::Heap, &sink.endpoint(), effort.core)?;
    heap.reply()?;
    results.add(Job::Heap, heap.ask(Command::Round(size(Job::Heap, effort.quick)))?.figures);
    Ok(results)
}

/// Has a stack deliver some journeys, and holds what arrived against what was sent. Returns the attributes of a journey.
fn check(process: &mut Measuring, kind: Kind, sink: &Sink) -> Result<Option<f64>, Error> {
    sink.begin();
    let reply = process.ask(Command::Check(CHECKED))?;
    let received = sink.end();
    let Some(census) = reply.census.or_else(|| kind.is_otlp().then_some(received)) else { return Ok(None) };
    let mut expected = Census::default();
    if kind.delivers() {
        expected.add(&work::expected(), CHECKED as u64);
    }
    let (census, expected) =
        if kind == Kind::Fastrace { (census.untyped(), expected.untyped()) } else { (census, expected) };
    let differences = census.differences(&expected);
    if !differences.is_empty() {
        return Err(Error::Delivery { stack: kind.to_string(), message: differences.join("; ") });
    }
    Ok(Some(census.attributes.values().sum::<u64>() as f64 / CHECKED as f64))
}

/// The cores beside `core`; `core` itself where it is the only one.
fn beside(core: usize, cores: &[usize]) -> Vec<usize> {
    let others: Vec<usize> = cores.iter().copied().filter(|other| *other != core).collect();
    if others.is_empty() { vec![core] } else { others }
}

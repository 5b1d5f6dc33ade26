//! What the demo shows in the end: where the slowest journeys' time went, and what was seen.

use std::collections::BTreeMap;
use std::fmt::Write;
use std::iter;

use crate::telemetry::RecordedSpan;

/// Columns of a waterfall's bar.
const WIDTH: usize = 48;
/// Journeys in the waterfall.
const SLOWEST: usize = 8;

/// The journeys of a demo.
pub(super) struct Journeys<'a> {
    requests: Vec<Request<'a>>,
    /// Spans that belong to none of them.
    orphans: Vec<&'a RecordedSpan>,
    steps: usize,
}

/// An `llm_request`, and the `llm_core` spans under it.
struct Request<'a> {
    span: &'a RecordedSpan,
    cores: Vec<&'a RecordedSpan>,
}

/// Where a sequence's time went, seconds.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
struct Phases {
    queue: f64,
    prefill: f64,
    decode: f64,
    preempted: f64,
}

/// What a sequence does between two events.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Doing {
    Queue,
    Prefill,
    Decode,
    Preempted,
}

impl<'a> Journeys<'a> {
    pub(super) fn new(spans: &'a [RecordedSpan]) -> Self {
        let mut journeys = Self { requests: Vec::new(), orphans: Vec::new(), steps: 0 };
        for span in spans.iter().filter(|span| span.name == "llm_request") {
            journeys.requests.push(Request { span, cores: Vec::new() });
        }
        for span in spans.iter().filter(|span| span.name != "llm_request") {
            let is_parent = |request: &&mut Request<'_>| {
                let parent = request.span;
                span.trace_id == parent.trace_id && span.parent_span_id.as_ref() == Some(&parent.span_id)
            };
            match span.name.as_str() {
                // A traced scheduler step is a trace of its own, and no journey.
                "scheduler_step" => journeys.steps += 1,
                "model_forward" => {}
                "llm_core" => match journeys.requests.iter_mut().find(is_parent) {
                    Some(request) => request.cores.push(span),
                    None => journeys.orphans.push(span),
                },
                _ => journeys.orphans.push(span),
            }
        }
        journeys
    }

    /// What is wrong with the exported spans, in words: there are `llm_request` roots, `n` `llm_core` under each that was
    /// handed off, and nothing else.
    pub(super) fn faults(&self) -> Vec<String> {
        let mut faults = Vec::new();
        for Request { span, cores } in &self.requests {
            let trace = &span.trace_id;
            if let Some(parent) = &span.parent_span_id {
                faults.push(format!("trace {trace}: an llm_request under {parent}, where no client sent a parent"));
            }
            let n = usize::try_from(span.n.unwrap_or(0)).unwrap_or(0);
            if times(span, "api.HANDOFF_TO_CORE") > 0 && cores.len() != n {
                faults.push(format!("trace {trace}: {} llm_core for n={n}", cores.len()));
            }
            for (span, owner) in
                iter::once((*span, "vllm.api")).chain(cores.iter().map(|core| (*core, "vllm.scheduler")))
            {
                if span.scope != owner || span.events.iter().filter(|event| event.is_terminal()).count() != 1 {
                    faults.push(format!("trace {trace}: {} in scope {} does not end once", span.name, span.scope));
                }
            }
        }
        for span in &self.orphans {
            faults.push(format!(
                "trace {}: {} in scope {} without its llm_request",
                span.trace_id, span.name, span.scope
            ));
        }
        faults
    }

    /// How often each thing happened.
    pub(super) fn seen(&self) -> BTreeMap<&'static str, usize> {
        let mut seen = BTreeMap::new();
        let mut count = |what, times| *seen.entry(what).or_default() += times;
        if self.steps > 0 {
            count("traced steps", self.steps);
        }
        for Request { span, cores } in &self.requests {
            count("journeys", 1);
            count("departed", usize::from(times(span, "api.DEPARTED") > 0));
            count("aborted", usize::from(times(span, "api.ABORTED") > 0));
            for core in cores {
                count("sequences", 1);
                count("preemptions", times(core, "journey.PREEMPTED"));
                count("chunked prefills", usize::from(is_chunked(core)));
                count("waited for a step or longer", usize::from(waited(core)));
            }
        }
        seen
    }

    /// The slowest journeys, each with where its time went.
    pub(super) fn waterfall(&self) -> String {
        let mut slowest: Vec<_> = self.requests.iter().collect();
        let took = |request: &Request<'_>| request.span.end - request.span.start;
        slowest.sort_by(|one, other| took(other).total_cmp(&took(one)));
        slowest.truncate(SLOWEST);
        let began = slowest.iter().map(|request| request.span.start).fold(f64::INFINITY, f64::min);
        let ended = slowest.iter().map(|request| request.span.end).fold(f64::NEG_INFINITY, f64::max);
        let column = |time: f64| ((time - began) / (ended - began).max(1e-9) * WIDTH as f64).clamp(0.0, WIDTH as f64);
        let mut out =
            String::from("slowest journeys: · queue  ▒ prefill  █ decode  × preempted  ─ at the API (milliseconds)\n");
        for Request { span: request, cores } in &slowest {
            let mut bar = vec![' '; WIDTH];
            paint(&mut bar, column(request.start), column(request.end), '─');
            let mut phases = Phases::default();
            // Of several sequences the one that ended last: it is what the client waited for.
            if let Some(core) = cores.iter().max_by(|one, other| one.end.total_cmp(&other.end)) {
                for (doing, from, to) in stretches(core) {
                    phases.add(doing, to - from);
                    paint(&mut bar, column(from), column(to), doing.glyph());
                }
            }
            let bar: String = bar.into_iter().collect();
            let ms = |seconds: f64| format!("{:.0}", seconds * 1e3);
            let id = request.request_id.as_deref().unwrap_or("?");
            writeln!(
                out,
                "{id:<25} {:>6} |{bar}| queue {} prefill {} decode {} preempted {}",
                ms(request.end - request.start),
                ms(phases.queue),
                ms(phases.prefill),
                ms(phases.decode),
                ms(phases.preempted),
            )
            .expect("a string takes what is written");
        }
        out
    }
}

impl Phases {
    fn add(&mut self, doing: Doing, seconds: f64) {
        *match doing {
            Doing::Queue => &mut self.queue,
            Doing::Prefill => &mut self.prefill,
            Doing::Decode => &mut self.decode,
            Doing::Preempted => &mut self.preempted,
        } += seconds;
    }
}

impl Doing {
    fn glyph(self) -> char {
        match self {
            Self::Queue => '·',
            Self::Prefill => '▒',
            Self::Decode => '█',
            Self::Preempted => '×',
        }
    }
}

/// What a sequence did, and from when to when.
fn stretches(core: &RecordedSpan) -> Vec<(Doing, f64, f64)> {
    let mut stretches = Vec::new();
    let (mut doing, mut since, mut decoding) = (Doing::Queue, core.start, false);
    for event in &core.events {
        let next = match event.name.as_str() {
            "journey.SCHEDULED" if decoding => Doing::Decode,
            "journey.SCHEDULED" => Doing::Prefill,
            "journey.FIRST_TOKEN" => {
                decoding = true;
                Doing::Decode
            }
            "journey.PREEMPTED" => Doing::Preempted,
            "journey.FINISHED" => doing,
            _ => continue,
        };
        stretches.push((doing, since, event.time));
        (doing, since) = (next, event.time);
    }
    stretches
}

fn paint(bar: &mut [char], from: f64, to: f64, glyph: char) {
    let last = bar.len().saturating_sub(1);
    let from = (from as usize).min(last);
    // What is too short for a column still shows.
    let to = (to.ceil() as usize).clamp(from + 1, last + 1);
    bar[from..to].fill(glyph);
}

fn times(span: &RecordedSpan, event: &str) -> usize {
    span.events.iter().filter(|one| one.name == event).count()
}

fn step(span: &RecordedSpan, event: &str) -> Option<i64> {
    span.events.iter().find(|one| one.name == event)?.step
}

fn is_chunked(core: &RecordedSpan) -> bool {
    let steps = (step(core, "journey.SCHEDULED"), step(core, "journey.FIRST_TOKEN"));
    times(core, "journey.PREEMPTED") == 0 && matches!(steps, (Some(first), Some(token)) if token > first)
}

fn waited(core: &RecordedSpan) -> bool {
    matches!((step(core, "journey.QUEUED"), step(core, "journey.SCHEDULED")), (Some(queued), Some(first)) if first > queued + 1)
}

//! What the demo shows in the end: where the slowest journeys' time went, and what was seen.

use std::collections::BTreeMap;
use std::fmt::Write;

use crate::telemetry::{RecordedEvent, RecordedSpan};

/// Columns of a waterfall's bar.
const WIDTH: usize = 48;
/// Journeys in the waterfall.
const SLOWEST: usize = 8;

/// The journeys of a demo: each trace's spans.
pub(super) struct Journeys<'a> {
    traces: BTreeMap<&'a str, Vec<&'a RecordedSpan>>,
    steps: usize,
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
        let mut traces: BTreeMap<_, Vec<_>> = BTreeMap::new();
        // A traced scheduler step is a trace of its own, and no journey.
        let is_step = |span: &RecordedSpan| matches!(span.name.as_str(), "scheduler_step" | "model_forward");
        for span in spans.iter().filter(|span| !is_step(span)) {
            traces.entry(span.trace_id.as_str()).or_default().push(span);
        }
        let steps = spans.iter().filter(|span| span.name == "scheduler_step").count();
        Self { traces, steps }
    }

    fn requests(&self) -> impl Iterator<Item = (&'a RecordedSpan, Vec<&'a RecordedSpan>)> {
        self.traces.values().filter_map(|spans| {
            let request = spans.iter().find(|span| span.name == "llm_request")?;
            let cores = spans.iter().filter(|span| span.name == "llm_core").copied().collect();
            Some((*request, cores))
        })
    }

    /// What is wrong with the exported traces, in words: each has one `llm_request`, `n` `llm_core` under it if it was handed
    /// off, and nothing else.
    pub(super) fn faults(&self) -> Vec<String> {
        let mut faults = Vec::new();
        for (trace, spans) in &self.traces {
            let requests: Vec<_> = spans.iter().filter(|span| span.name == "llm_request").collect();
            let [request] = requests.as_slice() else {
                faults.push(format!("trace {trace} has {} llm_request spans", requests.len()));
                continue;
            };
            let cores = spans.iter().filter(|span| span.name == "llm_core");
            let orphans = cores.clone().filter(|core| core.parent_span_id.as_ref() != Some(&request.span_id)).count();
            let handed_off = request.events.iter().any(|event| event.name == "api.HANDOFF_TO_CORE");
            let n = usize::try_from(request.n.unwrap_or(0)).unwrap_or(0);
            let count = cores.count();
            if orphans > 0 || (handed_off && count != n) || count + 1 != spans.len() {
                faults.push(format!(
                    "trace {trace} has {} spans, {count} llm_core for n={n}, {orphans} orphans",
                    spans.len()
                ));
            }
            for span in spans {
                let owner = if span.name == "llm_request" { "vllm.api" } else { "vllm.scheduler" };
                let terminal = |event: &&RecordedEvent| {
                    matches!(event.name.as_str(), "api.DEPARTED" | "api.ABORTED" | "journey.FINISHED")
                };
                if span.scope != owner || span.events.iter().filter(terminal).count() != 1 {
                    faults.push(format!("trace {trace}: {} in scope {} does not end once", span.name, span.scope));
                }
            }
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
        for (request, cores) in self.requests() {
            count("journeys", 1);
            count("departed", usize::from(times(request, "api.DEPARTED") > 0));
            count("aborted", usize::from(times(request, "api.ABORTED") > 0));
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
        let mut slowest: Vec<_> = self.requests().collect();
        slowest.sort_by(|(one, _), (other, _)| (other.end - other.start).total_cmp(&(one.end - one.start)));
        slowest.truncate(SLOWEST);
        let began = slowest.iter().map(|(request, _)| request.start).fold(f64::INFINITY, f64::min);
        let ended = slowest.iter().map(|(request, _)| request.end).fold(f64::NEG_INFINITY, f64::max);
        let column = |time: f64| ((time - began) / (ended - began).max(1e-9) * WIDTH as f64).clamp(0.0, WIDTH as f64);
        let mut out =
            String::from("slowest journeys: · queue  ▒ prefill  █ decode  × preempted  ─ at the API (milliseconds)\n");
        for (request, cores) in &slowest {
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

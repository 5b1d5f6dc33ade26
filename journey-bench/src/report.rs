//! The tables, for people and for programs.

use std::collections::BTreeMap;
use std::fmt;

use serde::Serialize;

use crate::driver::{Results, live_journeys};
use crate::jobs::Job;
use crate::sample::Sample;
use crate::stacks::Kind;

/// What was measured, in the words of the tables.
#[derive(Serialize)]
pub struct Report {
    /// The cargo profile.
    profile: String,
    stacks: BTreeMap<Kind, Row>,
    ratios: BTreeMap<&'static str, f64>,
    /// Figures that are no ratios, by unit.
    measures: BTreeMap<&'static str, f64>,
    /// Half the distance between the quartiles of all rounds, as a share of the figure.
    noise: BTreeMap<String, f64>,
    rounds: usize,
    #[serde(skip)]
    targets: Vec<Target>,
}

/// One stack, for one journey.
#[derive(Serialize)]
struct Row {
    producer_ns: f64,
    process_ns: f64,
    /// Of all threads.
    allocs: f64,
    producer_allocs: f64,
    /// Where they can be seen.
    #[serde(skip_serializing_if = "Option::is_none")]
    attributes: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    otlp_bytes: Option<f64>,
    #[serde(skip)]
    producer: [Sample; 2],
    #[serde(skip)]
    process: [Sample; 2],
}

/// Something to reach.
struct Target {
    measure: &'static str,
    reached: Sample,
    at_most: f64,
    unit: &'static str,
}

/// What a ratio is of: figure and base, each the rounds of a job.
type Ratio = (&'static str, &'static str, (Job, &'static str), (Job, &'static str), Option<f64>);

const BASE: Kind = Kind::TracingOpentelemetry;

/// The ratios: key, measure, figure, base, and what is to be reached.
fn ratios(quick: bool) -> Vec<Ratio> {
    use Job::{Event, Foreign, Live, Producers, Stack};
    use Kind::{Journey, JourneyComposed, JourneyDisabled, JourneyOtlp, JourneySampledOut, JourneySdkSink};
    let (producer, process) = ("producer_ns", "process_ns");
    let (on_producer, on_process) = ((Stack(BASE), producer), (Stack(BASE), process));
    let [few, many] = live_journeys(quick).map(Live);
    vec![
        (
            "process_otlp",
            "whole process, OTLP http/protobuf to a local sink",
            (Stack(JourneyOtlp), process),
            (Stack(Kind::TracingOpentelemetryOtlp), process),
            Some(0.15),
        ),
        ("producer", "producer thread, installed alone", (Stack(Journey), producer), on_producer, Some(0.18)),
        (
            "producer_composed",
            "producer thread, beside fmt",
            (Stack(JourneyComposed), producer),
            on_producer,
            Some(0.23),
        ),
        ("process", "whole process, records discarded", (Stack(Journey), process), on_process, Some(0.20)),
        ("process_sdk_sink", "whole process, SDK sink", (Stack(JourneySdkSink), process), on_process, Some(0.38)),
        ("sampled_out", "sampled out", (Stack(JourneySampledOut), producer), on_producer, Some(0.03)),
        (
            "disabled",
            "no subscriber, against bare tracing macros",
            (Stack(JourneyDisabled), producer),
            (Stack(Kind::NoSubscriber), producer),
            Some(1.05),
        ),
        (
            "event",
            "one event, 11 attributes, wall time",
            (Event(Journey), "wall_ns"),
            (Event(BASE), "wall_ns"),
            Some(0.15),
        ),
        ("event_sdk", "", (Event(Kind::Sdk), "wall_ns"), (Event(BASE), "wall_ns"), None),
        ("event_fastrace", "", (Event(Kind::Fastrace), "wall_ns"), (Event(BASE), "wall_ns"), None),
        ("live", "one event, many journeys live against 10", (many, "hot_ns"), (few, "hot_ns"), Some(1.15)),
        ("live_spread", "", (many, "spread_ns"), (few, "spread_ns"), None),
        (
            "two_producers",
            "two producers against one",
            (Producers(Journey), "two_ns"),
            (Producers(Journey), "one_ns"),
            Some(1.25),
        ),
        ("two_producers_floor", "", (Producers(Kind::Floor), "two_ns"), (Producers(Kind::Floor), "one_ns"), None),
        (
            "foreign_debug",
            "a foreign `debug!`, against no subscriber",
            (Foreign(Journey), "call_ns"),
            (Foreign(Kind::NoSubscriber), "call_ns"),
            Some(1.10),
        ),
    ]
}

impl Report {
    /// Sums the rounds up.
    pub fn new(results: &Results, quick: bool) -> Self {
        let mut report = Self {
            profile: profile(),
            stacks: BTreeMap::new(),
            ratios: BTreeMap::new(),
            measures: BTreeMap::new(),
            noise: BTreeMap::new(),
            rounds: results.rounds(Job::Stack(BASE), "process_ns").len(),
            targets: Vec::new(),
        };
        report.stacks = Kind::all().iter().filter_map(|kind| Some((*kind, report.row(results, *kind)?))).collect();
        for (key, measure, (job, figure), (base, of), at_most) in ratios(quick) {
            if let Some(reached) = Sample::of_ratio(results.rounds(job, figure), results.rounds(base, of)) {
                report.ratios.insert(key, reached.median);
                report.noise.insert(key.to_owned(), reached.noise);
                report.targets.extend(at_most.map(|at_most| Target { measure, reached, at_most, unit: "" }));
            }
        }
        report.measure(results, Job::Event(Kind::Journey), "wall_ns", "event_wall_ns");
        report.measure(results, live_journeys(quick).map(Job::Live)[0], "hot_ns", "event_cpu_ns");
        report.measure(results, Job::Foreign(Kind::Journey), "call_ns", "foreign_debug_ns");
        if let Some(reached) = report.measure(results, Job::Heap, "bytes", "heap_bytes_per_live_journey") {
            report.targets.push(Target { measure: "heap of a live journey", reached, at_most: 2560.0, unit: " bytes" });
        }
        for (measure, figure, at_most) in
            [("allocations, producer", "producer_allocs", 0.0), ("allocations, whole process", "process_allocs", 2.0)]
        {
            let reached = Sample::of(results.rounds(Job::Stack(Kind::Journey), figure));
            report.targets.extend(reached.map(|reached| Target { measure, reached, at_most, unit: "" }));
        }
        report
    }

    fn measure(&mut self, results: &Results, job: Job, figure: &str, name: &'static str) -> Option<Sample> {
        let sample = Sample::of(results.rounds(job, figure))?;
        self.measures.insert(name, sample.median);
        self.noise.insert(name.to_owned(), sample.noise);
        Some(sample)
    }

    fn row(&mut self, results: &Results, kind: Kind) -> Option<Row> {
        let rounds = |kind: Kind, figure: &str| results.rounds(Job::Stack(kind), figure);
        let figure = |name: &str| {
            let mine = rounds(kind, name);
            Some([Sample::of(mine)?, Sample::of_ratio(mine, rounds(BASE, name))?])
        };
        let (producer, process) = (figure("producer_ns")?, figure("process_ns")?);
        self.noise.insert(format!("{kind}.producer_ns"), producer[0].noise);
        self.noise.insert(format!("{kind}.process_ns"), process[0].noise);
        let allocations = |name: &str| Some(Sample::of(rounds(kind, name))?.median);
        Some(Row {
            producer_ns: producer[0].median,
            process_ns: process[0].median,
            allocs: allocations("process_allocs")?,
            producer_allocs: allocations("producer_allocs")?,
            attributes: results.attributes.get(&kind).copied(),
            otlp_bytes: results.otlp_bytes.get(&kind).copied(),
            producer,
            process,
        })
    }

    /// The file for programs.
    pub fn json(&self) -> String {
        let mut text = serde_json::to_string_pretty(self).expect("keys are strings, and values numbers");
        text.push('\n');
        text
    }
}

/// The name of the cargo profile: this program lies in the folder of that name.
fn profile() -> String {
    let program = std::env::current_exe().ok();
    let folder = program.as_deref().and_then(|program| program.parent()?.file_name());
    folder.map_or_else(|| "unknown".to_owned(), |name| name.to_string_lossy().into_owned())
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let percent = |noise: f64| format!("±{:.0} %", noise * 100.0);
        writeln!(
            f,
            "profile {}, {} rounds; for one journey, CPU time, ratios to the first row",
            self.profile, self.rounds
        )?;
        if cfg!(debug_assertions) {
            writeln!(f, "this is a build without optimisation: its figures mean nothing")?;
        }
        writeln!(
            f,
            "\n{:<34} {:>21} {:>23} {:>15} {:>10} {:>10}",
            "stack", "producer, ns", "whole process, ns", "allocations", "attributes", "bytes sent"
        )?;
        for (kind, row) in &self.stacks {
            write!(f, "{kind:<34}")?;
            for [sample, ratio] in [row.producer, row.process] {
                write!(f, " {:>7.0} ({:.3}) {:>6}", sample.median, ratio.median, percent(sample.noise))?;
            }
            let allocations = format!("{:.1} / {:.1}", row.producer_allocs, row.allocs);
            let optional = |figure: Option<f64>| figure.map_or_else(String::new, |figure| format!("{figure:.0}"));
            writeln!(f, " {allocations:>15} {:>10} {:>10}", optional(row.attributes), optional(row.otlp_bytes))?;
        }
        writeln!(f, "\n{:<52} {:>14} {:>6} {:>12}", "measure", "reached", "noise", "at most")?;
        for Target { measure, reached, at_most, unit } in &self.targets {
            let figure =
                |figure: f64| if unit.is_empty() { format!("{figure:.3}") } else { format!("{figure:.0}{unit}") };
            let met = if reached.median <= *at_most { "met" } else { "missed" };
            let (median, limit) = (figure(reached.median), figure(*at_most));
            writeln!(f, "{measure:<52} {median:>14} {:>6} {limit:>12} {met}", percent(reached.noise))?;
        }
        let others = ["event_sdk", "event_fastrace", "live_spread", "two_producers_floor"];
        let others = others.iter().filter_map(|key| Some(format!("{key} {:.3}", self.ratios.get(key)?)));
        let measures = self.measures.iter().map(|(name, figure)| format!("{name} {figure:.1}"));
        write!(f, "\nbeside these: {}", others.chain(measures).collect::<Vec<_>>().join(", "))
    }
}

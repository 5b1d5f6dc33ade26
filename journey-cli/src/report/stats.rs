//! Figures of a run: counts, distributions, the slowest journeys. Bounded, whatever the number of journeys.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BinaryHeap};

use hdrhistogram::Histogram;

use super::timeline::Timeline;
use crate::journey::{End, Journey, Part, Parts};

/// Distinct abort reasons and statuses that are told apart; they come from outside.
const MAX_NAMES: usize = 64;

/// A week; what is longer counts as this long.
const LONGEST: u64 = 7 * 86_400 * 1_000_000_000;

/// A distribution of durations, to three significant digits.
#[derive(Clone, Debug)]
pub struct Distribution {
    histogram: Histogram<u64>,
}

impl Default for Distribution {
    fn default() -> Self {
        Self { histogram: Histogram::new_with_bounds(1, LONGEST, 3).expect("three digits of a week fit") }
    }
}

impl Distribution {
    /// Adds a duration in nanoseconds.
    pub fn add(&mut self, nanos: u64) {
        self.histogram.saturating_record(nanos);
    }

    /// How many durations there are.
    pub fn count(&self) -> u64 {
        self.histogram.len()
    }

    /// The duration that the share `quantile` of all does not exceed.
    pub fn quantile(&self, quantile: f64) -> u64 {
        self.histogram.value_at_quantile(quantile).min(self.max())
    }

    /// The longest.
    pub fn max(&self) -> u64 {
        self.histogram.max()
    }

    /// Each distinct duration with its count, ascending.
    pub fn recorded(&self) -> impl Iterator<Item = (u64, u64)> {
        self.histogram.iter_recorded().map(|bucket| (bucket.value_iterated_to(), bucket.count_at_value()))
    }
}

/// What is measured, in the order in which it is shown.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Measure {
    /// ARRIVED to the terminal event, per journey.
    EndToEnd,
    /// ARRIVED to FIRST_RESPONSE_FROM_CORE, per journey.
    TimeToFirstToken,
    /// Per sequence.
    Queue,
    /// Per sequence.
    Prefill,
    /// Per sequence.
    Decode,
    /// Per preempted sequence.
    Preempted,
    /// Time per output token after the first, per sequence.
    InterToken,
}

impl Measure {
    /// All of them.
    pub const ALL: [Self; 7] = [
        Self::EndToEnd,
        Self::TimeToFirstToken,
        Self::Queue,
        Self::Prefill,
        Self::Decode,
        Self::Preempted,
        Self::InterToken,
    ];

    /// Its name.
    pub const fn name(self) -> &'static str {
        match self {
            Self::EndToEnd => "end to end",
            Self::TimeToFirstToken => "time to first token",
            Self::Queue => "queue",
            Self::Prefill => "prefill",
            Self::Decode => "decode",
            Self::Preempted => "preempted",
            Self::InterToken => "inter-token",
        }
    }
}

/// A journey with its whole time, ordered by it.
#[derive(Debug)]
struct Ranked(u64, Journey);

impl PartialEq for Ranked {
    fn eq(&self, other: &Self) -> bool {
        self.key() == other.key()
    }
}

impl Eq for Ranked {}

impl PartialOrd for Ranked {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Ranked {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        self.key().cmp(&other.key())
    }
}

impl Ranked {
    fn key(&self) -> (u64, crate::model::SpanRef) {
        (self.0, self.1.id)
    }
}

/// The figures.
#[derive(Debug, Default)]
pub struct Stats {
    /// Journeys: requests, and sequences whose request is not there.
    pub journeys: u64,
    /// `llm_core` spans.
    pub sequences: u64,
    /// Journeys without their `llm_request`.
    pub without_request: u64,
    /// Journeys with fewer `llm_core` than `gen_ai.request.n`.
    pub without_core: u64,
    /// How requests ended.
    pub ends: BTreeMap<Box<str>, u64>,
    /// `finish.status` of sequences.
    pub finishes: BTreeMap<Box<str>, u64>,
    /// Journeys by model.
    pub models: BTreeMap<Box<str>, u64>,
    /// Requests that departed.
    pub departed: u64,
    /// Prompt tokens of all requests.
    pub prompt_tokens: i64,
    /// Completion tokens of all requests.
    pub completion_tokens: i64,
    /// Requests without `gen_ai.usage.completion_tokens`, though they departed.
    pub uncounted: u64,
    /// Sequences that were preempted at least once.
    pub preempted: u64,
    /// PREEMPTED events.
    pub preemptions: u64,
    /// `prefill.recomputed_tokens`, summed over the sequences that have it.
    pub recomputed: Option<i64>,
    /// Tokens in the cache at each preemption, summed: the most that can have been computed again.
    pub thrown_away: i64,
    /// Time by part, over all journeys.
    pub parts: Parts,
    /// First arrival and last end.
    pub time: Option<(u64, u64)>,
    /// Concurrent journeys by part.
    pub timeline: Timeline,
    distributions: [Distribution; Measure::ALL.len()],
    slowest: BinaryHeap<Reverse<Ranked>>,
    sample: Vec<Journey>,
    random: u64,
}

impl Stats {
    /// A distribution.
    pub fn distribution(&self, measure: Measure) -> &Distribution {
        &self.distributions[measure as usize]
    }

    /// Adds a journey; of the slowest it keeps `slowest`, of all a sample of `sample`.
    pub fn add(&mut self, journey: Journey, slowest: usize, sample: usize) {
        self.measure(&journey);
        self.keep(journey.e2e(), journey, slowest, sample);
    }

    /// Adds a journey to the figures alone.
    pub fn measure(&mut self, journey: &Journey) {
        self.journeys += 1;
        self.count(journey);
        for sequence in &journey.sequences {
            self.sequences += 1;
            let status = sequence.status.map_or("no finish.status", |status| status.as_str());
            bump(&mut self.finishes, status);
            self.preempted += u64::from(sequence.preemptions > 0);
            self.preemptions += u64::from(sequence.preemptions);
            self.thrown_away = self.thrown_away.saturating_add(sequence.thrown_away);
            if let Some(recomputed) = sequence.recomputed {
                self.recomputed = Some(self.recomputed.unwrap_or(0).saturating_add(recomputed));
            }
            let mut measure = |of: Measure, nanos: u64| self.distributions[of as usize].add(nanos);
            measure(Measure::Queue, sequence.part(Part::Queue));
            if sequence.scheduled {
                measure(Measure::Prefill, sequence.part(Part::Prefill));
            }
            if sequence.first_token.is_some() {
                measure(Measure::Decode, sequence.part(Part::Decode));
            }
            if sequence.preemptions > 0 {
                measure(Measure::Preempted, sequence.part(Part::Preempted));
            }
            if let Some(nanos) = sequence.inter_token() {
                measure(Measure::InterToken, nanos);
            }
        }
        self.distributions[Measure::EndToEnd as usize].add(journey.e2e());
        if let Some(nanos) = journey.time_to_first_token() {
            self.distributions[Measure::TimeToFirstToken as usize].add(nanos);
        }
        for segment in journey.segments() {
            let sum = &mut self.parts[segment.part as usize];
            *sum = sum.saturating_add(segment.to - segment.from);
            self.timeline.add(segment);
        }
        let time = journey.time();
        let (first, last) = self.time.unwrap_or((time.start, time.end));
        self.time = Some((first.min(time.start), last.max(time.end)));
    }

    fn count(&mut self, journey: &Journey) {
        let Some(request) = &journey.request else {
            self.without_request += 1;
            return;
        };
        self.without_core += u64::from(!journey.is_complete());
        bump(&mut self.models, if request.model.is_empty() { "unknown" } else { &request.model });
        match &request.end {
            End::Departed => {
                self.departed += 1;
                self.uncounted += u64::from(request.completion_tokens.is_none());
            }
            _ => bump(&mut self.ends, journey.status()),
        }
        self.prompt_tokens = self.prompt_tokens.saturating_add(request.prompt_tokens.unwrap_or(0));
        self.completion_tokens = self.completion_tokens.saturating_add(request.completion_tokens.unwrap_or(0));
    }

    fn keep(&mut self, e2e: u64, journey: Journey, slowest: usize, sample: usize) {
        let mut out = Some(Ranked(e2e, journey));
        if self.slowest.len() < slowest || self.slowest.peek().is_some_and(|least| Some(&least.0) < out.as_ref()) {
            self.slowest.extend(out.take().map(Reverse));
            if self.slowest.len() > slowest {
                out = self.slowest.pop().map(|Reverse(ranked)| ranked);
            }
        }
        let Some(Ranked(_, journey)) = out else { return };
        if self.sample.len() < sample {
            self.sample.push(journey);
        } else {
            // Algorithm R, with an xorshift of fixed seed: the same files give the same page.
            self.random = self.random.max(0x9e37_79b9_7f4a_7c15);
            self.random ^= self.random << 13;
            self.random ^= self.random >> 7;
            self.random ^= self.random << 17;
            let place = (self.random % self.journeys.max(1)) as usize;
            if let Some(kept) = self.sample.get_mut(place) {
                *kept = journey;
            }
        }
    }

    /// The slowest journeys, the slowest first.
    pub fn slowest(&self) -> Vec<&Journey> {
        let mut ranked: Vec<&Ranked> = self.slowest.iter().map(|Reverse(ranked)| ranked).collect();
        ranked.sort_by(|a, b| b.cmp(a));
        ranked.into_iter().map(|ranked| &ranked.1).collect()
    }

    /// The slowest journeys and the sample of the others, by arrival.
    pub fn kept(&self) -> Vec<&Journey> {
        let mut kept: Vec<&Journey> = self.slowest().into_iter().chain(&self.sample).collect();
        kept.sort_by_key(|journey| (journey.time().start, journey.id));
        kept
    }
}

fn bump(counts: &mut BTreeMap<Box<str>, u64>, name: &str) {
    if let Some(count) = counts.get_mut(name) {
        *count += 1;
    } else if counts.len() < MAX_NAMES {
        counts.insert(name.chars().take(80).collect::<String>().into(), 1);
    } else {
        *counts.entry("others".into()).or_default() += 1;
    }
}

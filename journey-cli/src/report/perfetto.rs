//! Journeys for ui.perfetto.dev, in the Trace Event format: written as they are closed, never held.

use std::io::{self, Write};

use journey_schema::{Attr, Event};
use serde_json::{Value as Json, json};

use crate::journey::{Journey, Part};
use crate::model::{Attributes, Span, Value};

/// What every trace begins with.
pub(super) const BEGINNING: &[u8] = b"{\"displayTimeUnit\":\"ms\",\"traceEvents\":[\n";

const JOURNEYS: u32 = 1;
const STEPS: u32 = 2;

/// Writes one JSON object; the first error stops it and is told at the end.
#[derive(Debug)]
pub(super) struct Perfetto<W> {
    out: W,
    first: bool,
    failed: Option<io::Error>,
}

impl<W: Write> Perfetto<W> {
    pub(super) fn new(mut out: W) -> io::Result<Self> {
        out.write_all(BEGINNING)?;
        let mut perfetto = Self { out, first: true, failed: None };
        for (process, name) in [(JOURNEYS, "journeys"), (STEPS, "scheduler steps")] {
            perfetto.event(&json!({ "ph": "M", "pid": process, "name": "process_name", "args": { "name": name } }));
        }
        Ok(perfetto)
    }

    /// One track per span of the journey: the request, and under it what each sequence was doing.
    pub(super) fn journey(&mut self, journey: &Journey) {
        let id = journey.id.to_string();
        let name = journey.request_id();
        if let Some(request) = &journey.request {
            let args = json!({
                "trace_id": journey.id.trace_id.to_string(),
                "model": &*request.model,
                "http.route": &*request.route,
                "status": journey.status(),
                "gen_ai.usage.prompt_tokens": request.prompt_tokens,
                "gen_ai.usage.completion_tokens": request.completion_tokens,
            });
            self.slice(&id, "llm_request", name, request.time.start, request.time.end, &args);
        }
        for sequence in &journey.sequences {
            let id = format!("{id}/{}", sequence.span_id);
            let status = sequence.status.map_or("", |status| status.as_str());
            let args = json!({
                "gen_ai.request.id": &*sequence.request_id,
                "finish.status": status,
                "num_preemptions": sequence.preemptions,
            });
            self.slice(&id, "llm_core", &sequence.request_id, sequence.time.start, sequence.time.end, &args);
            for segment in &sequence.segments {
                self.slice(&id, "llm_core", segment.part.name(), segment.from, segment.to, &Json::Null);
            }
        }
        if journey.sequences.is_empty() {
            for segment in journey.segments().iter().filter(|segment| segment.part != Part::Untraced) {
                self.slice(&id, "llm_request", segment.part.name(), segment.from, segment.to, &Json::Null);
            }
        }
    }

    /// A slice for each step, and counters of what the scheduler saw.
    pub(super) fn step(&mut self, span: &Span) {
        for event in span.events.iter().filter(|event| event.name.known() == Some(Event::BatchSummary)) {
            let int = |attr: Attr| event.attributes.attr(attr).and_then(Value::as_int).unwrap_or(0);
            let micros = int(Attr::StepDuration).max(0) as f64;
            let end = event.time as f64 / 1e3;
            self.event(&json!({
                "ph": "X", "pid": STEPS, "tid": 1, "name": "scheduler_step", "ts": end - micros, "dur": micros,
                "args": { "step.id": int(Attr::StepId), "batch.scheduled_tokens": int(Attr::ScheduledTokens) },
            }));
            self.event(&json!({
                "ph": "C", "pid": STEPS, "name": "queue", "ts": end,
                "args": { "running": int(Attr::RunningDepth), "waiting": int(Attr::WaitingDepth) },
            }));
            if let Some(usage) = event.attributes.attr(Attr::KvUsage).and_then(Value::as_f64) {
                self.event(&json!({
                    "ph": "C", "pid": STEPS, "name": "kv.usage_gpu_ratio", "ts": end, "args": { "used": usage },
                }));
            }
        }
    }

    /// Closes the object.
    pub(super) fn finish(mut self) -> io::Result<()> {
        if let Some(error) = self.failed {
            return Err(error);
        }
        self.out.write_all(b"\n]}\n")?;
        self.out.flush()
    }

    /// Async slices: they may overlap and come in any order, as journeys do.
    fn slice(&mut self, id: &str, category: &str, name: &str, from: u64, to: u64, args: &Json) {
        let micros = |nanos: u64| nanos as f64 / 1e3;
        self.event(&json!({
            "ph": "b", "pid": JOURNEYS, "tid": 1, "cat": category, "id": id, "name": name, "ts": micros(from), "args": args,
        }));
        self.event(&json!({
            "ph": "e", "pid": JOURNEYS, "tid": 1, "cat": category, "id": id, "name": name, "ts": micros(to),
        }));
    }

    fn event(&mut self, event: &Json) {
        if self.failed.is_some() {
            return;
        }
        let written = (|| {
            if !std::mem::take(&mut self.first) {
                self.out.write_all(b",\n")?;
            }
            serde_json::to_writer(&mut self.out, event).map_err(io::Error::from)
        })();
        self.failed = written.err();
    }
}

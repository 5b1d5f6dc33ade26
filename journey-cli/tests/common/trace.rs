//! Traces for tests: a small deterministic generator of journeys, as an engine that follows the schema writes them.

use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;
use serde_json::{Value, json};

/// 2026-11-24 20:00:00 UTC.
pub(crate) const T0: u64 = 1_795_550_400_000_000_000;
pub(crate) const MS: u64 = 1_000_000;

/// A span with the scope it stands in.
#[derive(Clone, Debug)]
pub(crate) struct Spanned {
    pub(crate) scope: String,
    pub(crate) span: Value,
}

/// A file's worth of spans.
#[derive(Clone, Debug, Default)]
pub(crate) struct Trace(pub(crate) Vec<Spanned>);

/// How a generated journey goes.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Shape {
    /// Milliseconds between events, scaled.
    pub(crate) pace: u64,
    pub(crate) preemptions: u32,
    pub(crate) sequences: u32,
    pub(crate) aborted: bool,
    pub(crate) tokens: i64,
}

pub(crate) const PLAIN: Shape = Shape { pace: 1, preemptions: 0, sequences: 1, aborted: false, tokens: 12 };

fn string(text: &str) -> Value {
    json!({ "stringValue": text })
}

fn int(number: i64) -> Value {
    json!({ "intValue": number.to_string() })
}

fn double(number: f64) -> Value {
    json!({ "doubleValue": number })
}

fn attributes<const N: usize>(pairs: [(&str, Value); N]) -> Value {
    Value::Array(pairs.into_iter().map(|(key, value)| json!({ "key": key, "value": value })).collect())
}

fn monotonic(at: u64) -> f64 {
    (at - T0 + 5_000_000_000_000) as f64 / 1e9
}

pub(crate) fn trace_id(i: u64) -> String {
    format!("{:032x}", (u128::from(i) << 64) | (u128::from(i + 1) * 0x9e37_79b9))
}

pub(crate) fn span_id(i: u64, k: u64) -> String {
    format!("{:016x}", (i + 1) * 0x1000 + k + 1)
}

pub(crate) fn api_event(name: &str, at: u64) -> Value {
    json!({ "timeUnixNano": at.to_string(), "name": name,
        "attributes": attributes([("event.ts.monotonic", double(monotonic(at)))]) })
}

struct Core {
    at: u64,
    step: i64,
    prefill: i64,
    total: i64,
    decode: i64,
    most: i64,
    preemptions: i64,
    phase: &'static str,
    events: Vec<Value>,
}

impl Core {
    fn event(&mut self, name: &str, extra: &[(&str, Value)]) {
        let at = self.at;
        let mut list = attributes([
            ("event.type", string(name)),
            ("ts.monotonic", double(monotonic(at))),
            ("ts.monotonic_ns", int((at - T0 + 5_000_000_000_000) as i64)),
            ("scheduler.step", int(self.step)),
            ("phase", string(self.phase)),
            ("prefill.done_tokens", int(self.prefill)),
            ("prefill.total_tokens", int(self.total)),
            ("decode.done_tokens", int(self.decode)),
            ("decode.max_tokens", int(self.most)),
            ("num_preemptions", int(self.preemptions)),
        ]);
        for (key, value) in extra {
            list.as_array_mut().unwrap().push(json!({ "key": key, "value": value }));
        }
        self.events
            .push(json!({ "timeUnixNano": at.to_string(), "name": format!("journey.{name}"), "attributes": list }));
    }
}

/// The `i`-th journey of a file: one `llm_request` and its `llm_core` spans, children first, as exporters send them.
pub(crate) fn journey(i: u64, shape: Shape) -> Vec<Spanned> {
    let start = T0 + i * 7 * MS;
    let pace = shape.pace * MS;
    let mut spans = Vec::new();
    let mut core_end = start;
    for sequence in 0..u64::from(shape.sequences) {
        let mut core = Core {
            at: start + pace,
            step: i as i64,
            prefill: 0,
            total: 60,
            decode: 0,
            most: shape.tokens,
            preemptions: 0,
            phase: "WAITING",
            events: Vec::new(),
        };
        let opened = core.at;
        core.event("QUEUED", &[]);
        core.at += 2 * pace;
        core.step += 1;
        core.phase = "PREFILL";
        core.event("SCHEDULED", &[("schedule.kind", string("FIRST"))]);
        core.at += 5 * pace + sequence * pace;
        (core.phase, core.prefill, core.decode) = ("DECODE", 60, 1);
        core.event("FIRST_TOKEN", &[]);
        for _ in 0..shape.preemptions {
            core.at += 3 * pace;
            core.preemptions += 1;
            core.event("PREEMPTED", &[]);
            core.at += 4 * pace;
            core.step += 3;
            core.event("SCHEDULED", &[("schedule.kind", string("RESUME"))]);
        }
        core.at += 20 * pace;
        let status = if shape.aborted { "aborted" } else { "length" };
        core.decode = if shape.aborted { shape.tokens / 2 } else { shape.tokens };
        core.event("FINISHED", &[("finish.status", string(status))]);
        core_end = core_end.max(core.at);
        spans.push(Spanned {
            scope: "vllm.scheduler".to_owned(),
            span: json!({
                "traceId": trace_id(i), "spanId": span_id(i, sequence + 1), "parentSpanId": span_id(i, 0), "flags": 768,
                "name": "llm_core", "kind": 1,
                "startTimeUnixNano": opened.to_string(), "endTimeUnixNano": core.at.to_string(),
                "attributes": attributes([("gen_ai.request.id", string(&format!("{sequence}_cmpl-{i:04}")))]),
                "events": core.events, "status": {},
            }),
        });
    }
    let end = core_end + pace;
    let mut events = vec![
        api_event("api.ARRIVED", start),
        api_event("api.HANDOFF_TO_CORE", start + pace / 2),
        api_event("api.FIRST_RESPONSE_FROM_CORE", start + 9 * pace),
    ];
    let mut last = api_event(if shape.aborted { "api.ABORTED" } else { "api.DEPARTED" }, end);
    if shape.aborted {
        last["attributes"]
            .as_array_mut()
            .unwrap()
            .push(json!({ "key": "reason", "value": string("client_disconnect") }));
    }
    events.push(last);
    let mut list = attributes([
        ("gen_ai.request.id", string(&format!("cmpl-{i:04}"))),
        ("http.route", string("/v1/completions")),
        ("gen_ai.response.model", string(if i.is_multiple_of(3) { "small-lm" } else { "large-lm" })),
        ("gen_ai.usage.prompt_tokens", int(60)),
        ("gen_ai.request.temperature", double(0.7)),
        ("gen_ai.request.top_p", double(1.0)),
        ("gen_ai.request.max_tokens", int(shape.tokens)),
        ("gen_ai.request.n", int(i64::from(shape.sequences))),
        ("gen_ai.latency.e2e", double((end - start) as f64 / 1e9)),
    ]);
    if !shape.aborted {
        let tokens = shape.tokens * i64::from(shape.sequences);
        list.as_array_mut().unwrap().push(json!({ "key": "gen_ai.usage.completion_tokens", "value": int(tokens) }));
    }
    spans.push(Spanned {
        scope: "vllm.api".to_owned(),
        span: json!({
            "traceId": trace_id(i), "spanId": span_id(i, 0), "flags": 256, "name": "llm_request", "kind": 2,
            "startTimeUnixNano": start.to_string(), "endTimeUnixNano": end.to_string(),
            "attributes": list, "events": events,
            "status": if shape.aborted { json!({ "code": 2, "message": "client gone" }) } else { json!({}) },
        }),
    });
    spans
}

/// A sampled step that links to the first sequences of `journeys`, with its forward pass.
pub(crate) fn step(i: u64, journeys: &[u64]) -> Vec<Spanned> {
    let at = T0 + i * 7 * MS + 4 * MS;
    let links: Vec<Value> =
        journeys.iter().map(|j| json!({ "traceId": trace_id(*j), "spanId": span_id(*j, 1) })).collect();
    let trace = format!("{:032x}", 0xffff_0000_0000_0000_0000_u128 + u128::from(i));
    let id = format!("{:016x}", 0xffff_0000 + i * 2);
    let summary = attributes([
        ("step.id", int(i as i64)),
        ("step.duration_us", int(3_000)),
        ("queue.running_depth", int(journeys.len() as i64)),
        ("queue.waiting_depth", int(1)),
        ("batch.num_prefill_reqs", int(1)),
        ("batch.num_decode_reqs", int(journeys.len() as i64 - 1)),
        ("batch.scheduled_tokens", int(61)),
        ("batch.num_preempted", int(0)),
        ("kv.usage_gpu_ratio", double(0.25)),
    ]);
    vec![
        Spanned {
            scope: "vllm.scheduler".to_owned(),
            span: json!({
                "traceId": trace, "spanId": id, "name": "scheduler_step", "kind": 1,
                "startTimeUnixNano": at.to_string(), "endTimeUnixNano": (at + 3 * MS).to_string(),
                "events": [{ "timeUnixNano": (at + 3 * MS).to_string(), "name": "step.BATCH_SUMMARY", "attributes": summary }],
                "links": links, "status": {},
            }),
        },
        Spanned {
            scope: "vllm.scheduler".to_owned(),
            span: json!({
                "traceId": trace, "spanId": format!("{:016x}", 0xffff_0001 + i * 2), "parentSpanId": id,
                "name": "model_forward", "kind": 1,
                "startTimeUnixNano": (at + MS).to_string(), "endTimeUnixNano": (at + 2 * MS).to_string(), "status": {},
            }),
        },
    ]
}

impl Trace {
    /// Journeys of every shape, and two steps.
    pub(crate) fn mixed() -> Self {
        let shapes = [
            PLAIN,
            Shape { preemptions: 2, pace: 2, ..PLAIN },
            Shape { sequences: 2, ..PLAIN },
            Shape { aborted: true, ..PLAIN },
            Shape { pace: 4, tokens: 100, ..PLAIN },
        ];
        let mut spans: Vec<Spanned> =
            (0..10).flat_map(|i| journey(i, shapes[(i % shapes.len() as u64) as usize])).collect();
        spans.extend(step(1, &[0, 1]));
        spans.extend(step(2, &[1, 2]));
        Self(spans)
    }

    /// One plain journey: index 0 is the `llm_core`, 1 the `llm_request`.
    pub(crate) fn one() -> Self {
        Self(journey(0, PLAIN))
    }

    fn request(spans: &[Spanned]) -> Value {
        let mut scopes: Vec<(&str, Vec<&Value>)> = Vec::new();
        for spanned in spans {
            match scopes.iter_mut().find(|(scope, _)| *scope == spanned.scope) {
                Some((_, list)) => list.push(&spanned.span),
                None => scopes.push((&spanned.scope, vec![&spanned.span])),
            }
        }
        let scopes: Vec<Value> =
            scopes.into_iter().map(|(scope, spans)| json!({ "scope": { "name": scope }, "spans": spans })).collect();
        json!({ "resourceSpans": [{
            "resource": { "attributes": attributes([("service.name", string("vllm"))]) },
            "scopeSpans": scopes,
        }]})
    }

    /// One export request a line, `per_line` spans in each.
    pub(crate) fn lines(&self, per_line: usize) -> String {
        self.0.chunks(per_line).map(|spans| format!("{}\n", Self::request(spans))).collect()
    }

    /// One document over many lines.
    pub(crate) fn pretty(&self) -> String {
        serde_json::to_string_pretty(&Self::request(&self.0)).unwrap()
    }

    /// One protobuf body.
    pub(crate) fn protobuf(&self) -> Vec<u8> {
        let mut request = Self::request(&self.0);
        // The reference types are stricter than writers are: they want every field there.
        for scope in request["resourceSpans"][0]["scopeSpans"].as_array_mut().unwrap() {
            for span in scope["spans"].as_array_mut().unwrap() {
                for (key, value) in [
                    ("traceState", json!("")),
                    ("parentSpanId", json!("")),
                    ("flags", json!(0)),
                    ("droppedAttributesCount", json!(0)),
                    ("droppedEventsCount", json!(0)),
                    ("droppedLinksCount", json!(0)),
                    ("attributes", json!([])),
                    ("events", json!([])),
                    ("links", json!([])),
                ] {
                    span.as_object_mut().unwrap().entry(key).or_insert(value);
                }
                let status = span["status"].as_object_mut().unwrap();
                status.entry("code").or_insert(json!(0));
                status.entry("message").or_insert(json!(""));
                for event in span["events"].as_array_mut().unwrap() {
                    event.as_object_mut().unwrap().entry("droppedAttributesCount").or_insert(json!(0));
                }
                for link in span["links"].as_array_mut().unwrap() {
                    let link = link.as_object_mut().unwrap();
                    link.entry("traceState").or_insert(json!(""));
                    link.entry("attributes").or_insert(json!([]));
                    link.entry("droppedAttributesCount").or_insert(json!(0));
                    link.entry("flags").or_insert(json!(0));
                }
            }
        }
        let request: ExportTraceServiceRequest = serde_json::from_value(request).unwrap();
        prost::Message::encode_to_vec(&request)
    }
}

/// The value of an attribute in a list of them.
#[track_caller]
pub(crate) fn attribute<'a>(of: &'a mut Value, key: &str) -> &'a mut Value {
    let list = of["attributes"].as_array_mut().expect("attributes");
    let found = list.iter_mut().find(|pair| pair["key"] == key).unwrap_or_else(|| panic!("no {key}"));
    &mut found["value"]
}

/// Removes an attribute.
#[track_caller]
pub(crate) fn remove(of: &mut Value, key: &str) {
    let list = of["attributes"].as_array_mut().expect("attributes");
    let before = list.len();
    list.retain(|pair| pair["key"] != key);
    assert_eq!(list.len() + 1, before, "{key} stood once");
}

/// Adds an attribute.
pub(crate) fn push(of: &mut Value, key: &str, value: Value) {
    of["attributes"].as_array_mut().expect("attributes").push(json!({ "key": key, "value": value }));
}

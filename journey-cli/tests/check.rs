//! `journey check`: clean traces are clean, and each rule finds its fault, alone.

#![allow(clippy::unwrap_used, reason = "a test says so by failing")]

mod common;

use common::{Shape, Trace, attribute, check_json, journey, push, remove, run_in, stdout};
use serde_json::{Value, json};

/// Breaks one clean journey: index 0 is the `llm_core`, 1 the `llm_request`.
type Break = fn(&mut Trace);

/// A file of the Python engine, arguments, and how often each rule finds something there.
type Expected = (&'static str, &'static [&'static str], &'static [(&'static str, u64)]);

/// For each rule, a trace that breaks it and nothing else.
const BROKEN: &[(&str, Break)] = &[
    ("duplicate-llm-request", |trace| {
        let mut copy = trace.0[1].clone();
        copy.scope = "vllm.llm_engine".to_owned();
        copy.span["parentSpanId"] = copy.span["spanId"].clone();
        copy.span["spanId"] = json!("00000000000000aa");
        copy.span["events"] = json!([]);
        trace.0.push(copy);
    }),
    ("duplicate-llm-request", |trace| {
        let mut copy = trace.0[1].clone();
        copy.span["parentSpanId"] = copy.span["spanId"].clone();
        copy.span["spanId"] = json!("00000000000000aa");
        copy.span["events"].as_array_mut().unwrap().remove(1);
        copy.span["events"].as_array_mut().unwrap().truncate(1);
        copy.span["events"][0] = common::api_event("api.ABORTED", common::T0 + 10);
        push(&mut copy.span["events"][0], "reason", json!({ "stringValue": "panic" }));
        remove(&mut copy.span, "gen_ai.latency.e2e");
        copy.span["status"] = json!({ "code": 2 });
        trace.0.push(copy);
    }),
    ("duplicate-llm-request", |trace| trace.0[1].span["traceState"] = json!("vendor=1, journey=llm_request")),
    ("duplicate-llm-request", |trace| {
        let mut other = journey(1, common::PLAIN);
        *attribute(&mut other[1].span, "gen_ai.request.id") = json!({ "stringValue": "cmpl-0000" });
        trace.0.extend(other);
    }),
    ("duplicate-llm-core", |trace| {
        let mut copy = trace.0[0].clone();
        copy.span["spanId"] = json!("00000000000000aa");
        trace.0.push(copy);
    }),
    ("duplicate-span", |trace| trace.0.push(trace.0[0].clone())),
    ("missing-parent", |trace| {
        let mut lone = trace.0[0].clone();
        lone.span["spanId"] = json!("00000000000000aa");
        lone.span.as_object_mut().unwrap().remove("parentSpanId");
        trace.0.push(lone);
    }),
    ("dangling-parent", |trace| {
        trace.0.remove(1);
    }),
    ("wrong-parent", |trace| {
        let mut inner = trace.0[0].clone();
        inner.span["parentSpanId"] = inner.span["spanId"].clone();
        inner.span["spanId"] = json!("00000000000000aa");
        trace.0.push(inner);
    }),
    ("missing-core", |trace| {
        trace.0.remove(0);
    }),
    ("missing-core", |trace| *attribute(&mut trace.0[1].span, "gen_ai.request.n") = json!({ "intValue": "2" })),
    ("unknown-scope", |trace| {
        let mut step = common::step(0, &[0]).remove(0);
        step.scope = "vllm.scheduler.step".to_owned();
        step.span["name"] = json!("scheduler_steps_1");
        trace.0.push(step);
    }),
    ("wrong-scope", |trace| {
        let mut step = common::step(0, &[0]).remove(0);
        step.scope = "vllm.api".to_owned();
        trace.0.push(step);
    }),
    ("unknown-span-name", |trace| {
        let mut step = common::step(0, &[0]).remove(0);
        step.span["name"] = json!("scheduler_stepp");
        trace.0.push(step);
    }),
    ("wrong-kind", |trace| trace.0[1].span["kind"] = json!("SPAN_KIND_CLIENT")),
    ("missing-terminal", |trace| {
        trace.0[0].span["events"].as_array_mut().unwrap().pop();
    }),
    ("event-after-terminal", |trace| {
        let at = trace.0[1].span["endTimeUnixNano"].as_str().unwrap().parse().unwrap();
        trace.0[1].span["events"].as_array_mut().unwrap().push(common::api_event("api.DEPARTED", at));
    }),
    ("missing-event", |trace| {
        trace.0[1].span["events"].as_array_mut().unwrap().remove(1);
    }),
    ("missing-event", |trace| {
        trace.0[0].span["events"].as_array_mut().unwrap().remove(2);
        *attribute(&mut trace.0[0].span["events"][2], "phase") = json!({ "stringValue": "PREFILL" });
    }),
    ("event-order", |trace| {
        let first = trace.0[0].span["events"][2].clone();
        trace.0[0].span["events"].as_array_mut().unwrap().insert(3, first);
    }),
    ("unknown-event", |trace| {
        let event = json!({ "timeUnixNano": trace.0[0].span["startTimeUnixNano"], "name": "journey.QUEUD" });
        trace.0[0].span["events"].as_array_mut().unwrap().push(event);
    }),
    ("event-on-wrong-span", |trace| {
        let event = trace.0[0].span["events"][0].clone();
        trace.0[1].span["events"].as_array_mut().unwrap().insert(1, event);
    }),
    ("missing-attribute", |trace| remove(&mut trace.0[1].span, "gen_ai.usage.completion_tokens")),
    ("missing-attribute", |trace| remove(&mut trace.0[0].span["events"][1], "ts.monotonic_ns")),
    ("wrong-type", |trace| {
        *attribute(&mut trace.0[1].span, "gen_ai.usage.prompt_tokens") = json!({ "stringValue": "60" });
    }),
    ("wrong-type", |trace| {
        *attribute(&mut trace.0[1].span, "gen_ai.request.temperature") = json!({ "doubleValue": "NaN" });
    }),
    ("unknown-value", |trace| {
        *attribute(&mut trace.0[0].span["events"][3], "finish.status") = json!({ "stringValue": "lenght" });
    }),
    ("event-type-mismatch", |trace| {
        *attribute(&mut trace.0[0].span["events"][0], "event.type") = json!({ "stringValue": "SCHEDULED" });
    }),
    ("wrong-schedule-kind", |trace| {
        *attribute(&mut trace.0[0].span["events"][1], "schedule.kind") = json!({ "stringValue": "RESUME" });
    }),
    ("wrong-phase", |trace| {
        *attribute(&mut trace.0[0].span["events"][2], "phase") = json!({ "stringValue": "PREFILL" });
    }),
    ("counter-mismatch", |trace| {
        *attribute(&mut trace.0[0].span["events"][3], "prefill.done_tokens") = json!({ "intValue": "10" });
    }),
    ("counter-mismatch", |trace| {
        *attribute(&mut trace.0[0].span["events"][3], "num_preemptions") = json!({ "intValue": "1" });
    }),
    ("wrong-status", |trace| {
        *trace = Trace(journey(0, Shape { aborted: true, ..common::PLAIN }));
        trace.0[1].span["status"] = json!({});
    }),
    ("bad-time", |trace| trace.0[0].span["startTimeUnixNano"] = json!((common::T0 + 15 * common::MS).to_string())),
    ("clock-mismatch", |trace| {
        *attribute(&mut trace.0[1].span["events"][1], "event.ts.monotonic") = json!({ "doubleValue": 4999.0 });
    }),
    ("clock-mismatch", |trace| {
        *attribute(&mut trace.0[0].span["events"][1], "ts.monotonic_ns") = json!({ "intValue": "5000004000000" });
    }),
    ("latency-mismatch", |trace| {
        *attribute(&mut trace.0[1].span, "gen_ai.latency.e2e") = json!({ "doubleValue": 30.0 });
    }),
    ("wrong-link", |trace| {
        let mut step = common::step(0, &[0]).remove(0);
        step.span["links"][0]["spanId"] = trace.0[1].span["spanId"].clone();
        trace.0.push(step);
    }),
    ("misplaced-attribute", |trace| {
        push(&mut trace.0[0].span["events"][0], "finish.status", json!({ "stringValue": "length" }));
    }),
    ("unknown-attribute", |trace| {
        push(&mut trace.0[1].span, "gen_ai.usage.prompt_token", json!({ "intValue": "60" }));
    }),
    ("dropped-events", |trace| trace.0[0].span["droppedEventsCount"] = json!(3)),
];

fn rules(report: &Value) -> Vec<String> {
    report["rules"].as_array().unwrap().iter().map(|rule| rule["rule"].as_str().unwrap().to_owned()).collect()
}

#[test]
fn a_trace_that_follows_the_schema_has_no_findings() {
    let trace = Trace::mixed();
    for input in
        [trace.lines(1).into_bytes(), trace.lines(7).into_bytes(), trace.pretty().into_bytes(), trace.protobuf()]
    {
        let (report, code) = check_json(&[], &input);
        assert_eq!((code, &report["findings"]), (0, &json!([])), "{report}");
        assert_eq!(
            (&report["llm_request"], &report["llm_core"], &report["scheduler_step"]),
            (&json!(10), &json!(12), &json!(2))
        );
    }
}

#[test]
fn each_rule_finds_its_fault_and_no_other_rule_does() {
    for (rule, break_it) in BROKEN {
        let mut trace = Trace::one();
        break_it(&mut trace);
        let (report, code) = check_json(&[], trace.lines(8).as_bytes());
        assert_eq!(rules(&report), [*rule], "{report:#}");
        assert_eq!(code, 1, "{rule}");
        for finding in report["findings"].as_array().unwrap() {
            assert!(!finding["help"].as_str().unwrap().is_empty());
            assert_eq!(finding["line"], 1);
            assert_eq!(finding["trace_id"].as_str().unwrap().len(), 32);
        }
    }
}

#[test]
fn every_rule_has_a_trace_that_breaks_it() {
    for rule in journey_cli::check::Rule::ALL {
        assert!(BROKEN.iter().any(|(id, _)| *id == rule.info().id), "{} is untested", rule.info().id);
    }
}

#[test]
fn the_text_groups_findings_and_says_where_and_what_to_do() {
    let mut trace = Trace::mixed();
    for spanned in &mut trace.0 {
        if spanned.span["name"] == "llm_request" && spanned.span["status"] == json!({}) {
            spanned.span["events"].as_array_mut().unwrap().drain(1..3);
            remove(&mut spanned.span, "gen_ai.usage.completion_tokens");
        }
    }
    let mut duplicate = trace.0[1].clone();
    duplicate.scope = "vllm.llm_engine".to_owned();
    duplicate.span["spanId"] = json!("00000000000000aa");
    push(&mut duplicate.span, "gen_ai.usage.completion_tokens", json!({ "intValue": "12" }));
    trace.0.push(duplicate);
    let (dir, _) = common::file("engine.jsonl", trace.lines(4));
    let output = run_in(dir.path(), &["check", "engine.jsonl"], b"");
    assert_eq!(output.status.code(), Some(1));
    insta::assert_snapshot!("text", stdout(&output));
}

#[test]
fn sarif_names_rules_lines_and_stable_fingerprints() {
    let mut trace = Trace::one();
    trace.0[1].span["kind"] = json!(1);
    let (dir, _) = common::file("one trace.jsonl", trace.lines(1));
    let output = run_in(dir.path(), &["check", "--format", "sarif", "one trace.jsonl"], b"");
    let log: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(log["version"], "2.1.0");
    let run = &log["runs"][0];
    insta::assert_snapshot!("sarif", serde_json::to_string_pretty(&run["results"]).unwrap());
    let index = run["results"][0]["ruleIndex"].as_u64().unwrap() as usize;
    assert_eq!(run["tool"]["driver"]["rules"][index]["id"], run["results"][0]["ruleId"]);
}

#[test]
fn a_dialect_accepts_its_engine_and_nothing_more() {
    let mut trace = Trace::one();
    let mut step = common::step(0, &[0]).remove(0);
    step.scope = "vllm.scheduler.step".to_owned();
    step.span["name"] = json!("scheduler_steps_1");
    step.span["droppedEventsCount"] = json!(200);
    trace.0.push(step);
    let (report, code) = check_json(&["--dialect", "vllm-fork"], trace.lines(8).as_bytes());
    assert_eq!((code, &report["scheduler_step"]), (0, &json!(1)), "{report:#}");

    for event in trace.0[0].span["events"].as_array_mut().unwrap() {
        remove(event, "ts.monotonic_ns");
    }
    assert_eq!(check_json(&["--dialect", "vllm-fork"], trace.lines(8).as_bytes()).1, 1);
    let both = ["--dialect", "vllm-fork", "--dialect", "vllm-fork-old"];
    assert_eq!(check_json(&both, trace.lines(8).as_bytes()).1, 0);
}

#[test]
fn what_engines_may_do_raises_no_alarm() {
    let mut trace = Trace(journey(0, Shape { aborted: true, ..common::PLAIN }));
    let core = &mut trace.0[0].span;
    // Aborted while it waited, by an engine that calls that PREFILL, some milliseconds after its parent.
    core["events"].as_array_mut().unwrap().drain(1..3);
    *attribute(&mut core["events"][1], "phase") = json!({ "stringValue": "PREFILL" });
    *attribute(&mut core["events"][1], "prefill.done_tokens") = json!({ "intValue": "0" });
    *attribute(&mut core["events"][1], "decode.done_tokens") = json!({ "intValue": "0" });
    trace.0[1].span["endTimeUnixNano"] = json!((common::T0 + 29 * common::MS).to_string());
    trace.0[1].span["parentSpanId"] = json!("00000000000000cc");
    push(&mut trace.0[1].span, "user.tenant", json!({ "stringValue": "blue" }));
    // Somebody else's spans in the same file.
    let mut foreign = trace.0[1].clone();
    foreign.scope = "opentelemetry.instrumentation.fastapi".to_owned();
    foreign.span["spanId"] = json!("00000000000000dd");
    foreign.span["name"] = json!("POST /v1/completions");
    trace.0.push(foreign);
    let (report, code) = check_json(&[], trace.lines(1).as_bytes());
    assert_eq!((code, &report["other_scopes"]), (0, &json!(1)), "{report:#}");
}

#[test]
fn a_parent_may_stand_in_another_file() {
    let trace = Trace::one();
    let (dir, _) = common::file("core.jsonl", Trace(vec![trace.0[0].clone()]).lines(1));
    std::fs::write(dir.path().join("api.pb"), Trace(vec![trace.0[1].clone()]).protobuf()).unwrap();
    assert_eq!(run_in(dir.path(), &["check", "core.jsonl"], b"").status.code(), Some(1));
    assert_eq!(run_in(dir.path(), &["check", "core.jsonl", "api.pb"], b"").status.code(), Some(0));
}

#[test]
fn the_python_engines_faults_are_found_where_its_traces_are_at_hand() {
    let dir = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../../shared/traces");
    if !dir.is_dir() {
        common::skipped(&format!("no {} here", dir.display()));
        return;
    }
    let expected: &[Expected] = &[
        ("journeys", &[], &[("missing-event", 7), ("missing-attribute", 6), ("wrong-status", 1)]),
        ("split", &[], &[("missing-event", 7), ("missing-attribute", 6), ("wrong-status", 1)]),
        ("steps", &[], &[("unknown-scope", 7), ("missing-event", 7), ("missing-attribute", 6), ("wrong-status", 1)]),
        ("steps", &["--dialect", "vllm-fork"], &[("missing-event", 7), ("missing-attribute", 6), ("wrong-status", 1)]),
        ("duplicate", &[], &[("duplicate-llm-request", 21), ("missing-parent", 7), ("missing-attribute", 38)]),
        (
            "duplicate",
            &["--dialect", "vllm-fork-old"],
            &[("duplicate-llm-request", 21), ("missing-parent", 7), ("missing-attribute", 14)],
        ),
    ];
    for (name, args, rules) in expected {
        let input = std::fs::read(dir.join(format!("python-fork-{name}.jsonl"))).unwrap();
        let (report, _) = check_json(args, &input);
        let found: Vec<(String, u64)> = report["rules"]
            .as_array()
            .unwrap()
            .iter()
            .map(|rule| (rule["rule"].as_str().unwrap().to_owned(), rule["count"].as_u64().unwrap()))
            .collect();
        let rules: Vec<(String, u64)> = rules.iter().map(|(rule, count)| ((*rule).to_owned(), *count)).collect();
        assert_eq!(found, rules, "{name} {args:?}");
    }
}

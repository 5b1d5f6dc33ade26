//! `journey report`: figures that add up, and outputs that hold whatever the traces say.

#![allow(clippy::unwrap_used, reason = "a test says so by failing")]

mod common;

use common::{Shape, Trace, attribute, journey, run, run_in, stdout};
use serde_json::{Value, json};

#[test]
fn the_text_says_where_the_time_went() {
    let (dir, _) = common::file("engine.jsonl", Trace::mixed().lines(5));
    let link = "https://tempo.example/trace/{trace_id}?span={span_id}";
    let output = run_in(dir.path(), &["report", "engine.jsonl", "--slowest", "3", "--link", link], b"");
    assert_eq!(output.status.code(), Some(0), "{}", String::from_utf8_lossy(&output.stderr));
    insta::assert_snapshot!("text", stdout(&output));
}

#[test]
fn every_order_and_encoding_of_the_spans_gives_the_same_report() {
    let mut trace = Trace::mixed();
    let report = |input: &[u8], args: &[&str]| {
        let all: Vec<&str> = ["report", "-"].into_iter().chain(args.iter().copied()).collect();
        stdout(&run(&all, input)).to_owned()
    };
    let first = report(trace.lines(1).as_bytes(), &[]);
    assert_eq!(report(&trace.protobuf(), &[]), first);
    trace.0.reverse();
    assert_eq!(report(trace.lines(26).as_bytes(), &[]), first);
    // Spans of one journey that stand far apart are still joined when there is room, and counted when there is not.
    trace.0.sort_by_key(|spanned| spanned.scope.clone());
    assert_eq!(report(trace.lines(4).as_bytes(), &[]), first);
    let cramped = report(trace.lines(4).as_bytes(), &["--max-open", "2"]);
    assert!(cramped.contains("closed before all their spans were read"), "{cramped}");
}

#[test]
fn the_parts_of_each_journey_add_up_to_its_whole() {
    use journey_cli::journey::{Journey, Request, Sequence, journey_of};
    use journey_cli::read::{At, Problem, Sink, read};
    #[derive(Default)]
    struct Journeys(std::collections::BTreeMap<String, Journey>);
    impl Sink for Journeys {
        fn span(&mut self, span: journey_cli::model::Span, _: At) {
            let Some(id) = journey_of(&span) else { return };
            let journey = self.0.entry(id.to_string()).or_insert_with(|| Journey::new(id));
            if span.name.as_str() == "llm_request" {
                journey.request = Some(Request::from_span(&span));
            } else {
                journey.sequences.push(Sequence::from_span(&span));
            }
        }
        fn problem(&mut self, problem: Problem) {
            panic!("{}", problem.error);
        }
    }
    let mut trace = Trace::mixed();
    // A core that outlives its request, clocks that disagree, a request without any core.
    trace.0[1].span["events"][3]["timeUnixNano"] = json!((common::T0 + 20 * common::MS).to_string());
    trace.0[2].span["events"][1]["timeUnixNano"] = json!((common::T0 - 20 * common::MS).to_string());
    trace.0.remove(0);
    let mut journeys = Journeys::default();
    read(trace.lines(3).as_bytes(), 0, &mut journeys);
    assert_eq!(journeys.0.len(), 10);
    for journey in journeys.0.values() {
        assert_eq!(journey.parts().iter().sum::<u64>(), journey.e2e(), "{journey:?}");
        let segments = journey.segments();
        assert!(segments.windows(2).all(|pair| pair[0].to == pair[1].from), "no gap and no overlap: {segments:?}");
    }
}

#[test]
fn the_page_holds_hostile_names_as_text_and_loads_nothing() {
    let mut trace = Trace::mixed();
    let hostile = "</script><script>alert(1)</script><img src=x onerror=alert(1)>\"'&";
    *attribute(&mut trace.0[1].span, "gen_ai.request.id") = json!({ "stringValue": hostile });
    *attribute(&mut trace.0[1].span, "gen_ai.response.model") = json!({ "stringValue": hostile });
    let (dir, _) = common::file("engine.jsonl", trace.lines(5));
    let args = ["report", "engine.jsonl", "--html", "out.html", "--link", "https://tempo.example/{trace_id}"];
    assert_eq!(run_in(dir.path(), &args, b"").status.code(), Some(0));
    let page = std::fs::read_to_string(dir.path().join("out.html")).unwrap();
    assert!(page.contains("&lt;/script&gt;&lt;script&gt;alert(1)"));
    assert_eq!(page.matches("<script>").count(), 1, "ours");
    assert!(!page.contains("<img"));
    assert!(page.contains("default-src 'none'; style-src 'sha256-"));
    for loads in ["url(", "@import", "fetch(", "<link"] {
        assert!(!page.contains(loads), "{loads}");
    }
    let links = page.matches("href=\"https://tempo.example/").count();
    assert_eq!(page.matches("href=\"http").count(), links, "no address but the user's");
    assert_eq!((links, page.matches("<details").count()), (10, 10));
}

#[test]
fn a_link_that_could_run_code_or_names_no_trace_is_refused() {
    for link in ["javascript:alert('{trace_id}')", "https://tempo.example/"] {
        let output = run(&["report", "-", "--link", link], b"");
        assert_eq!(output.status.code(), Some(2));
    }
}

#[test]
fn perfetto_gets_balanced_slices_for_every_span() {
    let (dir, _) = common::file("engine.jsonl", Trace::mixed().lines(5));
    assert_eq!(run_in(dir.path(), &["report", "engine.jsonl", "--perfetto", "out.json"], b"").status.code(), Some(0));
    let trace: Value = serde_json::from_slice(&std::fs::read(dir.path().join("out.json")).unwrap()).unwrap();
    let events = trace["traceEvents"].as_array().unwrap();
    let count = |phase: &str| events.iter().filter(|event| event["ph"] == phase).count();
    assert_eq!(count("b"), count("e"));
    assert_eq!(count("X"), 2, "one slice for each step");
    let requests = events.iter().filter(|event| event["ph"] == "b" && event["args"]["trace_id"].is_string()).count();
    assert_eq!(requests, 10);
}

#[test]
fn an_output_that_cannot_be_written_is_named() {
    let (dir, _) = common::file("engine.jsonl", Trace::one().lines(5));
    let output = run_in(dir.path(), &["report", "engine.jsonl", "--html", "no/such/dir.html"], b"");
    assert_eq!(output.status.code(), Some(2));
    assert!(String::from_utf8_lossy(&output.stderr).contains("cannot write no/such/dir.html: No such file"));
    for option in ["--html", "--perfetto"] {
        let output = run_in(dir.path(), &["report", "engine.jsonl", option, "/dev/full"], b"");
        let told = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(2));
        assert!(told.contains("cannot write /dev/full: No space left on device"), "{told}");
        assert!(stdout(&output).contains("journeys     1"), "the text is there all the same");
    }
}

#[test]
fn what_is_no_earlier_report_is_not_overwritten() {
    let traces = Trace::one().lines(5);
    let (dir, _) = common::file("engine.jsonl", traces.clone());
    let path = |name: &str| dir.path().join(name);
    for option in ["--html", "--perfetto"] {
        let output = run_in(dir.path(), &["report", "-", option, "engine.jsonl"], traces.as_bytes());
        let told = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(2));
        assert!(told.contains("cannot write engine.jsonl: it is no earlier report; remove it"), "{told}");
        assert_eq!(std::fs::read_to_string(path("engine.jsonl")).unwrap(), traces, "nothing is lost");
        for _ in 0..2 {
            let output = run_in(dir.path(), &["report", "engine.jsonl", option, "made"], b"");
            assert_eq!(output.status.code(), Some(0), "{}", String::from_utf8_lossy(&output.stderr));
        }
        std::fs::remove_file(path("made")).unwrap();
    }
    let both = run_in(dir.path(), &["report", "engine.jsonl", "--html", "made", "--perfetto", "made"], b"");
    assert!(String::from_utf8_lossy(&both.stderr).contains("cannot be both"));
}

#[cfg(unix)]
#[test]
fn a_reader_that_has_seen_enough_costs_neither_the_files_nor_the_verdict() {
    let (dir, _) = common::file("engine.jsonl", Trace::one().lines(5));
    std::fs::write(dir.path().join("broken.jsonl"), "garbage\n").unwrap();
    let journey = env!("CARGO_BIN_EXE_journey");
    let closed = |command: &str| {
        let script =
            format!("exec 3>&1; (trap '' PIPE; sleep 0.2; '{journey}' {command}; echo $? >code) | true; cat code");
        let output = std::process::Command::new("sh").args(["-c", &script]).current_dir(dir.path()).output().unwrap();
        String::from_utf8_lossy(&output.stdout).trim().to_owned()
    };
    assert_eq!(closed("report engine.jsonl --html page --perfetto trace"), "0");
    assert!(std::fs::read_to_string(dir.path().join("page")).unwrap().ends_with("</html>"));
    assert!(std::fs::read_to_string(dir.path().join("trace")).unwrap().ends_with("]}\n"));
    assert_eq!(closed("check broken.jsonl"), "2");
}

#[test]
fn what_cannot_be_read_is_told_and_the_rest_reported() {
    let input = format!("garbage\n{}", Trace::one().lines(2));
    let output = run(&["report", "-"], input.as_bytes());
    assert_eq!(output.status.code(), Some(2));
    assert!(stdout(&output).starts_with("unreadable  -:1: expected `{`"), "{}", stdout(&output));
    assert!(stdout(&output).contains("journeys     1"));
    assert_eq!(run(&["report", "-"], b"{}\n").status.code(), Some(2), "nothing to report");
}

#[test]
fn many_journeys_stream_through_little_memory() {
    let shape = Shape { preemptions: 1, ..common::PLAIN };
    let template = Trace(journey(1, shape)).lines(2);
    let mut text = String::new();
    for i in 0..9_000u64 {
        text.push_str(&template.replace(&common::trace_id(1), &common::trace_id(i)));
    }
    let (dir, _) = common::file("many.jsonl", text);
    let limited = format!("ulimit -v 110000; exec {} report many.jsonl --html o.html", env!("CARGO_BIN_EXE_journey"));
    let output = std::process::Command::new("sh").args(["-c", &limited]).current_dir(dir.path()).output().unwrap();
    assert!(
        stdout(&output).contains("journeys     9000 (9000 sequences"),
        "{}",
        String::from_utf8_lossy(&output.stderr)
    );
    assert!(std::fs::metadata(dir.path().join("o.html")).unwrap().len() < 8 << 20);
}

#[test]
fn no_number_is_too_large() {
    let mut trace = Trace::mixed();
    for (index, spanned) in trace.0.iter_mut().enumerate() {
        let extreme = if index % 2 == 0 { u64::MAX.to_string() } else { "0".to_owned() };
        spanned.span["endTimeUnixNano"] = json!(extreme);
        for event in spanned.span["events"].as_array_mut().into_iter().flatten() {
            event["timeUnixNano"] = json!(if index % 3 == 0 { u64::MAX.to_string() } else { "1".to_owned() });
            for attribute in event["attributes"].as_array_mut().unwrap() {
                if attribute["value"]["intValue"].is_string() {
                    attribute["value"] = json!({ "intValue": if index % 2 == 0 { i64::MAX } else { i64::MIN } });
                } else if attribute["value"]["doubleValue"].is_number() {
                    attribute["value"] = json!({ "doubleValue": if index % 2 == 0 { "NaN" } else { "-Infinity" } });
                }
            }
        }
    }
    let (dir, _) = common::file("extreme.jsonl", trace.lines(5));
    let args = ["report", "extreme.jsonl", "--html", "o.html", "--perfetto", "o.json"];
    let output = run_in(dir.path(), &args, b"");
    assert_eq!(output.status.code(), Some(0), "{}", String::from_utf8_lossy(&output.stderr));
    serde_json::from_slice::<Value>(&std::fs::read(dir.path().join("o.json")).unwrap()).unwrap();
    assert_eq!(run_in(dir.path(), &["check", "extreme.jsonl"], b"").status.code(), Some(1));
}

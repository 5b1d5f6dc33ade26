//! Bad input: a message with file and line, and the rest is still read.

#![allow(clippy::unwrap_used, reason = "a test says so by failing")]

mod common;

use std::io::Write;
use std::process::{Command, Output};

use common::{Trace, check_json, run, run_in, stdout};
use flate2::{Compression, write::GzEncoder};
use journey_cli::model::Span;
use journey_cli::read::{At, Problem, Sink};
use proptest::prelude::*;
use serde_json::{Value, json};

/// Spans read, and the places and messages of what could not be.
fn read(input: &[u8]) -> (u64, Vec<(u64, String)>) {
    parse(&run(&["check", "-", "--format", "json"], input))
}

fn parse(output: &Output) -> (u64, Vec<(u64, String)>) {
    let report: Value = serde_json::from_slice(&output.stdout)
        .unwrap_or_else(|error| panic!("{error}: {}", String::from_utf8_lossy(&output.stderr)));
    let problems = report["unreadable"]["problems"].as_array().unwrap();
    let problems: Vec<(u64, String)> = problems
        .iter()
        .map(|problem| {
            let place = problem["line"].as_u64().or(problem["resource_spans"].as_u64()).unwrap_or(0);
            (place, problem["message"].as_str().unwrap().to_owned())
        })
        .collect();
    if !problems.is_empty() {
        assert_eq!(output.status.code(), Some(2), "unreadable input is exit code 2");
    }
    (report["spans"].as_u64().unwrap(), problems)
}

#[test]
fn gzip_is_seen_through() {
    for body in [Trace::mixed().lines(3).into_bytes(), Trace::mixed().protobuf()] {
        let mut gzip = GzEncoder::new(Vec::new(), Compression::fast());
        gzip.write_all(&body).unwrap();
        assert_eq!(read(&gzip.finish().unwrap()), (26, vec![]));
    }
}

#[test]
fn a_truncated_line_costs_what_it_lacks() {
    let lines = Trace::mixed().lines(2);
    let lines: Vec<&str> = lines.lines().collect();
    for cut in [1, 20, 150, 400, lines[2].len() / 2, lines[2].len() - 1] {
        let text = format!("{}\n{}\n{}\n{}\n", lines[0], lines[1], &lines[2][..cut], lines[3]);
        let (spans, problems) = read(text.as_bytes());
        assert!((6..=8).contains(&spans), "{spans} spans at cut {cut}");
        assert_eq!(problems.len(), 1, "{problems:?}");
        assert!(problems[0].1.contains("cut off"), "{problems:?} at {cut}");
        assert!((3..=4).contains(&problems[0].0));
    }
}

#[test]
fn a_file_that_stops_in_the_middle_gives_what_it_has() {
    let text = Trace::mixed().lines(2);
    let (spans, problems) = read(&text.as_bytes()[..text.len() - 400]);
    assert!(spans >= 24);
    assert_eq!(problems.len(), 1);
    let pretty = Trace::mixed().pretty();
    let (spans, problems) = read(&pretty.as_bytes()[..pretty.len() / 2]);
    assert!((6..24).contains(&spans), "{spans}");
    assert_eq!(problems.len(), 1);
}

#[test]
fn a_broken_span_costs_that_span_alone() {
    let mut trace = Trace::mixed();
    trace.0[3].span["traceId"] = json!("abc");
    trace.0[4].span["spanId"] = json!("zzzzzzzzzzzzzzzz");
    trace.0[5].span["spanId"] = json!("0000000000000000");
    trace.0[6].span["traceId"] = json!("W47/95gDgQPSabYzgT/GDA==");
    trace.0[7].span["startTimeUnixNano"] = json!({ "what": 1 });
    trace.0[8].span["events"] = json!("none");
    trace.0[9].span["attributes"][0]["value"] = json!({ "intValue": "1.5" });
    let (spans, problems) = read(trace.lines(1).as_bytes());
    assert_eq!(spans, 26 - 7);
    let lines: Vec<u64> = problems.iter().map(|(line, _)| *line).collect();
    assert_eq!(lines, [4, 5, 6, 7, 8, 9, 10]);
    let text: Vec<&str> = problems.iter().map(|(_, message)| message.as_str()).collect();
    assert!(text[0].contains("trace id of 3 characters, not 32 hex digits"), "{text:?}");
    assert!(text[1].contains("is not hex"));
    assert!(text[2].contains("all zero"));
    assert!(text[3].contains("looks like base64"));
    assert!(text[4].contains("an unsigned 64-bit integer"));
    assert!(text[6].contains("1.5"));
}

#[test]
fn in_a_long_document_the_line_is_that_of_the_fault() {
    let mut trace = Trace::mixed();
    trace.0[20].span["kind"] = json!("SPAN_KIND_SEVRER");
    let pretty = trace.pretty();
    let line = pretty.lines().position(|line| line.contains("SEVRER")).unwrap() as u64 + 1;
    let (spans, problems) = read(pretty.as_bytes());
    assert_eq!((spans, problems[0].0), (25, line), "{problems:?}");
}

#[test]
fn keys_may_come_in_any_order() {
    let document = json!({ "resourceSpans": [{ "scopeSpans": [{ "spans": [Trace::one().0[1].span], "scope": { "name": "vllm.api" } },
        { "spans": [Trace::one().0[0].span], "scope": { "name": "vllm.scheduler" } }], "resource": {} }] });
    // The map of serde_json sorts its keys, so the order is written by hand.
    let scope = |index: usize| document["resourceSpans"][0]["scopeSpans"][index].clone();
    let text = format!(
        "{{\"resourceSpans\":[{{\"schemaUrl\":\"x\",\"scopeSpans\":[{{\"spans\":{},\"scope\":{}}},{{\"spans\":{},\"scope\":{}}}],\"resource\":{{}}}}]}}\n",
        scope(0)["spans"],
        scope(0)["scope"],
        scope(1)["spans"],
        scope(1)["scope"],
    );
    let (report, code) = check_json(&[], text.as_bytes());
    assert_eq!((code, &report["llm_core"]), (0, &json!(1)), "{report:#}");
}

#[test]
fn garbage_is_one_problem_and_the_lines_behind_it_are_read() {
    let lines = Trace::mixed().lines(26);
    let mut input = b"not json\nat all\n\x00\x01\x02\xff\n".to_vec();
    input.extend_from_slice(lines.as_bytes());
    input.extend_from_slice(b"[1,2,3]\n}}}}\n");
    input.extend_from_slice(lines.as_bytes());
    let (spans, problems) = read(&input);
    assert_eq!(spans, 52);
    assert_eq!(problems.iter().map(|(line, _)| *line).collect::<Vec<_>>(), [1, 5], "{problems:?}");

    let (spans, problems) = read(b"\x89PNG\r\n\x1a\n\x00\x00");
    assert_eq!((spans, problems.len()), (0, 1));
    assert!(problems[0].1.contains("89 50 4e 47"), "{problems:?}");
}

#[test]
fn other_json_is_no_trace_and_logs_beside_traces_are_no_fault() {
    let (_, problems) = read(b"{\"data\":[1,2]}\n{}\n");
    assert_eq!(problems.len(), 2);
    assert!(problems[0].1.contains("without `resourceSpans`"));
    let text = format!("{{\"resourceLogs\":[{{\"a\":\"}}\"}}]}}\n{}", Trace::one().lines(2));
    assert_eq!(read(text.as_bytes()), (2, vec![]));
}

#[test]
fn a_long_line_is_read_in_little_memory_and_a_huge_span_is_skipped() {
    let mut trace = Trace::one();
    let mut text = trace.lines(2);
    let events = vec![trace.0[0].span["events"][0].clone(); 1_000];
    let mut many = trace.0[0].clone();
    many.span["events"] = json!(events);
    text.push_str(&Trace(vec![many; 30]).lines(30));
    trace.0[0].span["name"] = json!("x".repeat(17 << 20));
    text.push_str(&trace.lines(2));
    text.push_str(&Trace::one().lines(2));
    assert!(text.len() > 30 << 20);
    let (dir, _) = common::file("long.jsonl", text);
    let limited = format!("ulimit -v 160000; exec {} check long.jsonl --format json", env!("CARGO_BIN_EXE_journey"));
    let output = Command::new("sh").args(["-c", &limited]).current_dir(dir.path()).output().unwrap();
    let (spans, problems) = parse(&output);
    assert_eq!(spans, 2 + 30 + 1 + 2);
    assert_eq!(problems.len(), 1, "{problems:?}");
    assert!(problems[0].1.contains("larger than 16 MiB"));
}

#[test]
fn endless_blank_lines_take_no_memory() {
    let mut text = Trace::one().lines(2);
    text.push_str("{\"x\":[");
    text.push_str(&"\n".repeat(100 << 20));
    text.push_str(&Trace::one().lines(2));
    let (dir, _) = common::file("blank.jsonl", text);
    let limited = format!("ulimit -v 120000; exec {} check blank.jsonl --format json", env!("CARGO_BIN_EXE_journey"));
    let output = Command::new("sh").args(["-c", &limited]).current_dir(dir.path()).output().unwrap();
    assert_eq!(parse(&output).0, 4, "{}", String::from_utf8_lossy(&output.stderr));
}

#[test]
fn broken_protobuf_says_where() {
    let body = Trace::one().protobuf();
    let two = [body.clone(), body.clone()].concat();
    assert_eq!(read(&two).0, 4, "bodies one after the other");
    let framed = [&(body.len() as u32).to_be_bytes()[..], &body].concat();
    assert_eq!(read(&[framed.clone(), framed].concat()).0, 4, "length-prefixed bodies, as the Collector writes them");
    let (spans, problems) = read(&two[..two.len() - 5]);
    assert_eq!((spans, problems[0].0), (3, 2), "what stood before the cut is read");
    let mut bad = two.clone();
    bad.extend_from_slice(b"\x99garbage");
    assert_eq!(read(&bad).0, 4);
    assert_eq!(read(&bad).1.len(), 1);

    // A length inside that is too large costs the rest of its ResourceSpans; a body of a thousand spans costs one span for one.
    let mut bad = two.clone();
    let resource = 2 + body[1..].iter().position(|byte| byte & 0x80 == 0).unwrap();
    let scope_spans = resource + 2 + usize::from(body[resource + 1]);
    assert_eq!((body[resource], body[scope_spans]), (0x0a, 0x12));
    bad[scope_spans + 1] = 0xff;
    let (spans, problems) = read(&bad);
    assert_eq!(spans, 3, "what stood before it, and the next body: {problems:?}");
    assert!(problems[0].1.contains("longer than what it stands in"), "{problems:?}");
    let mut many = Trace((0..500).flat_map(|i| common::journey(i, common::PLAIN)).collect());
    many.0[7].span["spanId"] = json!("aabb");
    let (spans, problems) = read(&many.protobuf());
    assert_eq!(spans, 999);
    assert!(problems[0].1.contains("span id of 2 bytes, not 8"), "{problems:?}");
}

#[test]
fn files_that_cannot_be_read_are_named_and_the_others_are_read() {
    let (dir, _) = common::file("good.jsonl", Trace::one().lines(2));
    std::fs::write(dir.path().join("empty"), b"").unwrap();
    let output = run_in(dir.path(), &["check", "missing.jsonl", "empty", ".", "good.jsonl"], b"");
    assert_eq!(output.status.code(), Some(2));
    let text = stdout(&output);
    assert!(text.contains("missing.jsonl: No such file"), "{text}");
    assert!(text.contains("empty: the file is empty"), "{text}");
    assert!(text.contains("is a directory"), "{text}");
    assert!(text.contains("2 spans: 1 llm_request, 1 llm_core"), "{text}");
}

#[test]
fn usage_mistakes_are_exit_code_2() {
    assert_eq!(run(&["check"], b"").status.code(), Some(2));
    assert_eq!(run(&["check", "-", "--format", "xml"], b"").status.code(), Some(2));
    assert_eq!(run(&["chekc"], b"").status.code(), Some(2));
}

/// Gives out a text in pieces of the sizes that a list names, over and over.
struct Trickle<'a> {
    text: &'a [u8],
    sizes: &'a [usize],
    turn: usize,
}

impl std::io::Read for Trickle<'_> {
    fn read(&mut self, buf: &mut [u8]) -> std::io::Result<usize> {
        self.turn += 1;
        let size = self.sizes[self.turn % self.sizes.len()].min(buf.len()).min(self.text.len());
        let (piece, rest) = self.text.split_at(size);
        buf[..size].copy_from_slice(piece);
        self.text = rest;
        Ok(size)
    }
}

#[derive(Default)]
struct Names(Vec<String>, Vec<String>);

impl Sink for Names {
    fn span(&mut self, span: Span, _: At) {
        self.0.push(span.name.as_str().to_owned());
        assert!(span.attributes.iter().any(|attribute| attribute.value.as_str() == Some(span.name.as_str())));
    }

    fn problem(&mut self, problem: Problem) {
        self.1.push(problem.error.to_string());
    }
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(64) })]

    #[test]
    fn whatever_strings_hold_and_wherever_reads_end_every_span_is_read(
        names in proptest::collection::vec(r#"([a-z]|[\\"{}\[\],:/\n\t\u{0}-\u{1f}]|\PC){0,12}"#, 1..12),
        sizes in proptest::collection::vec(1..40usize, 1..6),
        pretty: bool,
    ) {
        let spans = names.iter().enumerate().map(|(index, name)| {
            let mut spanned = Trace::one().0[index % 2].clone();
            spanned.span["name"] = json!(name);
            common::push(&mut spanned.span, "name.again", json!({ "stringValue": name }));
            common::push(&mut spanned.span, name, json!({ "arrayValue": { "values": [{ "stringValue": name }] } }));
            spanned
        });
        let mut trace = Trace(spans.collect());
        trace.0.sort_by_key(|spanned| spanned.scope.clone());
        let expected: Vec<String> = trace.0.iter().map(|spanned| spanned.span["name"].as_str().unwrap().to_owned()).collect();
        let text = if pretty { trace.pretty() } else { trace.lines(3) };
        let mut read_back = Names::default();
        journey_cli::read::read(Trickle { text: text.as_bytes(), sizes: &sizes, turn: 0 }, 0, &mut read_back);
        prop_assert_eq!(read_back.1, Vec::<String>::new());
        prop_assert_eq!(read_back.0, expected);
    }

    #[test]
    fn no_bytes_make_it_panic_or_go_on_for_ever(
        mut bytes in proptest::collection::vec(any::<u8>(), 0..200),
        at in 0..2_000usize,
        protobuf: bool,
    ) {
        let mut text = if protobuf { Trace::one().protobuf() } else { Trace::one().lines(1).into_bytes() };
        let at = at % text.len();
        text.splice(at..(at + bytes.len() / 2).min(text.len()), bytes.drain(..));
        journey_cli::read::read(text.as_slice(), 0, &mut NoNames);
    }
}

struct NoNames;

impl Sink for NoNames {
    fn span(&mut self, _: Span, _: At) {}
    fn problem(&mut self, _: Problem) {}
}

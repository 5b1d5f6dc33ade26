//! Findings for programs.

use std::io::{self, Write};

use serde::Serialize;

use super::Outcome;
use crate::read::{At, Place};

#[derive(Serialize)]
struct Report<'a> {
    version: u32,
    files: &'a [String],
    spans: u64,
    llm_request: u64,
    llm_core: u64,
    scheduler_step: u64,
    other_scopes: u64,
    rules: Vec<RuleCount>,
    findings: Vec<JsonFinding<'a>>,
    unreadable: Unreadable<'a>,
}

#[derive(Serialize)]
struct RuleCount {
    rule: &'static str,
    level: &'static str,
    count: u64,
    help: &'static str,
}

#[derive(Serialize)]
struct JsonFinding<'a> {
    rule: &'static str,
    level: &'static str,
    message: &'a str,
    help: &'static str,
    #[serde(flatten)]
    location: Location<'a>,
    trace_id: String,
    span_id: String,
    span_name: &'a str,
    #[serde(skip_serializing_if = "str::is_empty")]
    request_id: &'a str,
}

#[derive(Serialize)]
struct Unreadable<'a> {
    count: u64,
    problems: Vec<JsonProblem<'a>>,
}

#[derive(Serialize)]
struct JsonProblem<'a> {
    #[serde(flatten)]
    location: Location<'a>,
    message: String,
}

#[derive(Serialize)]
struct Location<'a> {
    file: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    line: Option<u32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    resource_spans: Option<u32>,
}

fn location(at: At, files: &[String]) -> Location<'_> {
    let (line, resource_spans) = match at.place {
        Place::File => (None, None),
        Place::Line(line) => (Some(line), None),
        Place::Message(number) => (None, Some(number)),
    };
    Location { file: files.get(at.file as usize).map_or("-", String::as_str), line, resource_spans }
}

pub(super) fn write(outcome: &Outcome, files: &[String], out: &mut dyn Write) -> io::Result<()> {
    let report = Report {
        version: 1,
        files,
        spans: outcome.spans,
        llm_request: outcome.requests,
        llm_core: outcome.cores,
        scheduler_step: outcome.steps,
        other_scopes: outcome.foreign,
        rules: outcome
            .findings
            .groups()
            .map(|(rule, group)| {
                let info = rule.info();
                RuleCount { rule: info.id, level: info.level.as_str(), count: group.count, help: info.help }
            })
            .collect(),
        findings: outcome
            .findings
            .kept()
            .map(|finding| {
                let info = finding.rule.info();
                JsonFinding {
                    rule: info.id,
                    level: info.level.as_str(),
                    message: &finding.message,
                    help: info.help,
                    location: location(finding.at, files),
                    trace_id: finding.span.trace_id.to_string(),
                    span_id: finding.span.span_id.to_string(),
                    span_name: &finding.span_name,
                    request_id: &finding.request_id,
                }
            })
            .collect(),
        unreadable: Unreadable {
            count: outcome.problem_count,
            problems: outcome
                .problems
                .iter()
                .map(|problem| JsonProblem {
                    location: location(problem.at, files),
                    message: problem.error.to_string(),
                })
                .collect(),
        },
    };
    serde_json::to_writer_pretty(&mut *out, &report)?;
    writeln!(out)
}

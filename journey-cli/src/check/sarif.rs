//! Findings as SARIF 2.1.0, the format that code scanning services read.

use std::io::{self, Write};

use serde_json::{Value, json};

use super::rules::Rule;
use super::{Finding, Outcome};
use crate::read::{At, Place};

/// Rule id of what could not be read.
const UNREADABLE: &str = "unreadable";

pub(super) fn write(outcome: &Outcome, files: &[String], out: &mut dyn Write) -> io::Result<()> {
    let mut rules: Vec<Value> = Rule::ALL
        .iter()
        .map(|rule| {
            let info = rule.info();
            json!({
                "id": info.id,
                "shortDescription": { "text": info.title },
                "help": { "text": info.help },
                "defaultConfiguration": { "level": info.level.as_str() },
            })
        })
        .collect();
    rules.push(json!({
        "id": UNREADABLE,
        "shortDescription": { "text": "part of the input is no OTLP" },
        "defaultConfiguration": { "level": "error" },
    }));
    let problems = outcome.problems.iter().map(|problem| {
        json!({
            "ruleId": UNREADABLE,
            "level": "error",
            "message": { "text": problem.error.to_string() },
            "locations": [location(problem.at, files)],
        })
    });
    let results: Vec<Value> = outcome.findings.kept().map(|finding| result(finding, files)).chain(problems).collect();
    let log = json!({
        "$schema": "https://json.schemastore.org/sarif-2.1.0.json",
        "version": "2.1.0",
        "runs": [{
            "tool": { "driver": {
                "name": "journey",
                "version": env!("CARGO_PKG_VERSION"),
                "rules": rules,
            }},
            "results": results,
        }],
    });
    serde_json::to_writer_pretty(&mut *out, &log)?;
    writeln!(out)
}

fn result(finding: &Finding, files: &[String]) -> Value {
    let info = finding.rule.info();
    let text = format!(
        "{} (trace {}, span {} {}). {}",
        finding.message, finding.span.trace_id, finding.span.span_id, finding.span_name, info.help
    );
    json!({
        "ruleId": info.id,
        "ruleIndex": finding.rule as usize,
        "level": info.level.as_str(),
        "message": { "text": text },
        "locations": [location(finding.at, files)],
        // The same fault of the same span keeps its identity, whichever file or line the span is written to.
        "partialFingerprints": { "span/v1": format!("{}:{}:{}", info.id, finding.span.trace_id, finding.span.span_id) },
        "properties": {
            "traceId": finding.span.trace_id.to_string(),
            "spanId": finding.span.span_id.to_string(),
            "requestId": &*finding.request_id,
        },
    })
}

fn location(at: At, files: &[String]) -> Value {
    let name = files.get(at.file as usize).map_or("-", String::as_str);
    let mut physical = json!({ "artifactLocation": { "uri": uri(name) } });
    if let Place::Line(line) = at.place {
        physical["region"] = json!({ "startLine": line.max(1) });
    }
    json!({ "physicalLocation": physical })
}

/// A path as a URI reference: what is no plain path character is percent-encoded.
fn uri(name: &str) -> String {
    name.bytes()
        .map(|byte| match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'/' | b'.' | b'-' | b'_' | b'~' => char::from(byte).to_string(),
            byte => format!("%{byte:02X}"),
        })
        .collect()
}

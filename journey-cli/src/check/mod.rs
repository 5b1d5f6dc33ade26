//! `journey check`: whole traces against the schema.
//!
//! Each span meets the rules that it can break by itself as it is read, and is then reduced to a record of its ids and times;
//! the rules about several spans run over the records at the end, when all files are read. Memory is the records.

mod attributes;
mod cross;
mod dialect;
mod events;
mod findings;
mod json;
mod local;
mod rules;
mod sarif;
mod text;

use std::io::{self, Write};

use clap::ValueEnum;
use journey_schema::SpanName;

pub use cross::Index;
pub use dialect::{Dialect, Dialects};
pub use findings::{Finding, Findings, Group};
pub use local::{Role, check as check_span};
pub use rules::{Level, Rule, RuleInfo};

use crate::model::Span;
use crate::read::{At, Problem, Sink};

/// Problems of reading that are kept in full.
const MAX_PROBLEMS: usize = 1_000;

/// How the result is written.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum Format {
    /// For people: grouped by rule.
    #[default]
    Text,
    /// One JSON object.
    Json,
    /// SARIF 2.1.0, for code scanning.
    Sarif,
}

/// Runs the rules over a stream of spans.
#[derive(Debug)]
pub struct Checker {
    dialects: Dialects,
    findings: Findings,
    index: Index,
    problems: Vec<Problem>,
    problem_count: u64,
    spans: u64,
    foreign: u64,
    scratch: Vec<Finding>,
}

impl Checker {
    /// A checker that accepts `dialects` and keeps up to `limit` findings of each rule in full.
    pub fn new(dialects: Dialects, limit: usize) -> Self {
        Self {
            dialects,
            findings: Findings::new(limit),
            index: Index::default(),
            problems: Vec::new(),
            problem_count: 0,
            spans: 0,
            foreign: 0,
            scratch: Vec::new(),
        }
    }

    /// Runs the rules that need all spans, and closes the books.
    pub fn finish(mut self) -> Outcome {
        let findings = &mut self.findings;
        self.index.check(&mut |finding| findings.add(finding));
        self.findings.sort();
        Outcome {
            spans: self.spans,
            foreign: self.foreign,
            requests: self.index.count(Role::Schema(SpanName::LlmRequest)) as u64,
            cores: self.index.count(Role::Schema(SpanName::LlmCore)) as u64,
            steps: self.index.count(Role::Schema(SpanName::SchedulerStep)) as u64,
            findings: self.findings,
            problems: self.problems,
            problem_count: self.problem_count,
        }
    }
}

impl Sink for Checker {
    fn span(&mut self, span: Span, at: At) {
        self.spans += 1;
        let role = check_span(&span, at, self.dialects, &mut self.scratch);
        self.foreign += u64::from(role == Role::Foreign);
        self.index.add(&span, at, role);
        for finding in self.scratch.drain(..) {
            self.findings.add(finding);
        }
    }

    fn problem(&mut self, problem: Problem) {
        self.problem_count += 1;
        if self.problems.len() < MAX_PROBLEMS {
            self.problems.push(problem);
        }
    }
}

/// What a check found.
#[derive(Debug)]
pub struct Outcome {
    /// Spans read.
    pub spans: u64,
    /// Of these, spans of other libraries and services, which the schema says nothing about.
    pub foreign: u64,
    /// `llm_request` spans in their scope.
    pub requests: u64,
    /// `llm_core` spans.
    pub cores: u64,
    /// `scheduler_step` spans.
    pub steps: u64,
    /// Faults against the schema.
    pub findings: Findings,
    /// The first things that could not be read.
    pub problems: Vec<Problem>,
    /// How many things could not be read.
    pub problem_count: u64,
}

impl Outcome {
    /// Writes the result.
    ///
    /// # Errors
    /// `out` does not take it.
    pub fn write(&self, format: Format, files: &[String], out: &mut dyn Write) -> io::Result<()> {
        match format {
            Format::Text => text::write(self, files, out),
            Format::Json => json::write(self, files, out),
            Format::Sarif => sarif::write(self, files, out),
        }
    }

    /// The command's exit code: 0 clean, 1 findings, 2 something could not be read.
    pub fn exit_code(&self) -> u8 {
        match (self.problem_count, self.findings.count()) {
            (0, 0) if self.spans > 0 => 0,
            (0, 0) => 2,
            (0, _) => 1,
            _ => 2,
        }
    }
}

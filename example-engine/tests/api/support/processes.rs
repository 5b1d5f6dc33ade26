//! Real processes of the engine's binary, and the files that they leave.

use std::io::{BufRead, BufReader, Read};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;

use super::{PATIENCE, checkpoint};

/// The binary, in an environment that says nothing about OpenTelemetry.
pub fn engine(args: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_example-engine"));
    for (name, _) in std::env::vars_os().filter(|(name, _)| name.to_string_lossy().starts_with("OTEL_")) {
        command.env_remove(name);
    }
    command.env_remove("RUST_LOG").args(args).stdin(Stdio::null());
    command
}

/// Runs the binary to its end.
pub fn run(args: &[&str]) -> Output {
    engine(args).output().expect("a process")
}

/// A running process that listens. Killed when dropped.
pub struct Process {
    child: Child,
    pub url: String,
}

impl Process {
    /// Starts it, and waits for the line that says where it listens.
    pub fn start(args: &[&str]) -> Self {
        Self::spawn(&mut engine(args))
    }

    /// Starts it with what is set on `command`.
    pub fn spawn(command: &mut Command) -> Self {
        let mut child = command.stdout(Stdio::piped()).spawn().expect("a process");
        let mut lines = BufReader::new(child.stdout.take().expect("a pipe"));
        let mut line = String::new();
        let url = loop {
            line.clear();
            assert!(lines.read_line(&mut line).expect("a line") > 0, "{command:?} ended before it listened");
            if let Some((_, url)) = line.trim().split_once("listening on ") {
                break url.to_owned();
            }
        };
        // A full pipe would stop it.
        std::thread::spawn(move || std::io::copy(&mut lines, &mut std::io::sink()));
        Self { child, url }
    }

    /// Sends SIGTERM.
    pub fn terminate(&self) {
        let pid = Pid::from_raw(i32::try_from(self.child.id()).expect("a process id")).expect("a process id");
        kill_process(pid, Signal::TERM).expect("a running process");
    }

    /// Sends SIGKILL.
    pub fn kill(mut self) {
        self.child.kill().expect("a running process");
        self.child.wait().expect("an ended process");
    }

    /// Waits for its end; the exit code.
    pub fn exit_code(mut self) -> Option<i32> {
        let deadline = Instant::now() + PATIENCE;
        loop {
            if let Some(status) = self.child.try_wait().expect("a process") {
                return status.code();
            }
            assert!(Instant::now() < deadline, "the process does not end");
            std::thread::sleep(Duration::from_millis(10));
        }
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // It may have ended.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// A checkpoint and a place for journeys.
pub struct Workspace {
    pub dir: tempfile::TempDir,
    pub model: String,
    pub journeys: PathBuf,
}

impl Workspace {
    pub fn new() -> Self {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let model = dir.path().join("tiny");
        std::fs::create_dir(&model).expect("a directory");
        checkpoint::write(&model);
        Self { model: model.display().to_string(), journeys: dir.path().join("journeys.jsonl"), dir }
    }

    pub fn start(&self, command: &str, port: &str, more: &[&str]) -> Process {
        Process::spawn(&mut self.command(command, port, more))
    }

    /// What [`start`](Self::start) starts.
    pub fn command(&self, command: &str, port: &str, more: &[&str]) -> Command {
        let journeys = self.journeys.display().to_string();
        let args = [command, "--model", &self.model, "--device", "cpu", "--port", port, "--journeys", &journeys];
        engine(&[&args[..], more].concat())
    }
}

/// A span as it stands in an OTLP-JSON file.
#[derive(Clone, Debug)]
pub struct FileSpan {
    pub scope: String,
    pub name: String,
    pub trace_id: String,
    pub span_id: String,
    pub parent_span_id: String,
    pub events: Vec<String>,
    pub json: Value,
}

/// All spans in a file of OTLP-JSON lines.
pub fn read_spans(path: &Path) -> Vec<FileSpan> {
    let mut text = String::new();
    std::fs::File::open(path).expect("a file").read_to_string(&mut text).expect("text");
    let mut spans = Vec::new();
    let list = |value: &Value, key: &str| value[key].as_array().cloned().unwrap_or_default();
    for line in text.lines() {
        let line: Value = serde_json::from_str(line).expect("a line of JSON");
        for scope in list(&line, "resourceSpans").iter().flat_map(|resource| list(resource, "scopeSpans")) {
            for span in list(&scope, "spans") {
                let text = |key: &str| span[key].as_str().unwrap_or_default().to_owned();
                let events = list(&span, "events");
                spans.push(FileSpan {
                    scope: scope["scope"]["name"].as_str().unwrap_or_default().to_owned(),
                    name: text("name"),
                    trace_id: text("traceId"),
                    span_id: text("spanId"),
                    parent_span_id: text("parentSpanId"),
                    events: events.iter().map(|event| event["name"].as_str().unwrap_or_default().to_owned()).collect(),
                    json: span,
                });
            }
        }
    }
    spans
}

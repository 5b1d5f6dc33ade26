//! What the tests share: generated traces, and the command run on them.

#![allow(dead_code, unused_imports, reason = "each test binary uses its own part")]

mod trace;

use std::io::Write;
use std::path::PathBuf;
use std::process::{Command, Output, Stdio};

use serde_json::Value;
pub(crate) use trace::*;

/// Says that a test has nothing to work with. The harness shows no output of tests that pass, but for what is written past it.
pub(crate) fn skipped(why: &str) {
    let _ = writeln!(std::io::stderr(), "skipped: {why}");
}

/// A file in a directory of its own.
pub(crate) fn file(name: &str, content: impl AsRef<[u8]>) -> (tempfile::TempDir, PathBuf) {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join(name);
    std::fs::write(&path, content).unwrap();
    (dir, path)
}

/// Runs the command with `input` on its standard input, in `dir`.
pub(crate) fn run_in(dir: &std::path::Path, args: &[&str], input: &[u8]) -> Output {
    let mut child = Command::new(env!("CARGO_BIN_EXE_journey"))
        .args(args)
        .current_dir(dir)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut stdin = child.stdin.take().unwrap();
    std::thread::scope(|scope| {
        // A child that has seen enough closes its end; that is its right.
        scope.spawn(move || {
            let _ = stdin.write_all(input);
        });
        child.wait_with_output().unwrap()
    })
}

/// Runs the command with `input` on its standard input.
pub(crate) fn run(args: &[&str], input: &[u8]) -> Output {
    run_in(&std::env::temp_dir(), args, input)
}

/// What was printed.
pub(crate) fn stdout(output: &Output) -> &str {
    std::str::from_utf8(&output.stdout).expect("output is UTF-8")
}

/// `check` of a trace on standard input, as its JSON, and the exit code.
pub(crate) fn check_json(args: &[&str], input: &[u8]) -> (Value, i32) {
    let mut all = vec!["check", "-", "--format", "json"];
    all.extend(args);
    let output = run(&all, input);
    let json = serde_json::from_slice(&output.stdout)
        .unwrap_or_else(|error| panic!("{error}: {}", String::from_utf8_lossy(&output.stderr)));
    (json, output.status.code().unwrap())
}

//! `check` and `report` on a trace that our own engine wrote: `tests/data/engine.jsonl`, made by
//! `cargo run --release -p example-engine -- demo --quiet --requests 20 --journeys engine.jsonl`.

#![allow(clippy::unwrap_used, reason = "a test says so by failing")]

mod common;

use std::path::Path;

use common::{run_in, stdout};

fn data() -> std::path::PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data")
}

#[test]
fn the_engines_trace_is_clean() {
    let output = run_in(&data(), &["check", "engine.jsonl"], b"");
    assert_eq!(output.status.code(), Some(0));
    insta::assert_snapshot!("check", stdout(&output));
}

#[test]
fn the_engines_trace_is_reported() {
    let output = run_in(&data(), &["report", "engine.jsonl", "--slowest", "3"], b"");
    assert_eq!(output.status.code(), Some(0), "{}", String::from_utf8_lossy(&output.stderr));
    insta::assert_snapshot!("report", stdout(&output));
}

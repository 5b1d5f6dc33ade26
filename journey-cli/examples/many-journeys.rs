//! Writes about as many megabytes of OTLP-JSON lines as it is told to, for measuring: a mix of journeys, every id its own.
//!
//! `cargo run --release -p journey-cli --example many-journeys -- 400 > many.jsonl`

#![allow(dead_code, clippy::unwrap_used, reason = "the generator is the tests', where a failure is a panic")]

#[path = "../tests/common/trace.rs"]
mod trace;

use std::io::{self, BufWriter, Write};

use trace::{Trace, trace_id};

fn main() -> io::Result<()> {
    let megabytes: u64 = std::env::args().nth(1).and_then(|text| text.parse().ok()).unwrap_or(100);
    let journeys =
        Trace::mixed().0.into_iter().filter(|spanned| spanned.span["name"].as_str().unwrap().starts_with("llm_"));
    let template = Trace(journeys.collect()).lines(8);
    let mut out = BufWriter::new(io::stdout().lock());
    for round in 0..megabytes * 1_000_000 / template.len() as u64 {
        let mut text = template.clone();
        for i in 0..10 {
            text = text.replace(&trace_id(i), &trace_id(round * 10 + i));
            text = text.replace(&format!("cmpl-{i:04}"), &format!("cmpl-{:08}", round * 10 + i));
        }
        out.write_all(text.as_bytes())?;
    }
    out.flush()
}

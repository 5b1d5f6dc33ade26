//! `err` sees every way in which an `Err` leaves a function.
#![deny(warnings)]

#[path = "support/mod.rs"]
mod support;

use std::fmt;

use journey_layer::journey_span;
use support::{block_on, printed};

type Outcome<T> = Result<T, Failure>;

#[derive(Debug, PartialEq)]
struct Failure(&'static str);

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "failed in {}", self.0)
    }
}

impl std::error::Error for Failure {}

#[derive(Debug)]
struct Opaque;

fn fail<T>(at: &'static str) -> Outcome<T> {
    Err(Failure(at))
}

#[journey_span(scope = "vllm.api", err)]
fn question_mark(at: &'static str) -> Outcome<u32> {
    let value: u32 = fail(at)?;
    Ok(value + 1)
}

#[journey_span(scope = "vllm.api", err)]
fn early_return(at: &'static str) -> Outcome<()> {
    if !at.is_empty() {
        return fail(at);
    }
    Ok(())
}

#[journey_span(scope = "vllm.api", err(Display))]
async fn asynchronous(at: &'static str) -> Result<(), Box<dyn std::error::Error + Send + Sync>> {
    std::future::ready(()).await;
    question(at)?;
    Ok(())
}

fn question(at: &'static str) -> Outcome<()> {
    fail(at)
}

#[journey_span(scope = "vllm.scheduler", name = "llm_core", err(Debug))]
fn without_display() -> Result<impl Iterator<Item = u32>, Opaque> {
    if std::env::args().count() > 0 {
        return Err(Opaque);
    }
    Ok([1].into_iter())
}

#[journey_span(scope = "vllm.api", err)]
fn succeeds<'a>(text: &'a str, other: &str) -> std::io::Result<&'a str> {
    Ok(if other.is_empty() { text } else { "" })
}

#[journey_span(scope = "vllm.api", err)]
async fn generic<T, E>(outcome: Result<T, E>) -> Result<T, E>
where
    E: fmt::Display,
{
    outcome
}

#[journey_span(scope = "vllm.api", err)]
unsafe fn unsafely(pointer: *const u32) -> Outcome<u32> {
    // SAFETY: the caller gives a valid pointer.
    Ok(unsafe { *pointer })
}

fn main() {
    let output = printed(|| {
        assert_eq!(question_mark("a"), Err(Failure("a")));
        assert_eq!(early_return("b"), Err(Failure("b")));
        assert_eq!(early_return(""), Ok(()));
        assert!(block_on(asynchronous("c")).is_err());
        assert!(without_display().is_err());
        assert_eq!(succeeds("d", "").expect("no error"), "d");
        assert_eq!(block_on(generic::<u32, _>(Err("e"))), Err("e"));
        // SAFETY: a reference is a valid pointer.
        assert_eq!(unsafe { unsafely(&1) }, Ok(1));
    });
    let aborted: Vec<&str> = output.lines().filter(|line| line.contains("api.ABORTED")).collect();
    assert_eq!(aborted.len(), 4, "{output}");
    for (line, text) in aborted.iter().zip(["failed in a", "failed in b", "failed in c", "e"]) {
        assert!(line.contains("vllm.api"), "{line}");
        assert!(line.ends_with(&format!(r#"reason="generation_error" error={text}"#)), "{line}");
    }
    assert_eq!(output.matches(r#"journey.FINISHED finish.status="error""#).count(), 1, "{output}");
}

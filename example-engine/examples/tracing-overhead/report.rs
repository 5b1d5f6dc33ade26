//! The two processes beside each other.

use std::error::Error;
use std::fmt::Write;

use crate::{Args, Round};

/// The ratios, with tracing to without.
///
/// # Errors
/// A process did not do what it was measured for.
pub(crate) fn report(args: &Args, rounds: &[(Round, Round)]) -> Result<String, Box<dyn Error>> {
    check(args, rounds)?;
    let mut text = format!(
        "{} rounds of {} requests each, {} at a time, {} tokens each; median of all rounds\n{:<24}{:>12}{:>12}{:>10}{:>9}\n",
        rounds.len(),
        args.requests,
        args.concurrency,
        args.max_tokens,
        "",
        "traced",
        "off",
        "ratio",
        "noise"
    );
    row(&mut text, "tokens/s", rounds, |round| round.tokens as f64 / round.seconds)?;
    row(&mut text, "CPU, us a token", rounds, |round| round.cpu_seconds * 1e6 / round.tokens as f64)?;
    row(&mut text, "step time p50, us", rounds, |round| percentile(&round.step_seconds, 0.5) * 1e6)?;
    row(&mut text, "step time p99, us", rounds, |round| percentile(&round.step_seconds, 0.99) * 1e6)?;
    // A p99 of one round rests on a few steps; that of all of them says more.
    let all = |of: fn(&(Round, Round)) -> &Round| -> f64 {
        let steps: Vec<f64> = rounds.iter().flat_map(|pair| of(pair).step_seconds.iter().copied()).collect();
        percentile(&steps, 0.99) * 1e6
    };
    let (traced, off) = (all(|pair| &pair.0), all(|pair| &pair.1));
    writeln!(text, "{:<24}{traced:>12.1}{off:>12.1}{:>10.4}", "p99 of all steps, us", traced / off)?;
    Ok(text)
}

fn check(args: &Args, rounds: &[(Round, Round)]) -> Result<(), Box<dyn Error>> {
    let (traced, off) = rounds.last().ok_or("no rounds")?;
    // One round more than is measured; two spans a journey.
    let expected = (rounds.len() as u64 + 1) * u64::from(args.requests) * 2;
    if traced.spans_started != expected || traced.spans_exported != expected {
        let (started, exported) = (traced.spans_started, traced.spans_exported);
        return Err(format!("{expected} spans were to be exported; started {started}, exported {exported}").into());
    }
    match off.spans_started {
        0 => Ok(()),
        started => Err(format!("the process without tracing started {started} spans").into()),
    }
}

fn row(text: &mut String, name: &str, rounds: &[(Round, Round)], of: impl Fn(&Round) -> f64) -> std::fmt::Result {
    let ratios: Vec<f64> = rounds.iter().map(|(traced, off)| of(traced) / of(off)).collect();
    let traced: Vec<f64> = rounds.iter().map(|(traced, _)| of(traced)).collect();
    let off: Vec<f64> = rounds.iter().map(|(_, off)| of(off)).collect();
    // Half the distance between the quartiles.
    let noise = (percentile(&ratios, 0.75) - percentile(&ratios, 0.25)) / 2.0;
    writeln!(
        text,
        "{name:<24}{:>12.1}{:>12.1}{:>10.4}{:>7.1} %",
        percentile(&traced, 0.5),
        percentile(&off, 0.5),
        percentile(&ratios, 0.5),
        noise * 100.0
    )
}

/// The nearest rank.
fn percentile(values: &[f64], share: f64) -> f64 {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    let rank = (share * sorted.len() as f64).ceil() as usize;
    sorted.get(rank.max(1) - 1).copied().unwrap_or(0.0)
}

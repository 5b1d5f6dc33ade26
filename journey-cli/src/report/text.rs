//! The report for a terminal.

use std::collections::BTreeMap;
use std::io::{self, Write};

use super::{Measure, Report};
use crate::journey::{Journey, Part};
use crate::time::{nanos, wall};

/// Columns of the bar that shows where a journey's time went.
const BAR: usize = 40;

pub(super) fn write(report: &Report, out: &mut dyn Write) -> io::Result<()> {
    for problem in &report.problems {
        writeln!(out, "unreadable  {}: {}", problem.at.describe(&report.files), problem.error)?;
    }
    let told = report.problems.len() as u64;
    if report.problem_count > told {
        writeln!(out, "unreadable  and {} more", report.problem_count - told)?;
    }
    if report.problem_count > 0 {
        writeln!(out)?;
    }
    if report.stats.journeys == 0 {
        return writeln!(out, "no journeys in {} spans", report.spans);
    }
    counts(report, out)?;
    latencies(report, out)?;
    parts(report, out)?;
    slowest(report, out)
}

fn counts(report: &Report, out: &mut dyn Write) -> io::Result<()> {
    let stats = &report.stats;
    let foreign =
        if report.foreign > 0 { format!(", {} of them part of no journey", report.foreign) } else { String::new() };
    writeln!(out, "journeys     {} ({} sequences, {} spans{foreign})", stats.journeys, stats.sequences, report.spans)?;
    if let Some((first, last)) = stats.time {
        writeln!(out, "time         {} to {} ({})", wall(first), wall(last), nanos(last - first))?;
    }
    if stats.models.len() > 1 || !stats.models.contains_key("unknown") {
        writeln!(out, "models       {}", list(&stats.models))?;
    }
    let aborted: u64 = stats.ends.values().sum();
    let reasons = if aborted > 0 { format!(", aborted {aborted}: {}", list(&stats.ends)) } else { String::new() };
    writeln!(out, "requests     departed {}{reasons}", stats.departed)?;
    writeln!(out, "sequences    {}", list(&stats.finishes))?;
    let uncounted = if stats.uncounted > 0 {
        format!(" ({} requests departed without gen_ai.usage.completion_tokens)", stats.uncounted)
    } else {
        String::new()
    };
    writeln!(out, "tokens       {} prompt, {} completion{uncounted}", stats.prompt_tokens, stats.completion_tokens)?;
    let rate = 100.0 * stats.preempted as f64 / stats.sequences.max(1) as f64;
    let recomputed = match stats.recomputed {
        Some(tokens) => format!("{tokens} tokens recomputed"),
        None if stats.preemptions > 0 => format!("at most {} tokens recomputed", stats.thrown_away),
        None => "no token recomputed".to_owned(),
    };
    writeln!(
        out,
        "preempted    {} of {} sequences ({rate:.1} %), {} times, {recomputed}",
        stats.preempted, stats.sequences, stats.preemptions
    )?;
    if report.steps.count > 0 {
        let steps = &report.steps;
        let kv = steps.kv_usage.map_or(String::new(), |usage| format!(", KV cache up to {:.0} % full", usage * 100.0));
        writeln!(
            out,
            "steps        {} traced, p50 {}, p99 {}, up to {} running and {} waiting{kv}",
            steps.count,
            nanos(steps.duration.quantile(0.5)),
            nanos(steps.duration.quantile(0.99)),
            steps.running,
            steps.waiting
        )?;
    }
    for (count, what) in [
        (stats.without_request, "journeys without their llm_request"),
        (stats.without_core, "journeys without all their llm_core spans"),
        (report.assembler.evicted, "journeys closed before all their spans were read (raise --max-open)"),
    ] {
        if count > 0 {
            writeln!(out, "note         {count} {what}")?;
        }
    }
    Ok(())
}

fn latencies(report: &Report, out: &mut dyn Write) -> io::Result<()> {
    writeln!(out, "\n{:<20} {:>9} {:>9} {:>9} {:>9} {:>9}", "latency", "count", "p50", "p90", "p99", "max")?;
    for measure in Measure::ALL {
        let of = report.stats.distribution(measure);
        if of.count() == 0 {
            writeln!(out, "{:<20} {:>9}", measure.name(), "-")?;
            continue;
        }
        let [p50, p90, p99] = [0.5, 0.9, 0.99].map(|quantile| nanos(of.quantile(quantile)));
        let max = nanos(of.max());
        writeln!(out, "{:<20} {:>9} {p50:>9} {p90:>9} {p99:>9} {max:>9}", measure.name(), of.count())?;
    }
    Ok(())
}

fn parts(report: &Report, out: &mut dyn Write) -> io::Result<()> {
    let whole = report.stats.parts.iter().fold(0u64, |sum, part| sum.saturating_add(*part));
    writeln!(out, "\nwhere the time went, all journeys together: {}", nanos(whole))?;
    for part in Part::ALL {
        let time = report.stats.parts[part as usize];
        if time > 0 {
            let share = 100.0 * time as f64 / whole as f64;
            writeln!(out, "  {:<10} {:>9} {share:>5.1} %  {}", part.name(), nanos(time), part.meaning())?;
        }
    }
    Ok(())
}

fn slowest(report: &Report, out: &mut dyn Write) -> io::Result<()> {
    let slowest = report.stats.slowest();
    let shown = &slowest[..slowest.len().min(report.options.slowest)];
    writeln!(out, "\nslowest journeys (h handoff, q queue, p prefill, x preempted, d decode, r response, u untraced)")?;
    for journey in shown {
        writeln!(out, "  {:>9}  {}  {}", nanos(journey.e2e()), bar(journey), clean(journey.request_id()))?;
        let parts = journey.parts();
        let told: Vec<String> = Part::ALL
            .iter()
            .filter(|part| parts[**part as usize] > 0)
            .map(|part| format!("{} {}", part.name(), nanos(parts[*part as usize])))
            .collect();
        let preemptions = match journey.preemptions() {
            0 => String::new(),
            times => format!(", preempted {times}x"),
        };
        writeln!(out, "             {}", told.join(" + "))?;
        writeln!(out, "             trace {}  {}{preemptions}", journey.id.trace_id, clean(journey.status()))?;
        if let Some(link) = &report.options.link {
            writeln!(out, "             {}", link.link(journey.id))?;
        }
    }
    Ok(())
}

/// One letter a column; every part that took time has at least one.
fn bar(journey: &Journey) -> String {
    let whole = journey.e2e().max(1);
    let from = journey.time().start;
    let mut bar = vec!['.'; BAR];
    for segment in journey.segments() {
        let column = |at: u64| (u128::from(at - from) * BAR as u128 / u128::from(whole)) as usize;
        let first = column(segment.from).min(BAR - 1);
        for slot in &mut bar[first..column(segment.to).max(first + 1)] {
            *slot = letter(segment.part);
        }
    }
    bar.into_iter().collect()
}

fn letter(part: Part) -> char {
    match part {
        Part::Handoff => 'h',
        Part::Queue => 'q',
        Part::Prefill => 'p',
        Part::Preempted => 'x',
        Part::Decode => 'd',
        Part::Response => 'r',
        Part::Untraced => 'u',
    }
}

fn list(counts: &BTreeMap<Box<str>, u64>) -> String {
    let mut counts: Vec<(&str, u64)> = counts.iter().map(|(name, count)| (&**name, *count)).collect();
    counts.sort_by_key(|(_, count)| std::cmp::Reverse(*count));
    counts.iter().map(|(name, count)| format!("{} {count}", clean(name))).collect::<Vec<_>>().join(", ")
}

/// Names and ids come from outside: a terminal must not take them for commands.
fn clean(text: &str) -> String {
    text.chars().take(120).map(|c| if c.is_control() { '\u{fffd}' } else { c }).collect()
}

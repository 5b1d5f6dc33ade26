//! Findings for people.

use std::collections::HashMap;
use std::io::{self, Write};

use super::rules::Level;
use super::{Finding, Outcome};

/// Distinct messages of one rule, and places of each, that are shown; the rest are counted.
const SHOWN_MESSAGES: usize = 8;
const SHOWN_PLACES: usize = 3;
const SHOWN_PROBLEMS: usize = 20;

pub(super) fn write(outcome: &Outcome, files: &[String], out: &mut dyn Write) -> io::Result<()> {
    for problem in outcome.problems.iter().take(SHOWN_PROBLEMS) {
        writeln!(out, "unreadable  {}: {}", problem.at.describe(files), problem.error)?;
    }
    let shown = outcome.problems.len().min(SHOWN_PROBLEMS) as u64;
    if outcome.problem_count > shown {
        writeln!(out, "unreadable  and {} more", outcome.problem_count - shown)?;
    }
    if outcome.problem_count > 0 {
        writeln!(out)?;
    }
    for (rule, group) in outcome.findings.groups() {
        let info = rule.info();
        writeln!(out, "{}[{}] {}: {}", info.level.as_str(), info.id, info.title, times(group.count))?;
        let (mut shown, messages) = (0, by_message(&group.kept));
        for (message, findings) in messages.iter().take(SHOWN_MESSAGES) {
            let times = if findings.len() > 1 { format!(" ({})", times(findings.len() as u64)) } else { String::new() };
            writeln!(out, "  {message}{times}")?;
            for finding in findings.iter().take(SHOWN_PLACES) {
                place(finding, files, out)?;
            }
            shown += findings.len().min(SHOWN_PLACES) as u64;
        }
        if group.count > shown {
            writeln!(out, "  and {} more (--format json lists them)", group.count - shown)?;
        }
        writeln!(out, "  way out: {}", info.help)?;
        writeln!(out)?;
    }
    summary(outcome, out)
}

fn place(finding: &Finding, files: &[String], out: &mut dyn Write) -> io::Result<()> {
    let request =
        if finding.request_id.is_empty() { String::new() } else { format!("  {}", clean(&finding.request_id)) };
    writeln!(
        out,
        "      trace {}  span {} {}{request}  {}",
        finding.span.trace_id,
        finding.span.span_id,
        clean(&finding.span_name),
        finding.at.describe(files)
    )
}

/// Findings that say the same, together; the most frequent first, then in the order of the input.
fn by_message(findings: &[Finding]) -> Vec<(&str, Vec<&Finding>)> {
    let mut index: HashMap<&str, usize> = HashMap::new();
    let mut groups: Vec<(&str, Vec<&Finding>)> = Vec::new();
    for finding in findings {
        let at = *index.entry(&finding.message).or_insert_with(|| {
            groups.push((&finding.message, Vec::new()));
            groups.len() - 1
        });
        groups[at].1.push(finding);
    }
    groups.sort_by_key(|(_, findings)| std::cmp::Reverse(findings.len()));
    groups
}

fn summary(outcome: &Outcome, out: &mut dyn Write) -> io::Result<()> {
    let steps = if outcome.steps > 0 { format!(", {} scheduler_step", outcome.steps) } else { String::new() };
    let foreign = if outcome.foreign > 0 { format!(", {} of other scopes", outcome.foreign) } else { String::new() };
    writeln!(
        out,
        "{} spans: {} llm_request, {} llm_core{steps}{foreign}",
        outcome.spans, outcome.requests, outcome.cores
    )?;
    let (errors, warnings) = (outcome.findings.count_of(Level::Error), outcome.findings.count_of(Level::Warning));
    let unread =
        if outcome.problem_count > 0 { format!(", {} unreadable", outcome.problem_count) } else { String::new() };
    match (errors, warnings) {
        (0, 0) if outcome.spans == 0 => writeln!(out, "nothing to check{unread}"),
        (0, 0) => writeln!(out, "no findings{unread}"),
        _ => writeln!(out, "{}, {}{unread}", plural(errors, "error"), plural(warnings, "warning")),
    }
}

fn times(count: u64) -> String {
    if count == 1 { "once".to_owned() } else { format!("{count} times") }
}

fn plural(count: u64, noun: &str) -> String {
    if count == 1 { format!("{count} {noun}") } else { format!("{count} {noun}s") }
}

/// Names and ids come from outside: a terminal must not take them for commands, nor a line for two.
fn clean(text: &str) -> String {
    let mut clean: String = text.chars().take(120).map(|c| if c.is_control() { '\u{fffd}' } else { c }).collect();
    if clean.len() < text.len() {
        clean.push('…');
    }
    clean
}

//! What the rules found, bounded: of each rule the first findings in full, of all of them the number.

use std::collections::BTreeMap;

use super::rules::{Level, Rule};
use crate::model::SpanRef;
use crate::read::At;

/// One fault in one span.
#[derive(Clone, Debug)]
pub struct Finding {
    /// The rule it breaks.
    pub rule: Rule,
    /// Where the span stands.
    pub at: At,
    /// The span.
    pub span: SpanRef,
    /// Its name, as it stands on the wire.
    pub span_name: Box<str>,
    /// Its `gen_ai.request.id`, if it has one.
    pub request_id: Box<str>,
    /// What is wrong, in this case.
    pub message: String,
}

impl Finding {
    /// Heap and inline bytes, about.
    pub fn footprint(&self) -> usize {
        size_of::<Self>() + self.span_name.len() + self.request_id.len() + self.message.len()
    }
}

/// Findings of a run.
#[derive(Debug)]
pub struct Findings {
    by_rule: BTreeMap<Rule, Group>,
    limit: usize,
}

/// Findings of one rule.
#[derive(Debug, Default)]
pub struct Group {
    /// The first ones, in the order of the input.
    pub kept: Vec<Finding>,
    /// How many there were.
    pub count: u64,
}

impl Findings {
    /// Keeps up to `limit` findings of each rule in full.
    pub fn new(limit: usize) -> Self {
        Self { by_rule: BTreeMap::new(), limit }
    }

    /// Adds one.
    pub fn add(&mut self, finding: Finding) {
        let group = self.by_rule.entry(finding.rule).or_default();
        group.count += 1;
        if group.kept.len() < self.limit {
            group.kept.push(finding);
        }
    }

    /// All findings, by rule.
    pub fn groups(&self) -> impl Iterator<Item = (Rule, &Group)> {
        self.by_rule.iter().map(|(rule, group)| (*rule, group))
    }

    /// The findings kept, by rule.
    pub fn kept(&self) -> impl Iterator<Item = &Finding> {
        self.by_rule.values().flat_map(|group| &group.kept)
    }

    /// How many there were.
    pub fn count(&self) -> u64 {
        self.by_rule.values().map(|group| group.count).sum()
    }

    /// How many there were of that weight.
    pub fn count_of(&self, level: Level) -> u64 {
        self.groups().filter(|(rule, _)| rule.info().level == level).map(|(_, group)| group.count).sum()
    }

    /// Puts each group into the order of the input.
    pub fn sort(&mut self) {
        for group in self.by_rule.values_mut() {
            group.kept.sort_by_key(|finding| (finding.at, finding.span));
        }
    }
}

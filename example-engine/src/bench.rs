//! `bench`: drives a running server, and reports what its clients feel.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering::Relaxed};
use std::time::{Duration, Instant};

use indicatif::{ProgressBar, ProgressStyle};
use rand::RngExt;
use serde::Serialize;
use serde_json::json;

use crate::config::BenchArgs;
use crate::load::{Client, LoadError, has_text};

/// Token ids of the prompts. Every vocabulary has these; random ones keep the prefix cache out of the measurement.
const TOKEN_IDS: std::ops::Range<u32> = 10..250;

/// What one request felt.
#[derive(Debug)]
struct Felt {
    time_to_first_token: Duration,
    inter_token: Vec<Duration>,
    e2e: Duration,
    tokens: u64,
}

/// What all requests felt.
#[derive(Debug, Serialize)]
pub struct Report {
    /// Requests that were answered.
    pub completed: usize,
    /// Requests that were not.
    pub failed: usize,
    /// From the first request's start to the last one's end, seconds.
    pub seconds: f64,
    /// Requests a second.
    pub requests_per_second: f64,
    /// Output tokens a second, over all requests.
    pub tokens_per_second: f64,
    /// From sending a request to its first text, milliseconds.
    pub time_to_first_token_ms: Percentiles,
    /// Between two texts of one request, milliseconds.
    pub inter_token_latency_ms: Percentiles,
    /// Whole requests, milliseconds.
    pub e2e_latency_ms: Percentiles,
    /// The first failure.
    pub first_error: Option<String>,
}

/// A distribution.
#[derive(Debug, Serialize)]
pub struct Percentiles {
    /// Half are faster.
    pub p50: f64,
    /// Nine of ten are faster.
    pub p90: f64,
    /// 99 of 100 are faster.
    pub p99: f64,
    /// The slowest.
    pub max: f64,
}

/// Sends the requests, `concurrency` at a time.
///
/// # Errors
/// Not one of the requests was answered; the first one's error.
pub async fn run(args: &BenchArgs) -> Result<Report, LoadError> {
    let client = Client::new(&args.url, args.api_key.clone())?;
    let progress = ProgressBar::new(u64::from(args.requests)).with_style(
        ProgressStyle::with_template("{bar:40} {pos}/{len} requests, {per_sec}, {eta} left").expect("a fixed template"),
    );
    let next = Arc::new(AtomicU32::new(0));
    let began = Instant::now();
    let workers: Vec<_> = (0..args.concurrency)
        .map(|_| {
            let (client, next, progress, args) = (client.clone(), next.clone(), progress.clone(), args.clone());
            tokio::spawn(async move {
                let mut felt = Vec::new();
                while next.fetch_add(1, Relaxed) < args.requests {
                    felt.push(feel(&client, &args).await);
                    progress.inc(1);
                }
                felt
            })
        })
        .collect();
    let mut answered = Vec::new();
    let mut errors = Vec::new();
    for worker in workers {
        for result in worker.await.expect("a worker does not panic") {
            match result {
                Ok(felt) => answered.push(felt),
                Err(error) => errors.push(error),
            }
        }
    }
    progress.finish_and_clear();
    let failed = errors.len();
    let first_error = errors.into_iter().next();
    match first_error {
        Some(error) if answered.is_empty() => Err(error),
        first_error => Ok(Report::new(&answered, failed, first_error, began.elapsed())),
    }
}

async fn feel(client: &Client, args: &BenchArgs) -> Result<Felt, LoadError> {
    let prompt: Vec<u32> = {
        let mut rng = rand::rng();
        (0..args.prompt_tokens).map(|_| rng.random_range(TOKEN_IDS)).collect()
    };
    let body = json!({
        "prompt": prompt,
        "max_tokens": args.max_tokens,
        "ignore_eos": true,
        "stream": true,
        "stream_options": { "include_usage": true },
    });
    let sent = Instant::now();
    let mut events = client.stream("/v1/completions", &body).await?;
    let (mut first, mut last) = (None, sent);
    let mut inter_token = Vec::new();
    let mut tokens = 0;
    while let Some(chunk) = events.next().await? {
        tokens = chunk["usage"]["completion_tokens"].as_u64().unwrap_or(tokens);
        if !has_text(&chunk) {
            continue;
        }
        let now = Instant::now();
        match first {
            None => first = Some(now - sent),
            Some(_) => inter_token.push(now - last),
        }
        last = now;
    }
    let e2e = sent.elapsed();
    Ok(Felt { time_to_first_token: first.unwrap_or(e2e), inter_token, e2e, tokens })
}

impl Report {
    fn new(answered: &[Felt], failed: usize, first_error: Option<LoadError>, took: Duration) -> Self {
        let seconds = took.as_secs_f64();
        let tokens: u64 = answered.iter().map(|felt| felt.tokens).sum();
        Self {
            completed: answered.len(),
            failed,
            seconds,
            requests_per_second: answered.len() as f64 / seconds,
            tokens_per_second: tokens as f64 / seconds,
            time_to_first_token_ms: Percentiles::of(answered.iter().map(|felt| felt.time_to_first_token)),
            inter_token_latency_ms: Percentiles::of(answered.iter().flat_map(|felt| felt.inter_token.iter().copied())),
            e2e_latency_ms: Percentiles::of(answered.iter().map(|felt| felt.e2e)),
            first_error: first_error.map(|error| error.to_string()),
        }
    }
}

impl Percentiles {
    fn of(durations: impl Iterator<Item = Duration>) -> Self {
        let mut ms: Vec<f64> = durations.map(|duration| duration.as_secs_f64() * 1e3).collect();
        ms.sort_by(f64::total_cmp);
        // Nearest rank; 0 where there is nothing to measure.
        let at = |share: f64| {
            let rank = (share * ms.len() as f64).ceil() as usize;
            ms.get(rank.max(1) - 1).copied().unwrap_or(0.0)
        };
        Self { p50: at(0.5), p90: at(0.9), p99: at(0.99), max: at(1.0) }
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "requests     {} completed, {} failed in {:.1} s", self.completed, self.failed, self.seconds)?;
        if let Some(error) = &self.first_error {
            writeln!(f, "             first failure: {error}")?;
        }
        writeln!(f, "throughput   {:.1} requests/s, {:.0} tokens/s", self.requests_per_second, self.tokens_per_second)?;
        writeln!(f, "{:<22}{:>10}{:>10}{:>10}{:>10}", "milliseconds", "p50", "p90", "p99", "max")?;
        for (name, of) in [
            ("time to first token", &self.time_to_first_token_ms),
            ("inter-token latency", &self.inter_token_latency_ms),
            ("end to end", &self.e2e_latency_ms),
        ] {
            writeln!(f, "{name:<22}{:>10.2}{:>10.2}{:>10.2}{:>10.2}", of.p50, of.p90, of.p99, of.max)?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percentiles_are_nearest_ranks() {
        let of = Percentiles::of((1..=100).map(Duration::from_millis));
        assert_eq!((of.p50, of.p90, of.p99, of.max), (50.0, 90.0, 99.0, 100.0));
        assert_eq!(Percentiles::of(std::iter::empty()).max, 0.0);
    }
}

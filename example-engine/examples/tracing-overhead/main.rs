//! What tracing costs an engine under full load: `cargo run --release -p example-engine --example tracing-overhead`.
//!
//! Two processes run the demo model, one with every journey sent to an OTLP receiver, one with `OTEL_SDK_DISABLED`. They
//! take turns, one round each, and each round answers the same number of requests. There is no HTTP in front of the
//! engine: what is left is the scheduler and the model, where tracing weighs most.

mod report;
mod worker;

use std::error::Error;
use std::io::{self, BufRead, BufReader, Write};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};

use axum::Router;
use axum::http::header;
use clap::Parser;
use indicatif::ProgressIterator;
use serde::{Deserialize, Serialize};
use tokio::net::TcpListener;

/// Measures what journey tracing costs the engine.
#[derive(Clone, Debug, Parser)]
struct Args {
    /// Rounds of each process.
    #[arg(long, default_value_t = 40, value_parser = clap::value_parser!(u32).range(1..))]
    rounds: u32,
    /// Requests of a round.
    #[arg(long, default_value_t = 96, value_parser = clap::value_parser!(u32).range(1..))]
    requests: u32,
    /// Requests at a time. Half of them wait, so that every batch is full.
    #[arg(long, default_value_t = 32, value_parser = clap::value_parser!(u32).range(2..))]
    concurrency: u32,
    /// Tokens of each answer.
    #[arg(long, default_value_t = 64, value_parser = clap::value_parser!(u32).range(1..))]
    max_tokens: u32,
    /// Runs rounds for another process: one for each line of standard input.
    #[arg(long, hide = true)]
    worker: bool,
}

/// What a worker says of one round.
#[derive(Debug, Serialize, Deserialize)]
struct Round {
    tokens: u64,
    seconds: f64,
    /// CPU time of the whole process, the export thread's included.
    cpu_seconds: f64,
    /// From one step of the scheduler to the next.
    step_seconds: Vec<f64>,
    /// Of the ledger, since the process began.
    spans_started: u64,
    spans_exported: u64,
}

fn main() -> Result<(), Box<dyn Error>> {
    let args = Args::parse();
    match args.worker {
        true => worker::run(&args),
        false => compare(&args),
    }
}

fn compare(args: &Args) -> Result<(), Box<dyn Error>> {
    let receiver = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build()?;
    let listener = receiver.block_on(TcpListener::bind(("127.0.0.1", 0)))?;
    let endpoint = format!("http://{}", listener.local_addr()?);
    let accept = Router::new().fallback(|| async { [(header::CONTENT_TYPE, "application/x-protobuf")] });
    receiver.spawn(async move { axum::serve(listener, accept).await });

    let mut traced = Worker::start(args, &endpoint, false)?;
    let mut plain = Worker::start(args, &endpoint, true)?;
    // The first round fills caches and the allocator.
    traced.round()?;
    plain.round()?;
    let mut rounds = Vec::new();
    for at in (0..args.rounds).progress() {
        // Whoever goes first has the cooler machine.
        let pair = if at % 2 == 0 {
            let with = traced.round()?;
            (with, plain.round()?)
        } else {
            let without = plain.round()?;
            (traced.round()?, without)
        };
        rounds.push(pair);
    }
    let text = report::report(args, &rounds)?;
    io::stdout().write_all(text.as_bytes())?;
    traced.end()?;
    plain.end()
}

struct Worker {
    process: Child,
    requests: ChildStdin,
    answers: BufReader<ChildStdout>,
}

impl Worker {
    fn start(args: &Args, endpoint: &str, disabled: bool) -> Result<Self, Box<dyn Error>> {
        let mut process = Command::new(std::env::current_exe()?)
            .arg("--worker")
            .args(["--requests", &args.requests.to_string()])
            .args(["--concurrency", &args.concurrency.to_string()])
            .args(["--max-tokens", &args.max_tokens.to_string()])
            .env("OTEL_EXPORTER_OTLP_ENDPOINT", endpoint)
            .env("OTEL_EXPORTER_OTLP_PROTOCOL", "http/protobuf")
            .env("OTEL_SDK_DISABLED", disabled.to_string())
            .env("RUST_LOG", "warn")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()?;
        let requests = process.stdin.take().expect("it is piped");
        let answers = BufReader::new(process.stdout.take().expect("it is piped"));
        Ok(Self { process, requests, answers })
    }

    fn round(&mut self) -> Result<Round, Box<dyn Error>> {
        self.requests.write_all(b"\n")?;
        let mut line = String::new();
        if self.answers.read_line(&mut line)? == 0 {
            return Err("a worker ended in the middle of the measurement; its last words are above".into());
        }
        Ok(serde_json::from_str(&line)?)
    }

    fn end(self) -> Result<(), Box<dyn Error>> {
        let Self { mut process, requests, .. } = self;
        drop(requests);
        match process.wait()? {
            status if status.success() => Ok(()),
            status => Err(format!("a worker failed: {status}").into()),
        }
    }
}

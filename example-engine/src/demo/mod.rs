//! `demo`: a server of its own, a mixed load over real HTTP, and what journey tracing shows of it.

mod load_mix;
mod report;
mod view;

use std::collections::BTreeMap;
use std::error::Error;
use std::io::{self, Write};
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use futures_util::stream::{self, StreamExt};
use indicatif::{ProgressBar, ProgressStyle};
use journey_layer::{Exporter, JourneyStats};

use crate::api::{ApiConfig, ApiState, Backend, Limits};
use crate::commands::{FLUSH, shut_down};
use crate::config::{BODY_TIMEOUT, DemoArgs, EngineArgs, HEADER_TIMEOUT, WRITE_TIMEOUT};
use crate::load::Client;
use crate::server::Server;
use crate::startup::Front;
use crate::telemetry::{DoTracing, Options, Telemetry, recorded};
use load_mix::{Outcome, Shapes, plan};
use report::Journeys;
use view::View;

/// Full-length sequences that the demo's KV cache holds: fewer than run at once, so that some are preempted.
const SEQUENCES_IN_CACHE: usize = 2;
const BLOCK_SIZE: usize = 8;
const MAX_NUM_SEQS: usize = 8;
const MAX_NUM_BATCHED_TOKENS: usize = 48;

/// Runs the demo. The exit code is 0 only if every request ended as planned, the ledger balances, nothing was dropped, and
/// each exported trace is whole.
///
/// # Errors
/// Something does not start.
pub async fn run(args: &DemoArgs) -> Result<ExitCode, Box<dyn Error>> {
    let view = if args.view { Some(View::open().await?) } else { None };
    let memory = Exporter::memory();
    let telemetry = Telemetry::start(Options {
        file: args.telemetry.journeys.as_deref(),
        console: !args.quiet,
        memory: Some(memory.clone()),
        receiver: view.as_ref().map(|view| view.receiver.clone()),
        sample_rate: None,
        step_sample_rate: args.engine.step_tracing_sample_rate,
    })?;
    let front = Front::load(&args.engine, None)?;
    let core = front.start_core(&small(&args.engine, front.card.max_model_len))?;
    let shapes = Shapes::new(&front.tokenizer, front.card.max_model_len);
    let state = ApiState::new(ApiConfig {
        backend: Backend::InProcess(core.clone()),
        tokenizer: front.tokenizer,
        template: front.template,
        model: front.card,
        limits: Limits {
            max_body_bytes: 1 << 20,
            // A client that has gone keeps its place until the server sees that; its successor may come before.
            max_waiting_requests: 2 * args.concurrency as usize,
            header_timeout: HEADER_TIMEOUT,
            body_timeout: BODY_TIMEOUT,
            write_timeout: WRITE_TIMEOUT,
            request_timeout: Duration::from_secs(120),
        },
        api_key: None,
        ledger: Some(telemetry.ledger()),
        do_tracing: args.replay_do_tracing.then(|| telemetry.do_tracing()),
    });
    let server = Server::bind("127.0.0.1", 0, state.clone()).await?;
    let client = Client::new(&format!("http://{}", server.address()), None)?;
    let serving = tokio::spawn(server.run(Duration::from_secs(10)));

    let (outcomes, mut failures) = send(args, &shapes, client).await;
    state.lifecycle.drain();
    serving.await?;
    shut_down(core, Duration::ZERO).await;
    let delivered = telemetry.shutdown(FLUSH);
    let stats = telemetry.stats();

    let spans = recorded(&memory);
    let journeys = Journeys::new(&spans);
    failures.extend(delivered.err().map(|error| error.to_string()));
    failures.extend(journeys.faults());
    failures.extend(unaccounted(&stats, args.replay_do_tracing));
    show(args, &outcomes, &journeys, &stats, &failures)?;
    if let Some(view) = view {
        writeln!(io::stdout(), "the journeys are shown on {} until Ctrl-C", view.page)?;
        tokio::signal::ctrl_c().await?;
    }
    Ok(if failures.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// Sends the load; how often each outcome came, and what came out otherwise than planned.
async fn send(args: &DemoArgs, shapes: &Shapes, client: Client) -> (BTreeMap<Outcome, usize>, Vec<String>) {
    let planned = plan(args.requests, shapes);
    let style = ProgressStyle::with_template("{bar:40} {pos}/{len} requests {msg}").expect("a fixed template");
    let progress = ProgressBar::new(planned.len() as u64).with_style(style);
    let (mut outcomes, mut failures) = (BTreeMap::new(), Vec::new());
    let client = Arc::new(client);
    let mut results = stream::iter(planned.into_iter().enumerate())
        .map(|(at, request)| {
            let client = client.clone();
            async move { (at, request.run(&client).await) }
        })
        .buffer_unordered(args.concurrency as usize);
    while let Some((at, result)) = results.next().await {
        progress.inc(1);
        match result {
            Ok(outcome) => *outcomes.entry(outcome).or_default() += 1,
            Err(error) => failures.push(format!("request {at}: {error}")),
        }
    }
    progress.finish_and_clear();
    (outcomes, failures)
}

/// The engine's flags, with a KV cache and a budget that are small enough for something to happen.
fn small(args: &EngineArgs, max_model_len: usize) -> EngineArgs {
    let mut args = args.clone();
    let block_size = *args.block_size.get_or_insert(BLOCK_SIZE);
    args.num_blocks.get_or_insert((SEQUENCES_IN_CACHE * max_model_len).div_ceil(block_size));
    args.max_num_seqs.get_or_insert(MAX_NUM_SEQS);
    args.max_num_batched_tokens.get_or_insert(MAX_NUM_BATCHED_TOKENS);
    args
}

/// What of the ledger may not be.
fn unaccounted(stats: &JourneyStats, replayed: bool) -> Vec<String> {
    let mut faults = Vec::new();
    if !stats.balances() {
        faults.push("the ledger does not balance".to_owned());
    }
    let lost = stats.spans.dropped() + stats.events.dropped();
    if lost > 0 || stats.spans.live > 0 {
        faults.push(format!("{lost} spans and events were dropped, {} spans are live", stats.spans.live));
    }
    let rejected = stats.spans.rejected();
    if replayed != (rejected > 0) || !rejected.is_multiple_of(DoTracing::PER_REQUEST) {
        faults.push(format!("{rejected} spans were rejected"));
    }
    faults
}

fn show(
    args: &DemoArgs,
    outcomes: &BTreeMap<Outcome, usize>,
    journeys: &Journeys<'_>,
    stats: &JourneyStats,
    failures: &[String],
) -> io::Result<()> {
    let mut out = io::stdout().lock();
    let count = |outcome| outcomes.get(&outcome).copied().unwrap_or(0);
    let (answered, cancelled, refused) = (count(Outcome::Answered), count(Outcome::Cancelled), count(Outcome::Refused));
    writeln!(out, "\n{}", journeys.waterfall())?;
    writeln!(out, "requests: {answered} answered, {cancelled} cancelled by their clients, {refused} refused")?;
    let seen: Vec<_> = journeys.seen().into_iter().map(|(what, times)| format!("{what} {times}")).collect();
    writeln!(out, "seen: {}", seen.join(", "))?;
    if args.replay_do_tracing {
        writeln!(out, "do_tracing() replayed: {} duplicate spans refused:", stats.spans.rejected())?;
        for (reason, times) in &stats.spans.rejected {
            writeln!(out, "  {reason}: {times}")?;
        }
    }
    write!(out, "ledger\n{stats}")?;
    match failures {
        [] => writeln!(out, "every span is accounted for, and every trace is whole"),
        failures => failures.iter().try_for_each(|failure| writeln!(out, "FAILED: {failure}")),
    }
}

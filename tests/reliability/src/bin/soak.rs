//! Full load for a long time: memory stays flat, and the ledger balances to the span.
//!
//! `cargo run --release -p journey-reliability --bin soak -- --seconds 600`

use std::error::Error;
use std::io::{self, Write};
use std::pin::pin;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::task::{Context, Waker};
use std::time::{Duration, Instant};

use clap::{Parser, ValueEnum};
use journey_layer::{InJourney, Journey, Protocol, macros::*};
use journey_reliability::receiver::Receiver;
use journey_reliability::work::{builder, journey, traced};
use journey_reliability::{cpu_time, resident_bytes};

#[derive(Parser)]
struct Args {
    /// How long.
    #[arg(long, default_value_t = 600)]
    seconds: u64,
    /// Threads that make journeys, each as fast as it can.
    #[arg(long, default_value_t = 2)]
    threads: u64,
    /// Spans that may wait for the exporter before a thread waits for it: the engine's own bound on requests.
    #[arg(long, default_value_t = 10_000)]
    max_live: u64,
    #[arg(long, value_enum, default_value_t = Speaks::Http)]
    protocol: Speaks,
}

#[derive(Clone, Copy, ValueEnum)]
enum Speaks {
    Http,
    Grpc,
}

/// Samples of memory in a run; the first quarter is for warming up.
const SAMPLES: u32 = 20;
/// What memory may grow after that: the allocator's unrest, and not a leak of a byte a journey.
const MAX_GROWTH: u64 = 8 << 20;

fn main() -> Result<(), Box<dyn Error>> {
    let args = Args::parse();
    let receiver = Receiver::counting(match args.protocol {
        Speaks::Http => Protocol::HttpProtobuf,
        Speaks::Grpc => Protocol::Grpc,
    });
    let pipeline = builder().exporter(receiver.exporter()).build()?;
    let (stop, made) = (AtomicBool::new(false), AtomicU64::new(0));
    let mut out = io::stdout().lock();
    let time = Duration::from_secs(args.seconds);
    let start = Instant::now();
    let (mut warm, mut most) = (0, 0);
    let mut before = (Duration::ZERO, Duration::ZERO, 0);
    std::thread::scope(|scope| -> io::Result<()> {
        for thread in 0..args.threads {
            let (pipeline, stop, made) = (&pipeline, &stop, &made);
            scope.spawn(move || traced(pipeline, || work(thread, args.max_live, pipeline, stop, made)));
        }
        for sample in 1..=SAMPLES {
            std::thread::sleep((time * sample / SAMPLES).saturating_sub(start.elapsed()));
            let (resident, stats) = (resident_bytes(), pipeline.stats());
            if sample * 4 == SAMPLES {
                warm = resident;
            }
            most = most.max(if warm > 0 { resident } else { 0 });
            // Since the last sample: other load on the machine shows in the first figure, something that grows in both.
            let now = (start.elapsed(), cpu_time(), made.load(Relaxed));
            let journeys = (now.2 - before.2) as f64;
            let rate = journeys / (now.0 - before.0).as_secs_f64();
            let cost = (now.1 - before.1).as_secs_f64() * 1e6 / journeys;
            before = now;
            let (seconds, mib, live) = (now.0.as_secs_f64(), resident as f64 / f64::from(1 << 20), stats.spans.live);
            writeln!(
                out,
                "{seconds:6.1} s  {rate:9.0} journeys/s  {cost:6.1} us of CPU each  {mib:7.1} MiB  {live:6} spans live"
            )?;
        }
        stop.store(true, Relaxed);
        Ok(())
    })?;
    pipeline.flush(Duration::from_secs(60))?;
    let (stats, tally) = (pipeline.stats(), receiver.tally());
    let grown = most.saturating_sub(warm);
    write!(out, "{stats}")?;
    writeln!(out, "arrived: {} spans, {} events in {} requests", tally.spans(), tally.events(), tally.requests())?;
    writeln!(out, "memory after warming up: {} MiB, at most {} KiB more", warm >> 20, grown >> 10)?;
    if !stats.balances() || stats.spans.live > 0 {
        return Err("the ledger does not balance".into());
    }
    if (tally.spans(), tally.events(), stats.spans.dropped()) != (stats.spans.exported, stats.events.exported, 0) {
        return Err("what arrived is not what was exported".into());
    }
    if tally.torn() > 0 {
        return Err(format!("{} spans without a terminal event", tally.torn()).into());
    }
    if grown > MAX_GROWTH {
        return Err(format!("memory grew by {grown} bytes").into());
    }
    Ok(())
}

/// Journeys of every kind: most go through, some are cancelled, dropped in the middle, or opened twice.
fn work(thread: u64, max_live: u64, pipeline: &Journey, stop: &AtomicBool, made: &AtomicU64) {
    for n in 0_u64.. {
        if n % 64 == 0 {
            while pipeline.stats().spans.live > max_live && !stop.load(Relaxed) {
                std::thread::sleep(Duration::from_millis(1));
            }
            if stop.load(Relaxed) {
                return;
            }
        }
        let id = format!("cmpl-{thread}-{n}");
        match n % 100 {
            7 => cancelled(&id),
            23 => {
                let span = journey_span!(scope = "vllm.api", request_id = %id);
                journey_event!(&span, ARRIVED);
                drop(journey_span!(scope = "vllm.api", request_id = %id));
            }
            _ => journey(&id),
        }
        made.fetch_add(1, Relaxed);
    }
}

fn cancelled(id: &str) {
    let span = journey_span!(scope = "vllm.api", request_id = %id);
    let mut handler = pin!(std::future::pending::<()>().in_journey(span));
    let _ = handler.as_mut().poll(&mut Context::from_waker(Waker::noop()));
}

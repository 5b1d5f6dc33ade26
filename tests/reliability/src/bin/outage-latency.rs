//! What a dead collector costs requests: latencies of a server whose journeys arrive, beside those of servers whose
//! collector is not there, in turns under the same load.
//!
//! `cargo run --release -p journey-reliability --bin outage-latency`, some twelve minutes on a machine that does nothing
//! else.

use std::error::Error;
use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::num::NonZeroU32;
use std::time::{Duration, Instant};

use axum::Router;
use axum::routing::get;
use clap::Parser;
use journey_layer::{Builder, Journey, Protocol};
use journey_reliability::receiver::{Receiver, exporter, nobody};
use journey_reliability::work::{builder, journey};
use rand::RngExt;
use rand::seq::SliceRandom;
use tokio::net::TcpListener;
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;

#[derive(Parser)]
struct Args {
    /// Times that all servers are started anew: what one of them has been lucky with lasts as long as it does.
    #[arg(long, default_value = "20")]
    starts: NonZeroU32,
    /// Rounds of each, in which every server has a turn; a tenth more warms up.
    #[arg(long, default_value = "30")]
    rounds: NonZeroU32,
    /// Milliseconds of a turn: short, so that what else happens on the machine happens to all of them.
    #[arg(long, default_value = "250")]
    turn_ms: NonZeroU32,
    /// Requests a second.
    #[arg(long, default_value = "1000")]
    rate: NonZeroU32,
}

const NAMES: [&str; 4] = ["alive", "alive, again", "dead, queue grows", "dead, queue full"];

struct Server {
    pipeline: Journey,
    connection: TcpStream,
    /// Nanoseconds.
    latencies: Vec<u64>,
}

impl Server {
    fn start(pipeline: Builder) -> Result<Self, Box<dyn Error>> {
        let pipeline = pipeline.build()?;
        let connection = TcpStream::connect(serve(pipeline.clone())?)?;
        connection.set_nodelay(true)?;
        Ok(Self { pipeline, connection, latencies: Vec::new() })
    }
}

fn main() -> Result<(), Box<dyn Error>> {
    let args = Args::parse();
    // Of each start, of each server.
    let mut latencies = Vec::new();
    for _ in 0..args.starts.get() {
        latencies.push(measure(&args)?);
    }
    report(&latencies)?;
    Ok(())
}

fn measure(args: &Args) -> Result<[Vec<u64>; NAMES.len()], Box<dyn Error>> {
    let receiver = Receiver::counting(Protocol::HttpProtobuf);
    let alive = || builder().exporter(receiver.exporter());
    let dead = || builder().exporter(exporter(Protocol::HttpProtobuf, nobody()));
    // Two are the same: what they differ by is noise.
    let mut servers = [
        Server::start(alive())?,
        Server::start(alive())?,
        Server::start(dead())?,
        Server::start(dead().max_queue_bytes(1 << 19))?,
    ];
    let warm_up = args.rounds.get().div_ceil(10);
    for round in 0..warm_up + args.rounds.get() {
        // What one has begun may go on in the next one's turn.
        let mut order = [0, 1, 2, 3];
        order.shuffle(&mut rand::rng());
        for at in order {
            let latencies = turn(&mut servers[at].connection, args)?;
            if round >= warm_up {
                servers[at].latencies.extend(latencies);
            }
        }
    }
    let [alive, again, grows, full] = servers.each_ref().map(|server| server.pipeline.stats().spans);
    let are_alive = alive.exported > 0 && again.exported > 0;
    if !are_alive || grows.live < grows.started || full.dropped() * 2 < full.started {
        return Err("the queues were not what their names say for most of the time: give it more --rounds".into());
    }
    Ok(servers.map(|server| {
        // What the dead ones cannot deliver is no error of this measurement.
        let _ = server.pipeline.shutdown(Duration::from_millis(100));
        server.latencies
    }))
}

/// Times that starts are drawn for the intervals.
const DRAWS: usize = 1000;
const QUANTILES: [(&str, f64); 2] = [("p50", 0.5), ("p99", 0.99)];

/// Quantiles, and how much larger they are than the first server's, with an interval: the middle 95 % of what they are for
/// as many starts, drawn from these with replacement.
fn report(latencies: &[[Vec<u64>; NAMES.len()]]) -> io::Result<()> {
    let quantile = |starts: &[usize], server: usize, quantile: f64| {
        let mut all: Vec<u64> = starts.iter().flat_map(|start| &latencies[*start][server]).copied().collect();
        let at = (all.len() as f64 * quantile) as usize;
        *all.select_nth_unstable(at).1 as f64
    };
    let starts: Vec<usize> = (0..latencies.len()).collect();
    let draws: Vec<Vec<usize>> =
        (0..DRAWS).map(|_| starts.iter().map(|_| rand::rng().random_range(0..starts.len())).collect()).collect();
    let mut out = io::stdout().lock();
    for (name, q) in QUANTILES {
        let alive: Vec<f64> = draws.iter().map(|drawn| quantile(drawn, 0, q)).collect();
        for (server, server_name) in NAMES.iter().enumerate() {
            let percent = |this: f64, alive: f64| 100.0 * (this / alive - 1.0);
            let this = quantile(&starts, server, q);
            let against = percent(this, quantile(&starts, 0, q));
            let mut drawn: Vec<f64> =
                draws.iter().zip(&alive).map(|(drawn, alive)| percent(quantile(drawn, server, q), *alive)).collect();
            drawn.sort_unstable_by(f64::total_cmp);
            let (low, high) = (drawn[DRAWS / 40], drawn[DRAWS - 1 - DRAWS / 40]);
            writeln!(
                out,
                "{name} {server_name:<18} {:8.1} us {against:+6.1} % ({low:+.1} to {high:+.1} %)",
                this / 1e3
            )?;
        }
    }
    let requests: usize = latencies.iter().map(|servers| servers[0].len()).sum();
    writeln!(out, "{requests} requests to each server, {} starts", latencies.len())
}

/// A server on a thread of its own, with the journey's layer.
fn serve(pipeline: Journey) -> io::Result<SocketAddr> {
    let listener = std::net::TcpListener::bind("127.0.0.1:0")?;
    listener.set_nonblocking(true)?;
    let address = listener.local_addr()?;
    std::thread::spawn(move || {
        let _default = tracing_subscriber::registry().with(pipeline.layer()).set_default();
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
        runtime.block_on(async {
            let listener = TcpListener::from_std(listener).expect("a listener that does not block");
            let router = Router::new().route("/", get(answer));
            axum::serve(listener, router).await.expect("a server that runs");
        });
    });
    Ok(address)
}

const TEXT: &str = "Once upon a time";

async fn answer() -> &'static str {
    journey(&format!("cmpl-{:016x}", rand::random::<u64>()));
    TEXT
}

/// Within this time a sleeping thread may be late.
const EARLY: Duration = Duration::from_micros(150);

/// Requests at their times, whether the server keeps up or not; a latency counts from when the request was due.
fn turn(connection: &mut TcpStream, args: &Args) -> io::Result<Vec<u64>> {
    let mut latencies = Vec::new();
    let between = Duration::from_secs(1) / args.rate.get();
    let start = Instant::now();
    let mut due = start;
    while due < start + Duration::from_millis(args.turn_ms.get().into()) {
        due += between;
        std::thread::sleep(due.saturating_duration_since(Instant::now() + EARLY));
        while Instant::now() < due {
            std::hint::spin_loop();
        }
        ask(connection)?;
        latencies.push(due.elapsed().as_nanos() as u64);
    }
    Ok(latencies)
}

fn ask(connection: &mut TcpStream) -> io::Result<()> {
    connection.write_all(b"GET / HTTP/1.1\r\nhost: here\r\n\r\n")?;
    let (mut buffer, mut read) = ([0; 4096], 0);
    while !buffer[..read].ends_with(TEXT.as_bytes()) {
        match connection.read(&mut buffer[read..])? {
            0 => return Err(io::ErrorKind::UnexpectedEof.into()),
            some => read += some,
        }
    }
    Ok(())
}

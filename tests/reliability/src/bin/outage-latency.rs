//! What a dead collector costs requests: latencies of a server whose journeys arrive, beside one whose collector is not
//! there, in turns.
//!
//! `cargo run --release -p journey-reliability --bin outage-latency -- --rounds 20`

use std::error::Error;
use std::io::{self, Write};
use std::net::SocketAddr;
use std::time::Duration;

use axum::Router;
use axum::routing::get;
use clap::Parser;
use hdrhistogram::Histogram;
use journey_layer::{Journey, Protocol};
use journey_reliability::receiver::{Receiver, exporter, nobody};
use journey_reliability::work::{builder, journey};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::time::{Instant, sleep_until};
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;

#[derive(Parser)]
struct Args {
    /// Turns of each server.
    #[arg(long, default_value_t = 10)]
    rounds: usize,
    /// Seconds of a turn.
    #[arg(long, default_value_t = 3)]
    seconds: u64,
    /// Requests a second.
    #[arg(long, default_value_t = 1_000)]
    rate: u64,
    /// Connections, each with one request at a time.
    #[arg(long, default_value_t = 16)]
    connections: u64,
}

fn main() -> Result<(), Box<dyn Error>> {
    let args = Args::parse();
    let receiver = Receiver::counting(Protocol::HttpProtobuf);
    let alive = builder().exporter(receiver.exporter()).build()?;
    let dead = builder().exporter(exporter(Protocol::HttpProtobuf, nobody())).build()?;
    let servers = [("alive", serve(alive.clone())?), ("dead", serve(dead.clone())?)];
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let mut latencies = [histogram(), histogram()];
    let mut rounds: [Vec<u64>; 2] = Default::default();
    let mut out = io::stdout().lock();
    for round in 0..=args.rounds {
        for (at, (_, address)) in servers.iter().enumerate() {
            let one = runtime.block_on(load(*address, &args))?;
            // The first round warms up.
            if round > 0 {
                rounds[at].push(one.value_at_quantile(0.99));
                latencies[at].add(one)?;
            }
        }
    }
    for (at, (name, _)) in servers.iter().enumerate() {
        let [p50, p99, p999] = [0.5, 0.99, 0.999].map(|q| latencies[at].value_at_quantile(q));
        rounds[at].sort_unstable();
        let (low, middle, high) = (rounds[at][0], rounds[at][args.rounds / 2], rounds[at][args.rounds - 1]);
        writeln!(
            out,
            "{name:>5}: {} requests, p50 {p50} us, p99 {p99} us, p99.9 {p999} us; p99 of a turn {low}..{high}, middle {middle} us",
            latencies[at].len()
        )?;
    }
    let ratio = |of: [u64; 2]| 100.0 * (of[1] as f64 / of[0] as f64 - 1.0);
    let all = ratio([0, 1].map(|at| latencies[at].value_at_quantile(0.99)));
    let middle = ratio([0, 1].map(|at| rounds[at][args.rounds / 2]));
    writeln!(
        out,
        "p99 with the collector dead: {all:+.1} % over all requests, {middle:+.1} % between the middle turns"
    )?;
    write!(out, "alive {}dead  {}", alive.stats(), dead.stats())?;
    for journey in [alive, dead] {
        // What the dead one cannot deliver is no error of this measurement.
        let _ = journey.shutdown(Duration::from_secs(1));
    }
    Ok(())
}

fn histogram() -> Histogram<u64> {
    Histogram::new_with_bounds(1, 60_000_000, 3).expect("bounds that fit")
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

/// Requests at their times, whether the server keeps up or not; a latency counts from when the request was due.
async fn load(address: SocketAddr, args: &Args) -> io::Result<Histogram<u64>> {
    let start = Instant::now();
    let per_connection = args.seconds * args.rate / args.connections;
    let tasks = (0..args.connections).map(|connection| {
        let (rate, connections) = (args.rate, args.connections);
        let task = async move {
            let mut stream = TcpStream::connect(address).await?;
            stream.set_nodelay(true)?;
            let mut latencies = histogram();
            let mut buffer = vec![0; 4096];
            for n in 0..per_connection {
                let due = start + Duration::from_nanos(1_000_000_000 * (n * connections + connection) / rate);
                sleep_until(due).await;
                stream.write_all(b"GET / HTTP/1.1\r\nhost: here\r\n\r\n").await?;
                let mut read = 0;
                while !buffer[..read].ends_with(TEXT.as_bytes()) {
                    match stream.read(&mut buffer[read..]).await? {
                        0 => return Err(io::Error::from(io::ErrorKind::UnexpectedEof)),
                        some => read += some,
                    }
                }
                latencies.saturating_record(due.elapsed().as_micros() as u64);
            }
            Ok(latencies)
        };
        tokio::spawn(task)
    });
    let tasks: Vec<_> = tasks.collect();
    let mut all = histogram();
    for task in tasks {
        all.add(task.await.map_err(io::Error::other)??).map_err(io::Error::other)?;
    }
    Ok(all)
}

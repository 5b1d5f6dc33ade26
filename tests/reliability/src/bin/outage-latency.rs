//! What a dead collector costs requests: latencies of a server whose journeys arrive, beside one whose collector is not
//! there, in turns.
//!
//! `cargo run --release -p journey-reliability --bin outage-latency`

use std::error::Error;
use std::io::{self, Write};
use std::net::SocketAddr;
use std::num::NonZeroUsize;
use std::time::Duration;

use axum::Router;
use axum::routing::get;
use clap::Parser;
use hdrhistogram::Histogram;
use journey_layer::{Builder, Journey, Protocol};
use journey_reliability::receiver::{Receiver, exporter, nobody};
use journey_reliability::work::{builder, journey};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::time::{Instant, sleep_until};
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;

#[derive(Parser)]
struct Args {
    /// Turns of each server; the first tenth warms up.
    #[arg(long, default_value = "300")]
    rounds: NonZeroUsize,
    /// Milliseconds of a turn: short, so that what else happens on the machine happens to all of them.
    #[arg(long, default_value_t = 250)]
    turn_ms: u64,
    /// Requests a second.
    #[arg(long, default_value_t = 1_000)]
    rate: u64,
    /// Connections to each server, each with one request at a time.
    #[arg(long, default_value = "16")]
    connections: NonZeroUsize,
}

struct Server {
    name: &'static str,
    pipeline: Journey,
    connections: Vec<TcpStream>,
    latencies: Histogram<u64>,
    /// 99th percentile of each turn.
    turns: Vec<u64>,
}

impl Server {
    async fn start(name: &'static str, pipeline: Builder, connections: usize) -> Result<Self, Box<dyn Error>> {
        let pipeline = pipeline.build()?;
        let address = serve(pipeline.clone())?;
        let mut open = Vec::new();
        for _ in 0..connections {
            let stream = TcpStream::connect(address).await?;
            stream.set_nodelay(true)?;
            open.push(stream);
        }
        Ok(Self { name, pipeline, connections: open, latencies: histogram(), turns: Vec::new() })
    }

    /// The median over all requests, the 99th percentile of the middle turn, and that of all requests: a machine that
    /// stalls now and then spoils a few turns, and with them the last figure alone.
    fn figures(&self) -> [u64; 3] {
        let mut turns = self.turns.clone();
        turns.sort_unstable();
        [self.latencies.value_at_quantile(0.5), turns[turns.len() / 2], self.latencies.value_at_quantile(0.99)]
    }
}

fn main() -> Result<(), Box<dyn Error>> {
    let receiver = Receiver::counting(Protocol::HttpProtobuf);
    tokio::runtime::Builder::new_current_thread().enable_all().build()?.block_on(measure(&Args::parse(), &receiver))
}

async fn measure(args: &Args, receiver: &Receiver) -> Result<(), Box<dyn Error>> {
    let alive = || builder().exporter(receiver.exporter());
    let dead = || builder().exporter(exporter(Protocol::HttpProtobuf, nobody()));
    let pipelines = [
        ("alive", alive()),
        // The same: what they differ by is noise.
        ("alive, again", alive()),
        ("dead", dead()),
        ("dead, its queue full", dead().max_queue_bytes(1 << 20)),
    ];
    let mut servers = Vec::new();
    for (name, pipeline) in pipelines {
        servers.push(Server::start(name, pipeline, args.connections.get()).await?);
    }
    let rounds = args.rounds.get();
    for round in 0..rounds {
        for server in &mut servers {
            let latencies = turn(&mut server.connections, args).await?;
            if round * 10 >= rounds {
                server.turns.push(latencies.value_at_quantile(0.99));
                server.latencies.add(latencies)?;
            }
        }
    }
    let mut out = io::stdout().lock();
    let alive = servers[0].figures();
    for server in &servers {
        let [p50, middle, p99] = server.figures();
        let against = |at: usize| 100.0 * (server.figures()[at] as f64 / alive[at] as f64 - 1.0);
        writeln!(
            out,
            "{:>20}: {} requests, p50 {p50} us ({:+.1} %), p99 of the middle turn {middle} us ({:+.1} %), of all {p99} us ({:+.1} %)",
            server.name,
            server.latencies.len(),
            against(0),
            against(1),
            against(2),
        )?;
    }
    for server in servers {
        write!(out, "{}: {}", server.name, server.pipeline.stats())?;
        // What the dead one cannot deliver is no error of this measurement.
        let _ = server.pipeline.shutdown(Duration::from_secs(1));
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
async fn turn(connections: &mut Vec<TcpStream>, args: &Args) -> Result<Histogram<u64>, Box<dyn Error>> {
    let (rate, lanes) = (args.rate, connections.len() as u64);
    let per_connection = args.turn_ms * rate / 1000 / lanes;
    let start = Instant::now();
    let tasks: Vec<_> = connections
        .drain(..)
        .zip(0..)
        .map(|(mut stream, lane)| {
            tokio::spawn(async move {
                let mut latencies = histogram();
                for n in 0..per_connection {
                    let due = start + Duration::from_nanos(1_000_000_000 * (n * lanes + lane) / rate);
                    sleep_until(due).await;
                    ask(&mut stream).await?;
                    latencies.saturating_record(due.elapsed().as_micros() as u64);
                }
                io::Result::Ok((stream, latencies))
            })
        })
        .collect();
    let mut all = histogram();
    for task in tasks {
        let (stream, latencies) = task.await??;
        connections.push(stream);
        all.add(latencies)?;
    }
    Ok(all)
}

async fn ask(stream: &mut TcpStream) -> io::Result<()> {
    stream.write_all(b"GET / HTTP/1.1\r\nhost: here\r\n\r\n").await?;
    let (mut buffer, mut read) = ([0; 4096], 0);
    while !buffer[..read].ends_with(TEXT.as_bytes()) {
        match stream.read(&mut buffer[read..]).await? {
            0 => return Err(io::ErrorKind::UnexpectedEof.into()),
            some => read += some,
        }
    }
    Ok(())
}

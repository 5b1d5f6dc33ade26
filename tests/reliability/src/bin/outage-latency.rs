//! What a dead collector costs requests: latencies of a server whose journeys arrive, beside one whose collector is not
//! there, in turns.
//!
//! `cargo run --release -p journey-reliability --bin outage-latency`

use std::error::Error;
use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::num::{NonZeroU32, NonZeroUsize};
use std::time::{Duration, Instant};

use axum::Router;
use axum::routing::get;
use clap::Parser;
use hdrhistogram::Histogram;
use journey_layer::{Builder, Journey, Protocol};
use journey_reliability::receiver::{Receiver, exporter, nobody};
use journey_reliability::work::{builder, journey};
use rand::seq::SliceRandom;
use tokio::net::TcpListener;
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
    #[arg(long, default_value = "1000")]
    rate: NonZeroU32,
}

struct Server {
    name: &'static str,
    pipeline: Journey,
    connection: TcpStream,
    /// Nanoseconds.
    latencies: Histogram<u64>,
    /// 99th percentile of each turn.
    turns: Vec<u64>,
}

impl Server {
    fn start(name: &'static str, pipeline: Builder) -> Result<Self, Box<dyn Error>> {
        let pipeline = pipeline.build()?;
        let connection = TcpStream::connect(serve(pipeline.clone())?)?;
        connection.set_nodelay(true)?;
        Ok(Self { name, pipeline, connection, latencies: histogram(), turns: Vec::new() })
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
    let args = Args::parse();
    let receiver = Receiver::counting(Protocol::HttpProtobuf);
    let alive = || builder().exporter(receiver.exporter());
    let dead = || builder().exporter(exporter(Protocol::HttpProtobuf, nobody()));
    let mut servers = [
        Server::start("alive", alive())?,
        // The same: what they differ by is noise.
        Server::start("alive, again", alive())?,
        Server::start("dead", dead())?,
        Server::start("dead, its queue full", dead().max_queue_bytes(1 << 20))?,
    ];
    let rounds = args.rounds.get();
    for round in 0..rounds {
        // What one has begun may go on in the next one's turn.
        servers.shuffle(&mut rand::rng());
        for server in &mut servers {
            let latencies = turn(&mut server.connection, &args)?;
            if round * 10 >= rounds {
                server.turns.push(latencies.value_at_quantile(0.99));
                server.latencies.add(latencies)?;
            }
        }
    }
    servers.sort_by_key(|server| server.name);
    let mut out = io::stdout().lock();
    let alive = servers[0].figures();
    for server in &servers {
        let figures = server.figures();
        write!(out, "{:>20}: {} requests", server.name, server.latencies.len())?;
        for (name, at) in [("p50", 0), ("p99 of the middle turn", 1), ("p99 of all", 2)] {
            let against = 100.0 * (figures[at] as f64 / alive[at] as f64 - 1.0);
            write!(out, ", {name} {:.1} us ({against:+.1} %)", figures[at] as f64 / 1e3)?;
        }
        writeln!(out)?;
    }
    for server in servers {
        write!(out, "{}: {}", server.name, server.pipeline.stats())?;
        // What the dead one cannot deliver is no error of this measurement.
        let _ = server.pipeline.shutdown(Duration::from_secs(1));
    }
    Ok(())
}

fn histogram() -> Histogram<u64> {
    Histogram::new_with_bounds(1, 60_000_000_000, 3).expect("bounds that fit")
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
fn turn(connection: &mut TcpStream, args: &Args) -> io::Result<Histogram<u64>> {
    let mut latencies = histogram();
    let between = Duration::from_secs(1) / args.rate.get();
    let start = Instant::now();
    let mut due = start;
    while due < start + Duration::from_millis(args.turn_ms) {
        due += between;
        std::thread::sleep(due.saturating_duration_since(Instant::now() + EARLY));
        while Instant::now() < due {
            std::hint::spin_loop();
        }
        ask(connection)?;
        latencies.saturating_record(due.elapsed().as_nanos() as u64);
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

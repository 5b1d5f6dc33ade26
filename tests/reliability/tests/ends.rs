//! How a process may end, and what has arrived by then: real processes, a real receiver.

use std::collections::HashMap;
use std::io::{BufRead, BufReader, Read};
use std::net::SocketAddr;
use std::path::Path;
use std::process::{Child, Command, ExitStatus, Stdio};

use journey_layer::Protocol;
use journey_reliability::receiver::{PROTOCOLS, Receiver, nobody};
use journey_reliability::wait_until;
use journey_reliability::work::SPANS;
use rustix::process::{Pid, Signal, kill_process};

struct Process(Child);

impl Process {
    fn start(end: &str, protocol: Protocol, address: SocketAddr, change: impl FnOnce(&mut Command)) -> Self {
        let mut command = Command::new(env!("CARGO_BIN_EXE_child"));
        command.arg(end).stdout(Stdio::piped()).stderr(Stdio::null());
        command.env("OTEL_EXPORTER_OTLP_ENDPOINT", format!("http://{address}"));
        command.env("OTEL_EXPORTER_OTLP_PROTOCOL", protocol.as_str());
        change(&mut command);
        Self(command.spawn().expect("a process"))
    }

    /// Reads what it says up to this line.
    fn until(&mut self, line: &str) -> Said {
        let out = BufReader::new(self.0.stdout.as_mut().expect("piped"));
        let lines = out.lines().map_while(Result::ok).take_while(|said| said != line);
        Said::from(lines)
    }

    fn signal(&self, signal: Signal) {
        let pid = Pid::from_child(&self.0);
        kill_process(pid, signal).expect("a process that lives");
    }

    fn end(mut self) -> (ExitStatus, Said) {
        let mut text = String::new();
        self.0.stdout.as_mut().expect("piped").read_to_string(&mut text).expect("text");
        (self.0.wait().expect("a status"), Said::from(text.lines().map(str::to_owned)))
    }
}

/// `name number` lines.
struct Said(HashMap<String, u64>);

impl Said {
    fn from(lines: impl Iterator<Item = String>) -> Self {
        let pairs = lines.filter_map(|line| {
            let (name, number) = line.split_once(' ')?;
            Some((name.to_owned(), number.parse().ok()?))
        });
        Self(pairs.collect())
    }

    #[track_caller]
    fn number(&self, name: &str) -> u64 {
        *self.0.get(name).unwrap_or_else(|| panic!("{name} in {:?}", self.0))
    }
}

const JOURNEYS: u64 = 100;
/// What takes the spans of a process, and how they travel.
const SINKS: [(&str, Protocol); 4] = [
    ("otlp", Protocol::Grpc),
    ("otlp", Protocol::HttpProtobuf),
    ("sdk-exporter", Protocol::HttpProtobuf),
    ("sdk-processor", Protocol::HttpProtobuf),
];

fn into(sink: &str) -> impl FnOnce(&mut Command) + '_ {
    move |command| {
        command.args(["--sink", sink]);
    }
}

#[test]
fn everything_arrives_however_main_comes_to_its_end() {
    for (sink, protocol) in SINKS {
        for (end, succeeds) in [
            ("return", true),
            ("panic", false),
            ("exit", true),
            ("runtime-first", true),
            ("current-thread", true),
            ("one-worker", true),
        ] {
            let receiver = Receiver::start(protocol);
            let (status, _) = Process::start(end, protocol, receiver.address(), into(sink)).end();
            let tally = receiver.tally();
            let arrived = (tally.distinct_spans(), tally.torn());
            assert_eq!(arrived, (JOURNEYS * SPANS, 0), "{end}: {sink} over {}", protocol.as_str());
            assert_eq!(status.success(), succeeds, "{end}: {sink} over {}", protocol.as_str());
        }
    }
}

#[test]
fn everything_arrives_when_main_handles_the_signal() {
    for (sink, protocol) in SINKS {
        for signal in [Signal::TERM, Signal::INT] {
            let receiver = Receiver::start(protocol);
            let mut process = Process::start("signal", protocol, receiver.address(), into(sink));
            process.until("ready");
            process.signal(signal);
            assert!(process.end().0.success(), "{signal:?}: {sink}");
            assert_eq!(receiver.tally().distinct_spans(), JOURNEYS * SPANS, "{signal:?}: {sink}");
        }
    }
}

#[test]
fn a_signal_that_kills_takes_only_what_was_not_exported_and_tears_no_batch() {
    for (sink, protocol) in SINKS {
        for signal in [Signal::KILL, Signal::TERM, Signal::INT] {
            let receiver = Receiver::start(protocol);
            let often = |command: &mut Command| {
                into(sink)(command);
                command.env("OTEL_BSP_SCHEDULE_DELAY", "5");
            };
            let mut process = Process::start("unhandled", protocol, receiver.address(), often);
            let said = process.until("flushed");
            assert_eq!(said.number("exported"), JOURNEYS * SPANS);
            let tally = receiver.tally();
            // In the middle of its batches.
            let batches = tally.requests() + 5;
            wait_until("more batches came", || tally.requests() >= batches);
            process.signal(signal);
            assert!(!process.end().0.success());
            assert!(tally.distinct_spans() > JOURNEYS * SPANS, "{signal:?}: {sink}");
            assert_eq!((tally.torn(), tally.duplicates()), (0, 0), "{signal:?}: {sink}");
        }
    }
}

#[test]
fn a_process_that_forgets_its_handle_loses_what_was_not_due() {
    let receiver = Receiver::start(Protocol::HttpProtobuf);
    let (status, _) = Process::start("forget", Protocol::HttpProtobuf, receiver.address(), |_| {}).end();
    assert!(status.success());
    assert_eq!(receiver.tally().distinct_spans() % SPANS, 0);
    assert!(receiver.tally().distinct_spans() <= JOURNEYS * SPANS);
}

fn spooling(directory: &Path) -> impl FnOnce(&mut Command) + '_ {
    move |command| {
        command.env("JOURNEY_SPOOL_DIRECTORY", directory).env("OTEL_BSP_SCHEDULE_DELAY", "5");
        command.args(["--max-queue-bytes", "200000"]);
    }
}

#[test]
fn what_was_spooled_survives_a_kill_and_the_next_start_sends_it() {
    for protocol in PROTOCOLS {
        let directory = tempfile::tempdir().expect("a directory");
        let mut process = Process::start("unhandled", protocol, nobody(), spooling(directory.path()));
        let files = || {
            let place = std::fs::read_dir(directory.path().join("0"));
            let files = place.into_iter().flatten().filter_map(Result::ok).map(|file| file.path());
            files.filter(|file| file.extension().is_some_and(|kind| kind == "request")).count()
        };
        wait_until("it spools", || files() >= 5);
        process.signal(Signal::KILL);
        process.0.wait().expect("a status");

        let receiver = Receiver::start(protocol);
        let (status, said) = Process::start("drain", protocol, receiver.address(), spooling(directory.path())).end();
        assert!(status.success());
        let (recovered, exported, dropped) =
            (said.number("recovered"), said.number("exported"), said.number("dropped"));
        let tally = receiver.tally();
        assert!(recovered >= 10, "{recovered}");
        assert_eq!((exported + dropped, tally.distinct_spans(), tally.torn()), (recovered, exported, 0));
        // The request that was being written when the kill came, at most.
        assert!(dropped <= 512 && files() == 0, "{dropped}");
    }
}

#[test]
fn a_forked_child_counts_its_spans_as_lost_and_waits_for_nobody() {
    let receiver = Receiver::start(Protocol::HttpProtobuf);
    let (status, said) = Process::start("fork", Protocol::HttpProtobuf, receiver.address(), |_| {}).end();
    assert!(status.success());
    assert_eq!(receiver.tally().distinct_spans(), 2 * JOURNEYS * SPANS, "the parent's, before and after the fork");
    assert_eq!((said.number("forked"), said.number("told")), (JOURNEYS * SPANS, 1));
    assert!(said.number("waited") < 5_000, "less than any timeout");
    assert_eq!(said.number("balances"), 1);
}

#[test]
fn the_queues_bound_is_a_bound_on_memory() {
    let (status, said) = Process::start("fill", Protocol::HttpProtobuf, nobody(), |_| {}).end();
    assert!(status.success());
    let (grown, spans) = (said.number("grown"), said.number("live"));
    // 64 MiB of records, a batch under way, and what the allocator keeps beside them.
    assert!(grown < 96 << 20, "{grown} bytes for {spans} spans");
    assert!(spans > 200_000, "{spans}");
    assert_eq!((said.number("started") - said.number("dropped"), said.number("balances")), (spans, 1));
}

//! The spool: what cannot be sent goes to disk, and from there to the receiver; nothing is lost in silence.
#![allow(clippy::unwrap_used, reason = "helpers of tests, outside `#[test]`")]

mod pipeline_support;

use std::fs;
use std::net::{SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};
use std::sync::{Arc, Mutex, mpsc};
use std::time::Duration;

use journey_layer::opentelemetry_sdk::error::{OTelSdkError, OTelSdkResult};
use journey_layer::opentelemetry_sdk::trace::{SpanData, SpanExporter};
use journey_layer::{BuildError, Builder, Exporter, Journey, Protocol, Reason};
use pipeline_support::*;
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;

const SHORT: Duration = Duration::from_millis(400);

fn to(address: SocketAddr, protocol: Protocol, directory: &Path) -> Builder {
    let exporter = Exporter::otlp().protocol(protocol).endpoint(format!("http://{address}"));
    builder().exporter(exporter).spool(directory)
}

/// Files of this kind in all places of the spool.
fn files(directory: &Path, kind: &str) -> Vec<PathBuf> {
    let places = fs::read_dir(directory).unwrap().map(|place| place.unwrap().path());
    let files = places.flat_map(|place| fs::read_dir(place).unwrap().map(|file| file.unwrap().path()));
    let mut files: Vec<_> = files.filter(|file| file.extension().is_some_and(|its| its == kind)).collect();
    files.sort();
    files
}

/// Leaves `count` journeys in the spool, each in a request of its own.
fn leave(directory: &Path, count: usize) {
    for _ in 0..count {
        let journey = to(dead(), Protocol::HttpProtobuf, directory).build().unwrap();
        journeys(&journey, 1);
        journey.shutdown(SHORT).unwrap();
        assert_eq!(
            (journey.stats().spans.spooled - journey.stats().spans.recovered, journey.stats().balances()),
            (2, true)
        );
    }
}

/// Starts a pipeline to a receiver that takes everything, and waits until the spool is empty.
fn deliver(directory: &Path) -> (Receiver, Journey) {
    let receiver = Receiver::start(Protocol::HttpProtobuf);
    let journey = to(receiver.address, Protocol::HttpProtobuf, directory).build().unwrap();
    wait_until("the spool is empty", || journey.stats().spans.spooled == 0 && journey.stats().balances());
    assert!(journey.stats().balances(), "{}", journey.stats());
    (receiver, journey)
}

#[test]
fn what_is_left_at_the_shutdown_is_sent_at_the_next_start() {
    for protocol in PROTOCOLS {
        let directory = tempfile::tempdir().unwrap();
        let first = to(dead(), protocol, directory.path()).build().unwrap();
        journeys(&first, 3);
        first.shutdown(SHORT).unwrap();
        let stats = first.stats();
        assert_eq!((stats.spans.spooled, stats.events.spooled, stats.spans.dropped()), (6, 24, 0), "{stats}");
        assert!(stats.balances() && stats.to_string().contains("spooled 6"), "{stats}");

        let receiver = Receiver::start(protocol);
        let second = to(receiver.address, protocol, directory.path()).build().unwrap();
        wait_until("the spool is empty", || second.stats().spans.spooled == 0 && second.stats().balances());
        let stats = second.stats();
        assert_eq!((stats.spans.started, stats.spans.recovered, stats.spans.exported), (0, 6, 6), "{stats}");
        assert_eq!((stats.events.recovered, stats.noted[&Reason::SentFromSpool]), (24, 6), "{stats}");
        assert!(stats.balances(), "{stats}");
        assert_eq!((receiver.spans().len(), files(directory.path(), "request").len()), (6, 0));
        journeys(&second, 1);
        second.shutdown(LONG).unwrap();
        assert_eq!(receiver.spans().len(), 8);
    }
}

#[test]
fn an_outage_that_the_queue_has_no_room_for_goes_through_the_spool() {
    for protocol in PROTOCOLS {
        let directory = tempfile::tempdir().unwrap();
        let address = dead();
        let bounded = to(address, protocol, directory.path()).max_queue_bytes(8_000);
        let journey = bounded.schedule_delay(Duration::from_millis(5)).build().unwrap();
        for _ in 0..150 {
            journeys(&journey, 2);
            wait_until("there is room in the queue", || journey.stats().spans.live < 30);
        }
        // Its counters are read one by one, and spooling may still go on.
        let mut stats = journey.stats();
        wait_until("the ledger balances", || {
            stats = journey.stats();
            stats.balances()
        });
        assert!(stats.spans.spooled > 500 && stats.spans.dropped() == 0 && stats.balances(), "{stats}");
        let receiver = Receiver::at(protocol, TcpListener::bind(address).unwrap());
        wait_until("all has arrived", || {
            let stats = journey.stats();
            stats.spans.exported == 600 && stats.balances()
        });
        assert_eq!(receiver.spans().len(), 600);
    }
}

#[test]
fn the_spool_is_bounded_and_what_it_has_no_room_for_is_counted() {
    let directory = tempfile::tempdir().unwrap();
    let bound = 20_000;
    let exporter = Exporter::otlp().endpoint(format!("http://{}", dead()));
    let small_batches = builder_in(&[("OTEL_BSP_MAX_EXPORT_BATCH_SIZE", "4")]).exporter(exporter);
    let bounded = small_batches.spool(directory.path()).max_queue_bytes(100_000).max_spool_bytes(bound);
    let journey = bounded.schedule_delay(Duration::from_millis(5)).build().unwrap();
    wait_until("both are full", || {
        journeys(&journey, 5);
        let stats = journey.stats();
        stats.spans.spooled > 0 && stats.spans.dropped.contains_key(&Reason::QueueFull)
    });
    let _ = journey.shutdown(SHORT);
    let stats = journey.stats();
    let bytes: u64 = files(directory.path(), "request").iter().map(|file| file.metadata().unwrap().len()).sum();
    assert!(bytes <= bound && stats.spans.spooled > 0, "{bytes} bytes, {stats}");
    assert!(stats.spans.dropped[&Reason::Shutdown] > 0 && stats.balances(), "{stats}");
}

#[test]
fn each_process_has_a_place_of_its_own_and_takes_over_what_the_others_left() {
    let directory = tempfile::tempdir().unwrap();
    let pipelines = [(); 3].map(|()| to(dead(), Protocol::HttpProtobuf, directory.path()).build().unwrap());
    for journey in &pipelines {
        journeys(journey, 1);
        journey.shutdown(SHORT).unwrap();
    }
    let mut places: Vec<_> =
        files(directory.path(), "request").iter().map(|file| file.parent().unwrap().to_owned()).collect();
    places.dedup();
    assert_eq!(places.len(), 3, "no two share one");
    let (receiver, journey) = deliver(directory.path());
    assert_eq!((receiver.spans().len(), journey.stats().spans.recovered), (6, 6));
}

#[test]
fn a_request_that_was_cut_short_is_set_aside_counted_and_warned_of() {
    let directory = tempfile::tempdir().unwrap();
    leave(directory.path(), 5);
    let [torn, headless, changed, unfinished, whole] = &files(directory.path(), "request")[..] else { panic!() };
    let bytes = fs::read(torn).unwrap();
    fs::write(torn, &bytes[..bytes.len() - 1]).unwrap();
    fs::write(headless, &bytes[..7]).unwrap();
    let mut bytes = fs::read(changed).unwrap();
    *bytes.last_mut().unwrap() ^= 1;
    fs::write(changed, &bytes).unwrap();
    fs::rename(unfinished, unfinished.with_extension("part")).unwrap();

    let receiver = Receiver::start(Protocol::HttpProtobuf);
    let journey = to(receiver.address, Protocol::HttpProtobuf, directory.path()).build().unwrap();
    let said = Said::default();
    let _default = tracing_subscriber::registry().with(said.clone()).with(journey.layer()).set_default();
    wait_until("the spool is empty", || journey.stats().spans.spooled == 0 && journey.stats().balances());
    let stats = journey.stats();
    assert_eq!((stats.spans.recovered, stats.spans.exported), (8, 2), "{stats}");
    assert_eq!((stats.spans.dropped[&Reason::SpoolCorrupt], stats.events.dropped[&Reason::SpoolCorrupt]), (6, 24));
    assert_eq!((stats.noted[&Reason::SpoolUnreadable], stats.balances()), (1, true), "{stats}");
    assert_eq!((receiver.spans().len(), whole.exists()), (2, false));
    assert_eq!(files(directory.path(), "corrupt").len(), 4, "nothing is deleted that a person could still read");
    one_journey("cmpl-listens");
    wait_until("it is said", || said.0.lock().unwrap().iter().any(|text| text.contains("set aside as")));
}

#[cfg(unix)]
#[test]
fn a_place_that_others_can_write_to_is_refused_and_never_taken_over() {
    use std::os::unix::fs::{PermissionsExt, symlink};
    let directory = tempfile::tempdir().unwrap();
    let place = directory.path().join("0");
    let build = || to(dead(), Protocol::Grpc, directory.path()).build();
    leave(directory.path(), 1);
    fs::set_permissions(&place, fs::Permissions::from_mode(0o777)).unwrap();
    let error = build().map(drop).unwrap_err().to_string();
    assert!(error.contains(place.to_str().unwrap()) && error.contains("nobody else can write to"), "{error}");
    let elsewhere = directory.path().join("elsewhere");
    fs::rename(&place, &elsewhere).unwrap();
    fs::set_permissions(&elsewhere, fs::Permissions::from_mode(0o700)).unwrap();
    symlink(&elsewhere, &place).unwrap();
    assert!(build().is_err(), "a link leads anywhere");
    // Found beside a place that can be used, it is left alone.
    fs::rename(&place, directory.path().join("1")).unwrap();
    let (receiver, journey) = deliver(directory.path());
    assert_eq!((receiver.spans().len(), journey.stats().spans.recovered), (0, 0));
}

#[cfg(unix)]
#[test]
fn a_directory_of_another_user_is_refused() {
    let directory = tempfile::tempdir().unwrap();
    let is_root = std::os::unix::fs::chown(directory.path(), Some(54_321), None).is_ok();
    // Only root can give a directory away, and only to root nobody's is forbidden before.
    if is_root {
        let error = to(dead(), Protocol::Grpc, directory.path()).build().map(drop).unwrap_err().to_string();
        assert!(error.contains("belongs to another user"), "{error}");
    }
}

#[test]
fn a_receiver_is_served_while_another_exporter_hangs() {
    let directory = tempfile::tempdir().unwrap();
    // Busy at first, so that batches wait for it as well.
    let receiver = Receiver::start(Protocol::HttpProtobuf).then([Answer::Later(1)]);
    let (let_go, held) = mpsc::channel();
    let taken = Arc::<AtomicUsize>::default();
    let both = to(receiver.address, Protocol::HttpProtobuf, directory.path())
        .exporter(Exporter::new(Hanging { held: held.into(), taken: taken.clone() }));
    let bounded = both.max_queue_bytes(40_000).schedule_delay(Duration::from_millis(5));
    let journey = bounded.build().unwrap();
    let mut count = 0;
    while journey.stats().spans.dropped() == 0 {
        journeys(&journey, 1);
        count += 1;
        std::thread::sleep(Duration::from_millis(2));
    }
    let accepted = 2 * count - journey.stats().spans.dropped();
    wait_until("all that the queue took has arrived", || receiver.spans().len() as u64 == accepted);
    drop(let_go);
    journey.shutdown(LONG).unwrap_err();
    let stats = journey.stats();
    assert_eq!((stats.spans.exported, stats.balances()), (accepted, true), "{stats}");
    // The spool would have freed no memory: the other exporter has yet to take them all.
    assert_eq!((taken.load(SeqCst) as u64, stats.noted.get(&Reason::SentFromSpool)), (accepted, None));
}

#[test]
fn a_receivers_judgement_on_spooled_spans_is_counted_like_any_other() {
    let directory = tempfile::tempdir().unwrap();
    leave(directory.path(), 3);
    let answers = [Answer::Refuse(400), Answer::TakeBut(1), Answer::Later(0)];
    let receiver = Receiver::start(Protocol::HttpProtobuf).then(answers);
    let journey = to(receiver.address, Protocol::HttpProtobuf, directory.path()).build().unwrap();
    wait_until("the spool is empty", || journey.stats().spans.spooled == 0 && journey.stats().balances());
    let stats = journey.stats();
    assert_eq!((stats.spans.recovered, stats.spans.exported), (6, 3), "{stats}");
    assert_eq!((stats.spans.dropped[&Reason::ExportFailed], stats.spans.dropped[&Reason::PartialSuccess]), (2, 1));
    assert!(stats.balances() && files(directory.path(), "request").is_empty(), "{stats}");
    assert!(journey.flush(SECOND).unwrap_err().to_string().contains("spans were lost"));
}

#[derive(Debug)]
struct Failing;

impl SpanExporter for Failing {
    async fn export(&self, _: Vec<SpanData>) -> OTelSdkResult {
        Err(OTelSdkError::InternalFailure("broken".into()))
    }
}

/// Holds its thread until it is let go.
#[derive(Debug)]
struct Hanging {
    held: Mutex<mpsc::Receiver<()>>,
    taken: Arc<AtomicUsize>,
}

impl SpanExporter for Hanging {
    async fn export(&self, spans: Vec<SpanData>) -> OTelSdkResult {
        let _ = self.held.lock().unwrap().recv();
        self.taken.fetch_add(spans.len(), SeqCst);
        Ok(())
    }
}

#[test]
fn a_span_that_another_exporter_lost_is_counted_once_and_sent_all_the_same() {
    let directory = tempfile::tempdir().unwrap();
    let both = to(dead(), Protocol::HttpProtobuf, directory.path()).exporter(Exporter::new(Failing));
    let journey = both.build().unwrap();
    journeys(&journey, 1);
    let _ = journey.shutdown(SHORT);
    let stats = journey.stats();
    assert_eq!((stats.spans.dropped[&Reason::ExportFailed], stats.spans.spooled), (2, 0), "{stats}");
    assert!(stats.balances(), "{stats}");
    drop(journey);
    assert_eq!(deliver(directory.path()).0.spans().len(), 2);
}

#[test]
fn the_environment_may_name_the_directory_and_mistakes_are_refused_at_the_start() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().to_str().unwrap().to_owned();
    let endpoint = format!("http://{}", dead());
    let variables = move |name: &str| match name {
        "JOURNEY_SPOOL_DIRECTORY" => Some(path.clone()),
        "OTEL_EXPORTER_OTLP_ENDPOINT" => Some(endpoint.clone()),
        _ => None,
    };
    let journey = Journey::builder().environment(variables.clone()).build().unwrap();
    journeys(&journey, 1);
    journey.shutdown(SHORT).unwrap();
    assert_eq!(journey.stats().spans.spooled, 2);
    // A process whose journeys go to memory alone has no use for the variable.
    drop(Journey::builder().environment(variables).exporter(Exporter::memory()).build().unwrap());

    let error = builder().exporter(Exporter::memory()).spool(directory.path()).build().unwrap_err();
    assert!(error.to_string().contains("needs exactly one OTLP exporter, and there are 0"), "{error}");
    let file = directory.path().join("file");
    fs::write(&file, "").unwrap();
    let error = to(dead(), Protocol::HttpProtobuf, &file).build().unwrap_err();
    assert!(matches!(error, BuildError::Spool { .. }), "{error}");
}

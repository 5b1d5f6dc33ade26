//! A process that makes journeys and ends in the way that it is told; what it says on standard output is read by the
//! test that started it.

use std::io::{self, Write};
use std::time::Duration;

use clap::{Parser, ValueEnum};
use journey_layer::opentelemetry_sdk::trace::BatchSpanProcessor;
use journey_layer::{Exporter, Journey, JourneyStats};
use journey_reliability::resident_bytes;
use journey_reliability::work::journey;
use opentelemetry_otlp::SpanExporter;
use tokio::runtime::Builder;

#[derive(Parser)]
struct Args {
    /// How the process ends.
    end: End,
    /// Journeys that it makes.
    #[arg(long, default_value_t = 100)]
    journeys: u64,
    /// What takes the spans.
    #[arg(long, default_value = "otlp")]
    sink: Sink,
    /// Bytes of the queue, if not the default.
    #[arg(long)]
    max_queue_bytes: Option<usize>,
}

#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Sink {
    /// Our own exporter, as the environment says.
    Otlp,
    /// The SDK's OTLP exporter, over HTTP.
    SdkExporter,
    /// The same within the SDK's batch processor.
    SdkProcessor,
}

#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
enum End {
    /// `main` returns with the handle alive.
    Return,
    /// A signal is handled, and `main` returns.
    Signal,
    /// A signal is not handled; everything before `flushed` was flushed, and journeys go on until it comes.
    Unhandled,
    /// `main` panics with the handle alive.
    Panic,
    /// `std::process::exit` after a flush.
    Exit,
    /// The runtime that everything ran in goes before the handle.
    RuntimeFirst,
    /// Everything within a current-thread runtime, the handle's drop as well.
    CurrentThread,
    /// Everything on the one worker of a runtime, the handle's drop as well.
    OneWorker,
    /// The handle is forgotten; nothing ends the pipeline.
    Forget,
    /// It forks, and the child makes journeys too, on the pipeline that was built before.
    Fork,
    /// The queue is filled until it takes no more.
    Fill,
    /// Waits until nothing is spooled.
    Drain,
}

fn main() {
    // Whoever waits for this process does not wait for ever.
    std::thread::spawn(|| {
        std::thread::sleep(Duration::from_secs(600));
        std::process::abort();
    });
    let args = Args::parse();
    let pipeline = Journey::builder();
    let theirs = || SpanExporter::builder().with_http().build().expect("an exporter");
    let pipeline = match args.sink {
        Sink::Otlp => pipeline,
        Sink::SdkExporter => pipeline.exporter(Exporter::new(theirs())),
        Sink::SdkProcessor => {
            pipeline.span_processor_with(theirs(), |exporter| BatchSpanProcessor::builder(exporter).build())
        }
    };
    let pipeline = match args.max_queue_bytes {
        Some(bytes) => pipeline.max_queue_bytes(bytes),
        None => pipeline,
    };
    let make = || (0..args.journeys).for_each(|n| journey(&format!("cmpl-{}-{n}", std::process::id())));
    let install = || pipeline.install().expect("a pipeline");
    match args.end {
        End::Return => {
            let _journey = install();
            make();
        }
        End::Signal => {
            let runtime = Builder::new_multi_thread().worker_threads(1).enable_all().build().expect("a runtime");
            let _journey = install();
            runtime.block_on(async {
                use tokio::signal::unix::{SignalKind, signal};
                let mut terminate = signal(SignalKind::terminate()).expect("a handler");
                let mut interrupt = signal(SignalKind::interrupt()).expect("a handler");
                make();
                say("ready");
                tokio::select! {
                    _ = terminate.recv() => {}
                    _ = interrupt.recv() => {}
                }
            });
        }
        End::Unhandled => {
            unignore(libc::SIGINT);
            let pipeline = install();
            make();
            let _ = pipeline.flush(Duration::from_secs(10));
            say_stats(&pipeline.stats());
            say("flushed");
            for n in 0.. {
                journey(&format!("cmpl-more-{n}"));
                std::thread::sleep(Duration::from_micros(200));
            }
        }
        End::Panic => {
            let _journey = install();
            make();
            panic!("as the test wants it");
        }
        End::Exit => {
            let pipeline = install();
            make();
            pipeline.flush(Duration::from_secs(10)).expect("a receiver");
            std::process::exit(0);
        }
        End::RuntimeFirst => {
            let runtime = Builder::new_multi_thread().worker_threads(1).enable_all().build().expect("a runtime");
            let pipeline = runtime.block_on(async {
                let pipeline = install();
                make();
                pipeline
            });
            drop(runtime);
            drop(pipeline);
        }
        End::CurrentThread => {
            let runtime = Builder::new_current_thread().enable_all().build().expect("a runtime");
            runtime.block_on(async {
                let _journey = install();
                make();
            });
        }
        End::OneWorker => {
            let runtime = Builder::new_multi_thread().worker_threads(1).enable_all().build().expect("a runtime");
            let pipeline = install();
            let journeys = args.journeys;
            let task = runtime.spawn(async move {
                (0..journeys).for_each(|n| journey(&format!("cmpl-{n}")));
                drop(pipeline);
            });
            runtime.block_on(task).expect("a task");
        }
        End::Forget => {
            std::mem::forget(install());
            make();
        }
        End::Fork => fork(install(), make),
        End::Fill => {
            let pipeline = install();
            make();
            let before = resident_bytes();
            let mut journeys = 0;
            while pipeline.stats().spans.dropped() == 0 {
                (0..1000).for_each(|n| journey(&format!("cmpl-fill-{n}")));
                journeys += 1000;
            }
            let grown = resident_bytes().saturating_sub(before);
            say(&format!("journeys {journeys}"));
            say(&format!("grown {grown}"));
            say_stats(&pipeline.stats());
            let _ = pipeline.shutdown(Duration::from_millis(100));
            say(&format!("balances {}", u8::from(pipeline.stats().balances())));
        }
        End::Drain => {
            let pipeline = install();
            while pipeline.stats().spans.spooled > 0 {
                std::thread::sleep(Duration::from_millis(5));
            }
            let _ = pipeline.flush(Duration::from_secs(10));
            say_stats(&pipeline.stats());
        }
    }
}

/// A shell starts what it runs in the background with SIGINT ignored, and every process below inherits that.
#[expect(unsafe_code, reason = "the standard library does not set signals")]
fn unignore(signal: libc::c_int) {
    // SAFETY: the default action is no function that could do something wrong.
    unsafe { libc::signal(signal, libc::SIG_DFL) };
}

#[expect(unsafe_code, reason = "there is no safe fork, and what it does to the pipeline is what is tested")]
fn fork(pipeline: Journey, make: impl Fn()) {
    make();
    pipeline.flush(Duration::from_secs(10)).expect("a receiver");
    // SAFETY: no other thread of ours holds a lock now: the export thread is idle after the flush, and this one is here.
    let child = unsafe { libc::fork() };
    assert!(child >= 0, "a fork");
    make();
    if child == 0 {
        let start = std::time::Instant::now();
        let flushed = pipeline.flush(Duration::from_secs(10));
        let stats = pipeline.stats();
        drop(pipeline);
        say(&format!("forked {}", stats.spans.dropped.get(&journey_layer::Reason::Forked).copied().unwrap_or(0)));
        say(&format!("waited {}", start.elapsed().as_millis()));
        say(&format!("told {}", u8::from(flushed.is_err())));
        say(&format!("balances {}", u8::from(stats.balances())));
        std::process::exit(0);
    }
    // SAFETY: the pid is this process's child, and the status is not wanted.
    unsafe { libc::waitpid(child, std::ptr::null_mut(), 0) };
}

fn say(text: &str) {
    // Written at once: what comes next may be the end of the process.
    let mut out = io::stdout().lock();
    writeln!(out, "{text}").and_then(|()| out.flush()).expect("a test that reads");
}

fn say_stats(stats: &JourneyStats) {
    say(&format!("started {}", stats.spans.started));
    say(&format!("exported {}", stats.spans.exported));
    say(&format!("spooled {}", stats.spans.spooled));
    say(&format!("recovered {}", stats.spans.recovered));
    say(&format!("dropped {}", stats.spans.dropped()));
    say(&format!("live {}", stats.spans.live));
}

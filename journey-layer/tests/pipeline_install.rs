//! One pipeline for the process. One test: it is about the process's one global subscriber.

mod pipeline_support;

use std::sync::mpsc;

use journey_layer::opentelemetry_sdk::Resource;
use journey_layer::opentelemetry_sdk::error::OTelSdkResult;
use journey_layer::opentelemetry_sdk::trace::{SpanData, SpanExporter};
use journey_layer::{Builder, Exporter, InitError};
use pipeline_support::*;

/// Installs journeys as well, when it is started.
#[derive(Debug)]
struct Installs(mpsc::Sender<String>);

impl SpanExporter for Installs {
    async fn export(&self, _: Vec<SpanData>) -> OTelSdkResult {
        Ok(())
    }

    fn set_resource(&mut self, _: &Resource) {
        let error = builder().exporter(Exporter::memory()).install().expect_err("it is in the middle of that");
        self.0.send(error.to_string()).expect("somebody waits for it");
    }
}

fn to(port: u16) -> Builder {
    builder().exporter(Exporter::otlp().endpoint(format!("http://127.0.0.1:{port}")))
}

#[test]
fn installing_twice_is_once_and_another_configuration_is_refused_while_the_first_goes_on() {
    // The spool's directory is a file: this fails, and leaves nothing installed.
    let (sender, errors) = mpsc::channel();
    let failing = to(1).exporter(Exporter::new(Installs(sender))).spool(std::env::current_exe().unwrap());
    let failing = std::thread::spawn(|| failing.install());
    let error = errors.recv_timeout(LONG).expect("it does not wait for itself");
    assert!(error.starts_with("an exporter that is being started installs journeys"), "{error}");
    assert!(matches!(failing.join().unwrap(), Err(InitError::Build(_))));

    let receiver = Receiver::start(PROTOCOLS[1]);
    let port = receiver.address.port();
    // The first use comes from many threads at once.
    let journeys: Vec<_> = std::thread::scope(|scope| {
        let threads: Vec<_> = (0..8).map(|_| scope.spawn(|| to(port).install())).collect();
        threads.into_iter().map(|thread| thread.join().unwrap().unwrap()).collect()
    });
    one_journey("cmpl-1");
    assert_eq!(journeys.iter().map(|journey| journey.stats().spans.started).collect::<Vec<_>>(), [2; 8]);

    let error = to(1).install().unwrap_err();
    assert!(matches!(error, InitError::Conflict { .. }), "{error}");
    let text = error.to_string();
    assert!(text.contains(&format!("127.0.0.1:{port}/v1/traces")) && text.contains("127.0.0.1:1/v1/traces"), "{text}");
    let error = to(port).sample_rate(0.5).install().unwrap_err().to_string();
    assert!(error.contains("differs in its sampling"), "{error}");
    let secret = builder().exporter(receiver.exporter().header("api-key", "secret")).install();
    let error = secret.unwrap_err().to_string();
    assert!(error.contains("differs in the settings of a destination") && !error.contains("secret"), "{error}");

    one_journey("cmpl-2");
    let journey = to(port).install().unwrap();
    journey.flush(LONG).unwrap();
    assert_eq!(receiver.spans().len(), 4);

    drop(journeys);
    drop(journey);
    assert!(matches!(to(port).install().unwrap_err(), InitError::ShutDown));
}

//! One pipeline for the process. One test: it is about the process's one global subscriber.

mod pipeline_support;

use journey_layer::{Builder, Exporter, InitError};
use pipeline_support::*;

fn to(port: u16) -> Builder {
    builder().exporter(Exporter::otlp().endpoint(format!("http://127.0.0.1:{port}")))
}

#[test]
fn installing_twice_is_once_and_another_configuration_is_refused_while_the_first_goes_on() {
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

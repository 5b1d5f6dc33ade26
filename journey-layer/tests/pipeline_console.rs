//! Journeys on a terminal.
#![allow(clippy::unwrap_used, reason = "helpers of tests, outside `#[test]`")]

mod pipeline_support;

use std::io::{self, Write};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use journey_layer::Exporter;
use journey_layer::macros::*;
use pipeline_support::*;

#[derive(Clone, Default)]
struct Screen(Arc<Mutex<Vec<u8>>>);

impl Write for Screen {
    fn write(&mut self, part: &[u8]) -> io::Result<usize> {
        self.0.lock().unwrap().extend_from_slice(part);
        Ok(part.len())
    }
    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Screen {
    fn text(&self) -> String {
        String::from_utf8(self.0.lock().unwrap().clone()).unwrap()
    }
}

/// The text with every number as `#`, ids and times included.
fn shape(text: &str) -> String {
    let mut shape = String::new();
    for word in text.split_inclusive([' ', '\n', '=']) {
        let (core, end) = word.split_at(word.trim_end_matches([' ', '\n', '=']).len());
        let number = core.trim_end_matches("ms").bytes().all(|c| c.is_ascii_hexdigit() || c == b'.' || c == b'-');
        let number = number && core.bytes().any(|c| c.is_ascii_digit());
        shape.push_str(if number { "#" } else { core });
        shape.push_str(end);
    }
    shape.lines().map(|line| line.split_whitespace().collect::<Vec<_>>().join(" ") + "\n").collect()
}

#[test]
fn a_journey_is_a_tree() {
    let screen = Screen::default();
    let journey = builder().exporter(Exporter::console().writer(screen.clone())).build().unwrap();
    journeys(&journey, 1);
    journey.flush(SECOND).unwrap();
    let expected = "\
llm_request cmpl-0 # ms trace #
│ usage.prompt_tokens=# usage.completion_tokens=# request.temperature=# response.model=tiny
│ latency.e2e=# latency.time_to_first_token=#
│ # ms api.ARRIVED
│ # ms api.HANDOFF_TO_CORE
│ # ms api.FIRST_RESPONSE_FROM_CORE
│ # ms api.DEPARTED
└─ llm_core cmpl-0-0 # ms
latency.time_in_queue=# latency.time_in_model_prefill=# latency.time_in_model_decode=# latency.time_in_model_inference=#
# ms journey.QUEUED phase=WAITING
# ms journey.SCHEDULED scheduler.step=# phase=PREFILL prefill=0/3 schedule.kind=FIRST
# ms journey.FIRST_TOKEN scheduler.step=# phase=DECODE prefill=3/3
# ms journey.FINISHED scheduler.step=# phase=DECODE prefill=3/3 finish.status=length
";
    assert_eq!(shape(&screen.text()), expected, "\n{}", screen.text());
}

#[test]
fn a_core_that_ends_a_little_later_is_printed_under_its_request_and_an_orphan_in_the_end() {
    let screen = Screen::default();
    let exporter = Exporter::console().writer(screen.clone());
    let journey = builder().exporter(exporter).schedule_delay(Duration::from_millis(10)).build().unwrap();
    traced(&journey, || {
        let request = journey_span!(scope = "vllm.api", request_id = "cmpl-1");
        let late = journey_span!(scope = "vllm.scheduler", parent = &request, request_id = "cmpl-1-0");
        drop(request);
        std::thread::sleep(Duration::from_millis(50));
        drop(late);
        let other = journey_span!(scope = "vllm.api", request_id = "cmpl-2");
        drop(journey_span!(scope = "vllm.scheduler", parent = &other, request_id = "cmpl-2-0"));
        journey.flush(SECOND).unwrap();
        let text = screen.text();
        assert!(text.contains("└─ llm_core cmpl-1-0"), "{text}");
        assert!(!text.contains("cmpl-2-0"), "its request is still open: {text}");
        drop(other);
    });
    journey.shutdown(SECOND).unwrap();
    let text = screen.text();
    assert!(text.contains("└─ llm_core cmpl-2-0"), "{text}");
}

#[test]
fn errors_stand_out_and_nothing_that_a_terminal_obeys_gets_through() {
    let screen = Screen::default();
    let exporter = Exporter::console().writer(screen.clone()).color(true);
    let journey = builder().exporter(exporter).build().unwrap();
    traced(&journey, || {
        let request = journey_span!(scope = "vllm.api", request_id = "evil\x1b[2J");
        journey_event!(&request, ABORTED, reason = generation_error, error = "out of \x07 memory");
    });
    journey.flush(SECOND).unwrap();
    let text = screen.text();
    assert!(text.contains("\x1b[31mapi.ABORTED\x1b[0m  reason=generation_error"), "{text:?}");
    assert!(text.contains(r"evil\u{1b}[2J") && !text.contains("\x1b[2J") && !text.contains('\x07'), "{text:?}");
}

#[test]
fn what_is_not_a_terminal_gets_no_colour() {
    let screen = Screen::default();
    let journey = builder().exporter(Exporter::console().writer(screen.clone())).build().unwrap();
    journeys(&journey, 3);
    journey.flush(SECOND).unwrap();
    assert!(!screen.text().contains('\x1b'));
    assert_eq!(screen.text().matches("└─ llm_core").count(), 3);
}

#[test]
fn a_broken_screen_is_a_counted_loss() {
    struct Broken;
    impl Write for Broken {
        fn write(&mut self, _: &[u8]) -> io::Result<usize> {
            Err(io::ErrorKind::BrokenPipe.into())
        }
        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }
    let journey = builder().exporter(Exporter::console().writer(Broken)).build().unwrap();
    journeys(&journey, 1);
    let error = journey.flush(SECOND).unwrap_err().to_string();
    assert!(error.contains("broken pipe"), "{error}");
}

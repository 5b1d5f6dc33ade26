//! Single operations of ours, installed alone, records discarded: `cargo bench -p journey-bench`.

use std::collections::HashMap;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};

use divan::{AllocProfiler, Bencher};
use journey_bench::work::{Macros, Phase, Request, Vocabulary};
use journey_layer::macros::*;
use journey_layer::{Journey, handoff};
use tracing::Span;

#[global_allocator]
static ALLOCATOR: AllocProfiler = AllocProfiler::system();

fn main() {
    let nowhere = Journey::builder().environment(|name| (name == "OTEL_TRACES_EXPORTER").then(|| "none".to_owned()));
    let _journey = nowhere.install().expect("this process has no other subscriber");
    divan::main();
}

fn requests() -> impl Fn() -> Request {
    let number = AtomicUsize::new(0);
    move || Request::new(number.fetch_add(1, Relaxed))
}

fn queued() -> impl Fn() -> (Request, Span, Span) {
    let requests = requests();
    move || {
        let request = requests();
        let api = Macros.request(&request);
        let mut core = Macros.sequence(&request, &api);
        Macros.queued(&mut core, || request.progress(0, Phase::Waiting, 0, 0, 0));
        (request, api, core)
    }
}

fn sampled_out() -> Span {
    let traceparent = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-00".to_owned();
    let headers = HashMap::from([("traceparent".to_owned(), traceparent)]);
    journey_span!(scope = "vllm.api", headers = &headers)
}

#[divan::bench]
fn whole_journey(bencher: Bencher<'_, '_>) {
    bencher.with_inputs(requests()).bench_refs(|request| journey_bench::work::journey(&Macros, request));
}

#[divan::bench]
fn open_request(bencher: Bencher<'_, '_>) {
    bencher.with_inputs(requests()).bench_refs(|request| Macros.request(request));
}

#[divan::bench]
fn open_and_close_request(bencher: Bencher<'_, '_>) {
    bencher.with_inputs(requests()).bench_refs(|request| {
        let mut span = Macros.request(request);
        Macros.departed(&mut span);
    });
}

#[divan::bench]
fn api_event(bencher: Bencher<'_, '_>) {
    bencher.with_inputs(queued()).bench_refs(|(_, api, _)| Macros.arrived(api));
}

#[divan::bench]
fn core_event(bencher: Bencher<'_, '_>) {
    bencher.with_inputs(queued()).bench_refs(|(request, _, core)| {
        Macros.scheduled(core, || request.progress(17, Phase::Prefill, 0, 0, 0));
    });
}

#[divan::bench]
fn core_event_without_progress(bencher: Bencher<'_, '_>) {
    bencher.with_inputs(queued()).bench_refs(|(_, _, core)| journey_event!(&*core, SCHEDULED));
}

#[divan::bench]
fn core_event_to_the_enclosing_span(bencher: Bencher<'_, '_>) {
    bencher.with_inputs(queued()).bench_refs(|(_, _, core)| core.in_scope(|| journey_event!(SCHEDULED)));
}

#[divan::bench]
fn record_two_attributes(bencher: Bencher<'_, '_>) {
    bencher.with_inputs(queued()).bench_refs(|(request, api, _)| Macros.usage(api, request));
}

#[divan::bench]
fn hand_off(bencher: Bencher<'_, '_>) {
    bencher.with_inputs(queued()).bench_refs(|(_, api, _)| handoff(api));
}

#[divan::bench]
fn sampled_out_request_with_headers() -> Span {
    sampled_out()
}

#[divan::bench]
fn sampled_out_event(bencher: Bencher<'_, '_>) {
    bencher.with_inputs(sampled_out).bench_refs(|span| journey_event!(&*span, ARRIVED));
}

#[divan::bench]
fn event_of_no_span(bencher: Bencher<'_, '_>) {
    bencher.with_inputs(Span::none).bench_refs(|span| journey_event!(&*span, ARRIVED));
}

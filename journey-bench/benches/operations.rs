//! Single operations of ours, installed alone, records discarded: `cargo bench -p journey-bench`.

use std::collections::HashMap;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};

use divan::Bencher;
use journey_bench::work::{self, Macros, Phase, Request, Vocabulary};
use journey_layer::macros::*;
use journey_layer::{Carrier, Journey, handoff};
use tracing::Span;

fn main() {
    let nowhere = Journey::builder().environment(|name| (name == "OTEL_TRACES_EXPORTER").then(|| "none".to_owned()));
    let _journey = nowhere.install().expect("this process has no other subscriber");
    divan::main();
}

/// A journey whose sequence waits in the queue. It ends as the schema wants it, so that nothing is said of it.
struct Queued {
    request: Request,
    api: Span,
    core: Span,
}

impl Queued {
    fn new(request: Request) -> Self {
        let api = Macros.request(&request);
        let mut core = Macros.sequence(&request, &api);
        Macros.queued(&mut core, || request.progress(0, Phase::Waiting, 0, 0, 0));
        Self { request, api, core }
    }
}

impl Drop for Queued {
    fn drop(&mut self) {
        journey_event!(&self.core, FINISHED, status = aborted);
        abort(&self.api);
    }
}

fn abort(span: &Span) {
    journey_event!(span, ABORTED, reason = client_disconnect);
}

fn requests() -> impl Fn() -> Request {
    let number = AtomicUsize::new(0);
    move || Request::new(number.fetch_add(1, Relaxed))
}

fn queued() -> impl Fn() -> Queued {
    let requests = requests();
    move || Queued::new(requests())
}

/// Headers of a client whose trace is not sampled.
fn unsampled() -> HashMap<String, String> {
    let traceparent = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-00".to_owned();
    HashMap::from([("traceparent".to_owned(), traceparent)])
}

#[divan::bench]
fn whole_journey(bencher: Bencher<'_, '_>) {
    bencher.with_inputs(requests()).bench_refs(|request| work::journey(&Macros, request));
}

#[divan::bench]
fn open_and_abort_a_request(bencher: Bencher<'_, '_>) {
    bencher.with_inputs(requests()).bench_refs(|request| abort(&Macros.request(request)));
}

#[divan::bench]
fn api_event(bencher: Bencher<'_, '_>) {
    bencher.with_inputs(queued()).bench_refs(|queued| Macros.arrived(&mut queued.api));
}

#[divan::bench]
fn core_event(bencher: Bencher<'_, '_>) {
    bencher.with_inputs(queued()).bench_refs(|Queued { request, core, .. }| {
        Macros.scheduled(core, || request.progress(17, Phase::Prefill, 0, 0, 0));
    });
}

#[divan::bench]
fn core_event_without_progress(bencher: Bencher<'_, '_>) {
    bencher.with_inputs(queued()).bench_refs(|queued| journey_event!(&queued.core, SCHEDULED));
}

#[divan::bench]
fn core_event_to_the_enclosing_span(bencher: Bencher<'_, '_>) {
    bencher.with_inputs(queued()).bench_refs(|queued| queued.core.in_scope(|| journey_event!(SCHEDULED)));
}

#[divan::bench]
fn record_two_attributes(bencher: Bencher<'_, '_>) {
    bencher.with_inputs(queued()).bench_refs(|Queued { request, api, .. }| Macros.usage(api, request));
}

#[divan::bench]
fn hand_off(bencher: Bencher<'_, '_>) {
    bencher.with_inputs(queued()).bench_refs(|queued| -> Carrier { handoff(&queued.api) });
}

#[divan::bench]
fn sampled_out_request_with_headers(bencher: Bencher<'_, '_>) {
    let headers = unsampled();
    bencher.bench(|| journey_span!(scope = "vllm.api", headers = &headers));
}

#[divan::bench]
fn sampled_out_event(bencher: Bencher<'_, '_>) {
    let span = journey_span!(scope = "vllm.api", headers = &unsampled());
    bencher.bench(|| journey_event!(&span, ARRIVED));
}

#[divan::bench]
fn event_of_no_span(bencher: Bencher<'_, '_>) {
    let span = Span::none();
    bencher.bench(|| journey_event!(divan::black_box(&span), ARRIVED));
}

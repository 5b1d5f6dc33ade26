use journey_layer::macros::journey_span;
use journey_layer::tracing::Span;

fn main() {
    let first = Span::none();
    let span = journey_span!(scope = "vllm.scheduler", sibling = &first);
    drop(span);
}

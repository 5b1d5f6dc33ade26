use journey_layer::journey_span;

#[journey_span(scope = "vllm.llm_engine", request_id = id)]
fn do_tracing(id: &str) {
    let _ = id;
}

fn main() {
    do_tracing("cmpl-1");
}

use journey_layer::macros::journey_span;

struct Id(u64);

fn main() {
    let id = Id(1);
    let span = journey_span!(scope = "vllm.api", request_id = id);
    drop((id.0, span));
}

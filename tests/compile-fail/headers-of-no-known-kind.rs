use journey_layer::macros::journey_span;

fn main() {
    let headers = [("traceparent", "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01")];
    let span = journey_span!(scope = "vllm.api", headers = &headers);
    drop(span);
}

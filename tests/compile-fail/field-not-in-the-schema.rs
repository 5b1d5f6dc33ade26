use journey_layer::journey_span;

#[journey_span(scope = "vllm.api", fields(user.email = email))]
fn handle(email: &str) {
    println!("{email}");
}

fn main() {
    handle("a@b.c");
}

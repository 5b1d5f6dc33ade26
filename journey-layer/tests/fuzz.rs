//! What the fuzz target `headers` begins with, and what it found.

#[path = "../../fuzz/checks/headers.rs"]
mod headers;
#[path = "../../fuzz/checks/seeds.rs"]
mod seeds;

#[test]
fn every_seed_of_the_headers_holds() {
    seeds::each("headers", headers::check);
}

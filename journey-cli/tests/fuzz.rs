//! What the fuzz target `otlp` begins with, and what it found.

#[path = "../../fuzz/checks/otlp.rs"]
mod otlp;
#[path = "../../fuzz/checks/seeds.rs"]
mod seeds;

#[test]
fn every_seed_of_otlp_holds() {
    seeds::each("otlp", otlp::check);
}

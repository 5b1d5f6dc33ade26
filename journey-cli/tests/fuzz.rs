//! What the fuzz target `otlp` begins with, and what it found.

#[path = "../../fuzz/checks/otlp.rs"]
mod otlp;

#[test]
fn every_seed_of_otlp_holds() {
    let files: Vec<_> = std::fs::read_dir("../fuzz/seeds/otlp").expect("the seeds").collect();
    assert!(files.len() > 3);
    for file in files {
        otlp::check(&std::fs::read(file.expect("a file").path()).expect("bytes"));
    }
}

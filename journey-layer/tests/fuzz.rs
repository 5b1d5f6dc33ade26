//! What the fuzz target `headers` begins with, and what it found.

#[path = "../../fuzz/checks/headers.rs"]
mod headers;

#[test]
fn every_seed_of_the_headers_holds() {
    let files: Vec<_> = std::fs::read_dir("../fuzz/seeds/headers").expect("the seeds").collect();
    assert!(files.len() > 3);
    for file in files {
        headers::check(&std::fs::read(file.expect("a file").path()).expect("bytes"));
    }
}

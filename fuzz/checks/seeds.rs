//! What a fuzz target begins with, and what it found.

/// Shows each file of `fuzz/seeds/TARGET` to `check`.
pub(crate) fn each(target: &str, check: impl Fn(&[u8])) {
    // All crates that have a target stand beside `fuzz`.
    let folder = std::path::Path::new("../fuzz/seeds").join(target);
    let files: Vec<_> = std::fs::read_dir(&folder).expect("the seeds").collect();
    assert!(files.len() > 3, "{} is nearly empty", folder.display());
    for file in files {
        check(&std::fs::read(file.expect("a file").path()).expect("bytes"));
    }
}

//! `docs/failure-modes.md` names a test for what it says.

use std::collections::HashSet;
use std::fs;
use std::path::Path;

use journey_layer::Reason;

const ROOT: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/..");

/// The names of all test functions in the sources below `folder`.
fn tests_in(folder: &Path, names: &mut HashSet<String>) {
    for entry in fs::read_dir(folder).expect("a folder") {
        let path = entry.expect("an entry").path();
        let name = path.file_name().expect("a name").to_string_lossy().into_owned();
        if path.is_dir() && name != "target" && !name.starts_with('.') {
            tests_in(&path, names);
        } else if name.ends_with(".rs") {
            let text = fs::read_to_string(&path).expect("a source");
            let mut is_test = false;
            for line in text.lines().map(str::trim) {
                if line.starts_with("#[test]") || line.starts_with("#[tokio::test") {
                    is_test = true;
                } else if let Some((_, rest)) = line.split_once("fn ").filter(|_| is_test) {
                    names.extend(rest.split_once('(').map(|(name, _)| name.to_owned()));
                    is_test = false;
                }
            }
        }
    }
}

/// What stands between backticks in `text`.
fn quoted(text: &str) -> impl Iterator<Item = &str> {
    text.split('`').skip(1).step_by(2)
}

#[test]
fn every_named_test_exists_and_no_reason_is_missing() {
    let document = fs::read_to_string(Path::new(ROOT).join("docs/failure-modes.md")).expect("the document");
    let mut tests = HashSet::new();
    tests_in(Path::new(ROOT), &mut tests);
    assert!(tests.len() > 200, "{} tests were found", tests.len());

    let mut named = 0;
    for row in document.lines().filter(|line| line.split('|').count() == 7) {
        let cell = row.split('|').nth(5).expect("five cells");
        for name in quoted(cell) {
            assert!(tests.contains(name), "there is no test `{name}`: {row}");
            named += 1;
        }
    }
    assert!(named > 80, "{named} tests are named");
    for reason in Reason::ALL {
        assert!(quoted(&document).any(|word| word == reason.as_str()), "`{reason}` is not in the document");
    }
}

//! What must hold whatever bytes are given to `journey check` and `journey serve`.

use journey_cli::check::{Checker, Dialects, Format};
use journey_cli::model::Span;
use journey_cli::read::{At, Problem, Sink, read, read_json};

/// Most findings that a report shows.
const LIMIT: usize = 10;

/// Passes everything on to a check, and counts it.
struct Counting {
    check: Checker,
    seen: usize,
}

impl Sink for Counting {
    fn span(&mut self, span: Span, at: At) {
        self.seen += 1;
        self.check.span(span, at);
    }

    fn problem(&mut self, problem: Problem) {
        self.seen += 1;
        assert!(!problem.error.to_string().is_empty());
        self.check.problem(problem);
    }
}

/// Reads `data` as a file and as the body of a request, checks the spans in it, and writes the report in every form.
///
/// # Panics
/// Something does not hold.
pub(crate) fn check(data: &[u8]) {
    let mut file = Counting { check: Checker::new(Dialects::default(), LIMIT), seen: 0 };
    read(data, 0, &mut file);
    assert!(file.seen > 0 || !data.is_empty(), "not a word about an empty file");
    let outcome = file.check.finish();
    for format in [Format::Text, Format::Json, Format::Sarif] {
        let mut report = Vec::new();
        outcome.write(format, &["data".to_owned()], &mut report).expect("writing to memory");
        if !matches!(format, Format::Text) {
            serde_json::from_slice::<serde_json::Value>(&report).expect("a report in JSON");
        }
    }
    read_json(data, &mut Counting { check: Checker::new(Dialects::default(), LIMIT), seen: 0 });
}

//! What went wrong, where an error says only what was being done.

use std::error::Error;

/// `text`, and what caused `error`, so far as `text` does not say so: alone it may be "transport error" where a certificate was
/// refused.
pub(crate) fn with_causes(text: &str, error: &dyn Error) -> String {
    std::iter::successors(error.source(), |cause| (*cause).source()).fold(text.to_owned(), |text, cause| {
        let cause = cause.to_string();
        if text.contains(&cause) { text } else { format!("{text}: {cause}") }
    })
}

//! Stop strings: found across the borders of tokens, and not returned.

/// Looks for stop strings in a text that arrives in pieces.
///
/// What could still become a stop string is held back, and nothing else: a client sees each piece as early as can be.
#[derive(Debug)]
pub(super) struct StopMatcher {
    stops: Vec<String>,
    longest: usize,
    held: String,
}

/// What one piece of text released.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Released {
    /// Text that is safe to return.
    pub text: String,
    /// Whether a stop string was found; what follows it is gone.
    pub stopped: bool,
}

impl StopMatcher {
    /// A matcher for `stops`, none of which is empty.
    pub(super) fn new(stops: Vec<String>) -> Self {
        let longest = stops.iter().map(String::len).max().unwrap_or(0);
        Self { stops, longest, held: String::new() }
    }

    /// Takes the next piece.
    pub(super) fn push(&mut self, piece: &str) -> Released {
        if self.stops.is_empty() {
            return Released { text: piece.to_owned(), stopped: false };
        }
        self.held.push_str(piece);
        // The match that ends first, as if the text came byte by byte: the result must not hang on the pieces' borders.
        let matches = self.stops.iter().filter_map(|stop| self.held.find(stop).map(|at| (at + stop.len(), at)));
        if let Some((_, at)) = matches.min() {
            self.held.truncate(at);
            return Released { text: std::mem::take(&mut self.held), stopped: true };
        }
        let tail = self.tail();
        let rest = self.held.split_off(tail);
        Released { text: std::mem::replace(&mut self.held, rest), stopped: false }
    }

    /// The sequence has ended: what was held back is text after all.
    pub(super) fn finish(&mut self) -> String {
        std::mem::take(&mut self.held)
    }

    /// Where the longest suffix begins that is a prefix of a stop string.
    fn tail(&self) -> usize {
        let from = self.held.len().saturating_sub(self.longest.saturating_sub(1));
        let begins = |at: &usize| self.stops.iter().any(|stop| stop.starts_with(&self.held[*at..]));
        let mut starts = self.held.char_indices().map(|(at, _)| at).filter(|at| *at >= from);
        starts.find(begins).unwrap_or(self.held.len())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn run(stops: &[&str], pieces: &[&str]) -> (String, bool) {
        let mut matcher = StopMatcher::new(stops.iter().map(|stop| (*stop).to_owned()).collect());
        let mut text = String::new();
        for piece in pieces {
            let released = matcher.push(piece);
            text += &released.text;
            if released.stopped {
                return (text, true);
            }
        }
        (text + &matcher.finish(), false)
    }

    #[test]
    fn a_stop_string_is_found_across_pieces_and_is_not_returned() {
        assert_eq!(run(&["the end"], &["so ", "th", "e e", "nd of it"]), ("so ".into(), true));
    }

    #[test]
    fn the_stop_string_that_ends_first_counts() {
        assert_eq!(run(&["cd", "b"], &["abcd"]), ("a".into(), true));
        assert_eq!(run(&["abcd", "b"], &["abcd"]), ("a".into(), true));
        assert_eq!(run(&["bc", "abc"], &["abcd"]), ("".into(), true));
    }

    #[test]
    fn text_that_only_looked_like_a_stop_string_is_returned_at_the_end() {
        assert_eq!(run(&["the end"], &["so the", " e"]), ("so the e".into(), false));
    }

    #[test]
    fn only_what_may_become_a_stop_string_is_held_back() {
        let mut matcher = StopMatcher::new(vec!["xyz".into()]);
        assert_eq!(matcher.push("abc xy").text, "abc ");
        assert_eq!(matcher.push("!").text, "xy!");
    }

    proptest! {
        #[test]
        fn pieces_give_what_the_whole_text_gives(
            pieces in proptest::collection::vec("[abé]{0,4}", 0..12),
            stops in proptest::collection::vec("[abé]{1,4}", 0..4),
        ) {
            let whole: String = pieces.concat();
            let stops: Vec<&str> = stops.iter().map(String::as_str).collect();
            let pieces: Vec<&str> = pieces.iter().map(String::as_str).collect();
            prop_assert_eq!(run(&stops, &pieces), run(&stops, &[&whole]));
            prop_assert_eq!(run(&stops, &[&whole]).1, stops.iter().any(|stop| whole.contains(stop)));
        }
    }
}

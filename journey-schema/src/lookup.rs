//! The nearest known name to a mistyped one, for messages.

/// The candidate nearest to `name`, if one is near enough to be meant.
///
/// Distance is counted in inserted, removed, replaced and swapped characters, without regard to case; a
/// candidate is near enough within a third of its length (at least one edit).
pub fn nearest<'a>(name: &str, candidates: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    // Of input, which may be of any length, what could not be near anything is not looked at.
    let is_near =
        |name: &str, candidate: &str| name.len() <= MAX_CHAR_BYTES * (candidate.len() + candidate.len() / 3 + 1);
    let mut candidates = candidates.into_iter().filter(|candidate| is_near(name, candidate)).peekable();
    candidates.peek()?;
    let name = name.to_lowercase();
    candidates
        .map(|candidate| (distance(&name, &candidate.to_lowercase()), candidate))
        .filter(|(distance, candidate)| *distance <= (candidate.chars().count() / 3).max(1))
        .min_by_key(|(distance, _)| *distance)
        .map(|(_, candidate)| candidate)
}

/// Of a character in UTF-8.
const MAX_CHAR_BYTES: usize = 4;

/// Optimal string alignment distance.
fn distance(a: &str, b: &str) -> usize {
    let (a, b): (Vec<char>, Vec<char>) = (a.chars().collect(), b.chars().collect());
    let mut rows = vec![vec![0; b.len() + 1]; a.len() + 1];
    for i in 0..=a.len() {
        for j in 0..=b.len() {
            rows[i][j] = match (i, j) {
                (0, _) => j,
                (_, 0) => i,
                _ => {
                    let replaced = rows[i - 1][j - 1] + usize::from(a[i - 1] != b[j - 1]);
                    let mut best = replaced.min(rows[i - 1][j] + 1).min(rows[i][j - 1] + 1);
                    if i > 1 && j > 1 && a[i - 1] == b[j - 2] && a[i - 2] == b[j - 1] {
                        best = best.min(rows[i - 2][j - 2] + 1);
                    }
                    best
                }
            };
        }
    }
    rows[a.len()][b.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_slip_of_the_finger_finds_its_name() {
        let names = ["QUEUED", "SCHEDULED", "FIRST_TOKEN", "FINISHED"];
        assert_eq!(nearest("QUEUD", names), Some("QUEUED"));
        assert_eq!(nearest("first_tokne", names), Some("FIRST_TOKEN"));
        assert_eq!(nearest("SHEDULED", names), Some("SCHEDULED"));
    }

    #[test]
    fn something_else_finds_nothing() {
        assert_eq!(nearest("TOKENIZED", ["QUEUED", "FINISHED"]), None);
        assert_eq!(nearest("", ["QUEUED"]), None);
        assert_eq!(nearest(&"QUEUED".repeat(10_000_000), ["QUEUED"]), None, "whoever wrote that meant something else");
    }
}

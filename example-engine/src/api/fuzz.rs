//! What must hold whatever a client sends for a body.

use super::params::{Endpoint, MaxTokens, parse, validate};

/// Parses and validates `body` for both endpoints.
///
/// # Panics
/// Something does not hold.
pub(super) fn check(body: &[u8]) {
    for endpoint in [Endpoint::Completions, Endpoint::Chat] {
        match parse(body).and_then(|body| validate(endpoint, body)) {
            Ok(valid) => {
                assert!((0.0..=2.0).contains(&valid.temperature), "{}", valid.temperature);
                assert!(valid.top_p > 0.0 && valid.top_p <= 1.0, "{}", valid.top_p);
                assert!(
                    (1..=64).contains(&valid.n)
                        && !matches!(valid.max_tokens, MaxTokens::Asked(0, _))
                        && valid.top_k != Some(0)
                );
                assert!((1..=64).contains(&valid.prompts.len()) && valid.stop.iter().all(|stop| !stop.is_empty()));
            }
            Err(error) => {
                assert_eq!(error.status().as_u16(), 400, "{error}");
                let json: serde_json::Value = serde_json::from_str(&error.to_json()).expect("an error is JSON");
                assert!(json["error"]["message"].as_str().is_some_and(|message| !message.is_empty()));
            }
        }
    }
}

#[cfg(test)]
#[path = "../../../fuzz/checks/seeds.rs"]
mod seeds;

#[cfg(test)]
mod tests {
    #[test]
    fn what_the_fuzzer_begins_with_and_what_it_found() {
        super::seeds::each("body", super::check);
    }
}

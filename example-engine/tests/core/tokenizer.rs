//! Text to tokens and back, with the demo model's tokenizer.

use std::path::Path;

use example_engine::model::LoadError;
use example_engine::tokenizer::Tokenizer;
use proptest::prelude::*;

fn tokenizer() -> Tokenizer {
    Tokenizer::load(&Path::new(env!("CARGO_MANIFEST_DIR")).join("model")).expect("the demo model is in the repository")
}

#[test]
fn words_of_the_stories_are_one_token_each() {
    let tokenizer = tokenizer();
    let tokens = tokenizer.encode("Once upon a time there was a fox.", false).unwrap();
    assert_eq!(tokens.len(), 9);
    assert_eq!(tokenizer.decode(&tokens, true), "Once upon a time there was a fox.");
}

#[test]
fn special_tokens_are_added_when_asked_for_and_give_no_text() {
    let tokenizer = tokenizer();
    let begin = tokenizer.token_to_id("<|begin|>").unwrap();
    let tokens = tokenizer.encode("Hello<|end|>", true).unwrap();
    assert_eq!(tokens[0], begin);
    assert_eq!(tokens.last(), tokenizer.token_to_id("<|end|>").as_ref());
    assert_eq!(tokenizer.decode(&tokens, true), "Hello");
    assert_eq!(tokenizer.decode(&tokens, false), "<|begin|>Hello<|end|>");
    assert!(tokens.iter().all(|&token| (token as usize) < tokenizer.vocab_size()));
    assert_ne!(tokenizer.encode("Hello", false).unwrap()[0], begin);
}

#[test]
fn a_character_of_several_tokens_comes_whole_or_not_at_all() {
    let tokenizer = tokenizer();
    let tokens = tokenizer.encode("a🦊b", false).unwrap();
    assert!(tokens.len() > 4, "the fox is not in the vocabulary, its bytes are");
    let mut detokenizer = tokenizer.detokenizer(&[]);
    let pieces: Vec<String> =
        tokens.iter().map(|&token| detokenizer.push(token)).filter(|text| !text.is_empty()).collect();
    assert_eq!(pieces, ["a", "🦊", "b"]);
    assert_eq!(detokenizer.finish(), "");

    let mut cut = tokenizer.detokenizer(&[]);
    assert_eq!(tokens[..3].iter().map(|&token| cut.push(token)).collect::<String>(), "a");
    assert!(cut.finish().starts_with('\u{fffd}'), "what never became whole is shown as such");
    assert_eq!(cut.finish(), "");
}

#[test]
fn broken_files_are_refused_with_their_path() {
    let dir = tempfile::tempdir().unwrap();
    assert!(matches!(Tokenizer::load(dir.path()), Err(LoadError::Io { .. })));
    std::fs::write(dir.path().join("tokenizer.json"), "{\"model\": 3}").unwrap();
    let text = Tokenizer::load(dir.path()).unwrap_err().to_string();
    assert!(text.contains("tokenizer.json: "), "{text}");
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 200, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn pieces_add_up_to_the_whole_text(text in "\\PC{0,40}", prompt in "[a-z ]{0,20}") {
        let tokenizer = tokenizer();
        let (prompt, tokens) = (tokenizer.encode(&prompt, true).unwrap(), tokenizer.encode(&text, false).unwrap());
        let mut detokenizer = tokenizer.detokenizer(&prompt);
        let mut pieces = String::new();
        for token in tokens {
            let piece = detokenizer.push(token);
            prop_assert!(!piece.contains('\u{fffd}') || text.contains('\u{fffd}'), "{piece:?}");
            pieces.push_str(&piece);
        }
        pieces.push_str(&detokenizer.finish());
        prop_assert_eq!(pieces, text);
    }
}

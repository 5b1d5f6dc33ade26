//! A model that says what it was told to say, when it is told to.

use std::sync::Arc;

use example_engine::model_runner::{ModelError, ModelRunner, ModelRunnerOutput, SchedulerOutput};
use example_engine::tokenizer::Tokenizer;
use parking_lot::{Condvar, Mutex};

/// What every sequence says, byte by byte, again and again.
pub const SCRIPT: &str = "Once there was a füchsin. ";
/// The token that ends a sequence.
pub const EOS: u32 = 256;
/// A prompt that begins with this byte makes the model fail.
const FAIL: u32 = b'!' as u32;
/// A prompt that begins with this byte is answered with four bytes and the end.
const SHORT: u32 = b'.' as u32;

/// Lets the model run, or holds it before its next step.
#[derive(Clone)]
pub struct Gate(Arc<(Mutex<Option<u64>>, Condvar)>);

impl Gate {
    pub fn open() -> Self {
        Self(Arc::new((Mutex::new(None), Condvar::new())))
    }

    /// Lets `steps` more steps through, then holds.
    pub fn allow(&self, steps: u64) {
        *self.0.0.lock() = Some(steps);
        self.0.1.notify_all();
    }

    /// Lets everything through.
    pub fn release(&self) {
        *self.0.0.lock() = None;
        self.0.1.notify_all();
    }

    fn pass(&self) {
        let (steps, changed) = &*self.0;
        let mut steps = steps.lock();
        while *steps == Some(0) {
            changed.wait(&mut steps);
        }
        if let Some(steps) = steps.as_mut() {
            *steps -= 1;
        }
    }
}

pub struct ScriptedRunner {
    gate: Gate,
    first_tokens: std::collections::HashMap<String, u32>,
}

impl ScriptedRunner {
    pub fn new(gate: Gate) -> Self {
        Self { gate, first_tokens: Default::default() }
    }
}

impl ModelRunner for ScriptedRunner {
    fn execute_model(&mut self, scheduler_output: &SchedulerOutput) -> Result<ModelRunnerOutput, ModelError> {
        self.gate.pass();
        let mut output = ModelRunnerOutput::default();
        for sequence in &scheduler_output.scheduled_seqs {
            if sequence.num_computed_tokens == 0 {
                self.first_tokens.insert(sequence.request_id.clone(), sequence.token_ids[0]);
            }
            let first = self.first_tokens.get(&sequence.request_id).copied().unwrap_or_default();
            if first == FAIL {
                return Err(ModelError::Execution("told to fail".into()));
            }
            output.sampled_token_ids.push(sequence.sampling.as_ref().map(|sampling| {
                let position = sampling.position as usize;
                match first {
                    SHORT if position == 4 => EOS,
                    _ => u32::from(SCRIPT.as_bytes()[position % SCRIPT.len()]),
                }
            }));
        }
        Ok(output)
    }
}

/// One token for each byte, and one that ends the text.
pub fn tokenizer() -> Tokenizer {
    let dir = tempfile::tempdir().expect("a temporary directory");
    std::fs::write(dir.path().join("tokenizer.json"), tokenizer_json().to_string()).expect("a written file");
    Tokenizer::load(dir.path()).expect("a tokenizer")
}

/// The `tokenizer.json` of [`tokenizer`].
pub fn tokenizer_json() -> serde_json::Value {
    let vocab: serde_json::Map<_, _> =
        (0..=255u8).map(|byte| (byte_char(byte).to_string(), u32::from(byte).into())).collect();
    let eos = serde_json::json!({
        "id": EOS, "content": "</s>", "single_word": false, "lstrip": false, "rstrip": false, "normalized": false,
        "special": true,
    });
    let byte_level =
        serde_json::json!({"type": "ByteLevel", "add_prefix_space": false, "trim_offsets": false, "use_regex": false});
    serde_json::json!({
        "version": "1.0", "truncation": null, "padding": null, "added_tokens": [eos], "normalizer": null,
        "pre_tokenizer": byte_level, "post_processor": null, "decoder": byte_level,
        "model": {
            "type": "BPE", "dropout": null, "unk_token": null, "continuing_subword_prefix": null,
            "end_of_word_suffix": null, "fuse_unk": false, "byte_fallback": false, "ignore_merges": false,
            "vocab": vocab, "merges": [],
        },
    })
}

/// The printable character that stands for a byte in byte-level vocabularies (GPT-2's table).
fn byte_char(byte: u8) -> char {
    let printable = |byte: u8| matches!(byte, b'!'..=b'~' | 0xa1..=0xac | 0xae..=0xff);
    match printable(byte) {
        true => char::from(byte),
        false => {
            let rank = (0..byte).filter(|other| !printable(*other)).count() as u32;
            char::from_u32(256 + rank).expect("a character of the Latin extensions")
        }
    }
}

//! Loading models: what is written is read back, and what is broken is refused with the reason.

use std::path::Path;

use burn::tensor::Device;
use example_engine::model::{self, CausalAttention, Llama, LlamaModel, LoadError, ModelConfig};
use half::{bf16, f16};
use safetensors::tensor::{Dtype, SafeTensors, TensorView};
use serde_json::{Value, json};
use tempfile::TempDir;

fn config_json() -> Value {
    json!({
        "architectures": ["LlamaForCausalLM"], "vocab_size": 19, "hidden_size": 8, "intermediate_size": 12,
        "num_hidden_layers": 1, "num_attention_heads": 2, "num_key_value_heads": 1, "max_position_embeddings": 32,
        "tie_word_embeddings": false, "eos_token_id": 3,
    })
}

fn llama() -> Llama {
    let device = Device::flex();
    let config: ModelConfig = serde_json::from_value(config_json()).unwrap();
    Llama { model: LlamaModel::init(&config, &device), config }
}

fn logits(llama: &Llama) -> Vec<f32> {
    let hidden = llama.forward(&[1, 5, 7], &[0, 1, 2], &mut CausalAttention::new(1, 3, &Device::flex()));
    llama.logits(hidden).try_to_vec_as::<f32>().unwrap()
}

#[track_caller]
fn assert_close(a: &[f32], b: &[f32], tolerance: f32) {
    let difference = a.iter().zip(b).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max);
    assert!(difference <= tolerance, "logits differ by {difference}");
}

/// A directory with a saved model.
fn saved() -> (TempDir, Llama) {
    let (dir, llama) = (tempfile::tempdir().unwrap(), llama());
    model::save(dir.path(), &llama).unwrap();
    (dir, llama)
}

/// A tensor of a file: name, type, shape, bytes.
type FileTensor = (String, Dtype, Vec<usize>, Vec<u8>);

/// Takes a tensor's name and values, and pushes what shall stand in its place.
type Edit<'a> = dyn Fn(&str, &[f32], &mut Vec<FileTensor>) + 'a;

/// Writes the weights anew, each tensor as `edit` makes it.
fn rewrite(dir: &Path, edit: &Edit<'_>) {
    let path = dir.join("model.safetensors");
    let bytes = std::fs::read(&path).unwrap();
    let mut edited = Vec::new();
    for (name, view) in SafeTensors::deserialize(&bytes).unwrap().tensors() {
        let values: Vec<f32> =
            view.data().as_chunks().0.iter().map(|bytes| f16::from_le_bytes(*bytes).to_f32()).collect();
        let before = edited.len();
        edit(&name, &values, &mut edited);
        for (_, _, shape, _) in &mut edited[before..] {
            if shape.is_empty() {
                *shape = view.shape().to_vec();
            }
        }
    }
    let views =
        edited.iter().map(|(name, dtype, shape, bytes)| (name, TensorView::new(*dtype, shape.clone(), bytes).unwrap()));
    std::fs::write(path, safetensors::serialize(views, None).unwrap()).unwrap();
}

fn f32_bytes(values: &[f32]) -> Vec<u8> {
    values.iter().flat_map(|value| value.to_le_bytes()).collect()
}

#[track_caller]
fn refusal(dir: &Path) -> String {
    model::load(dir, &Device::flex()).expect_err("the model is refused").to_string()
}

#[test]
fn a_saved_model_loads_with_the_same_logits_from_f16_bf16_and_f32() {
    let (dir, llama) = saved();
    let expected = logits(&llama);
    let loaded = model::load(dir.path(), &Device::flex()).unwrap();
    assert_eq!(loaded.config, llama.config);
    assert_close(&logits(&loaded), &expected, 1e-3);
    let f16 = logits(&loaded);
    rewrite(dir.path(), &|name, values, out| out.push((name.to_owned(), Dtype::F32, vec![], f32_bytes(values))));
    assert_close(&logits(&model::load(dir.path(), &Device::flex()).unwrap()), &f16, 0.0);

    let (dir, llama) = saved();
    rewrite(dir.path(), &|name, values, out| {
        let bytes = values.iter().flat_map(|value| bf16::from_f32(*value).to_le_bytes()).collect();
        out.push((name.to_owned(), Dtype::BF16, vec![], bytes));
    });
    assert_close(&logits(&model::load(dir.path(), &Device::flex()).unwrap()), &logits(&llama), 1e-2);
}

#[test]
fn broken_weights_are_refused_with_the_tensor_and_the_reason() {
    let edited = |edit: &Edit<'_>| {
        let (dir, _) = saved();
        rewrite(dir.path(), edit);
        refusal(dir.path())
    };
    let keep = |name: &str, values: &[f32]| (name.to_owned(), Dtype::F32, vec![], f32_bytes(values));
    let missing = edited(&|name, values, out| {
        if name != "model.norm.weight" {
            out.push(keep(name, values));
        }
    });
    assert!(missing.ends_with("model.safetensors: tensor model.norm.weight is missing"), "{missing}");
    let shape = edited(&|name, values, out| {
        out.push(match name {
            "model.norm.weight" => (name.to_owned(), Dtype::F32, vec![4], f32_bytes(&values[..4])),
            _ => keep(name, values),
        });
    });
    assert!(shape.ends_with("tensor model.norm.weight has shape [4]; config.json says [8]"), "{shape}");
    let nan = edited(&|name, values, out| {
        let mut values = values.to_vec();
        if name == "lm_head.weight" {
            values[7] = f32::NAN;
        }
        out.push(keep(name, &values));
    });
    assert!(nan.ends_with("tensor lm_head.weight has a value that is not finite"), "{nan}");
    let extra = edited(&|name, values, out| {
        out.push(keep(name, values));
        if name == "model.norm.weight" {
            out.push(keep("model.norm.bias", values));
        }
    });
    assert!(extra.ends_with("tensor model.norm.bias is not part of a LlamaForCausalLM"), "{extra}");
    let wrong_type =
        edited(&|name, values, out| out.push((name.to_owned(), Dtype::F64, vec![], f32_bytes(values).repeat(2))));
    assert!(wrong_type.contains("is F64; f16, bf16 and f32 can be read"), "{wrong_type}");

    let (dir, _) = saved();
    let path = dir.path().join("model.safetensors");
    let bytes = std::fs::read(&path).unwrap();
    for bytes in [&bytes[..bytes.len() - 1], &bytes[..20], b"", &[0xff; 64]] {
        std::fs::write(&path, bytes).unwrap();
        assert!(refusal(dir.path()).contains("not a safetensors file"));
    }
    std::fs::remove_file(&path).unwrap();
    assert!(matches!(model::load(dir.path(), &Device::flex()), Err(LoadError::Io { .. })));
}

#[test]
fn a_model_that_this_engine_does_not_run_is_refused_before_its_weights_are_read() {
    let refused = |key: &str, value: Value| {
        let dir = tempfile::tempdir().unwrap();
        let mut config = config_json();
        config[key] = value;
        std::fs::write(dir.path().join("config.json"), config.to_string()).unwrap();
        refusal(dir.path())
    };
    for (key, value, reason) in [
        ("architectures", json!(["Qwen3ForCausalLM"]), "unsupported architecture [\"Qwen3ForCausalLM\"]"),
        ("architectures", json!([]), "unsupported architecture []"),
        ("architectures", json!(null), "invalid type"),
        ("hidden_act", json!("gelu"), "hidden_act is \"gelu\""),
        ("attention_bias", json!(true), "attention_bias is set"),
        ("quantization_config", json!({"quant_method": "gptq", "bits": 4}), "quantization_config is set"),
        ("rope_scaling", json!({"rope_type": "llama3", "factor": 8.0}), "the rotary positions are scaled"),
        ("rope_parameters", json!({"rope_type": "yarn", "rope_theta": 1e4}), "the rotary positions are scaled"),
        ("num_key_value_heads", json!(3), "2 query heads cannot share 3"),
        ("head_dim", json!(3), "head_dim is 3"),
        ("hidden_size", json!(0), "hidden_size is 0"),
        ("vocab_size", json!(1u64 << 40), "vocab_size is 1099511627776"),
        ("vocab_size", json!("many"), "invalid type"),
        ("rms_norm_eps", json!(-1.0), "rms_norm_eps is -1"),
        ("eos_token_id", json!([3, 19]), "eos_token_id 19 is outside the vocabulary of 19"),
    ] {
        let text = refused(key, value);
        assert!(text.contains(reason) && text.contains("config.json"), "{key}: {text}");
    }
}

#[test]
fn another_architecture_is_named_although_its_fields_have_other_names() {
    let dir = tempfile::tempdir().unwrap();
    let gpt2 = json!({
        "architectures": ["GPT2LMHeadModel"], "activation_function": "gelu_new", "n_ctx": 1024, "n_embd": 768,
        "n_head": 12, "n_layer": 12, "vocab_size": 50257,
    });
    std::fs::write(dir.path().join("config.json"), gpt2.to_string()).unwrap();
    let text = refusal(dir.path());
    assert!(
        text.contains("unsupported architecture [\"GPT2LMHeadModel\"]; this engine runs LlamaForCausalLM"),
        "{text}"
    );
    std::fs::write(dir.path().join("config.json"), r#"["GPT2LMHeadModel"]"#).unwrap();
    let text = refusal(dir.path());
    assert!(text.contains("invalid") && !text.contains("unsupported"), "{text}");
}

#[test]
fn end_tokens_come_from_both_configs_and_newer_files_keep_theta_elsewhere() {
    let dir = tempfile::tempdir().unwrap();
    let mut json = config_json();
    json["rope_parameters"] = json!({"rope_type": "default", "rope_theta": 500000.0});
    std::fs::write(dir.path().join("config.json"), json.to_string()).unwrap();
    std::fs::write(dir.path().join("generation_config.json"), r#"{"eos_token_id": [5, 3]}"#).unwrap();
    let config = ModelConfig::load(dir.path()).unwrap();
    assert_eq!((config.eos_token_id, config.rope_theta), (vec![3, 5], 500_000.0));
}

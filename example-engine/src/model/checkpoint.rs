//! `model.safetensors`: reading and writing the parameters.

use std::collections::HashMap;
use std::path::Path;

use burn::module::Param;
use burn::nn::Linear;
use burn::tensor::{Device, Tensor, TensorData};
use half::{bf16, f16};
use safetensors::tensor::{Dtype, SafeTensors, TensorView};

use super::config::ModelConfig;
use super::error::LoadError;
use super::llama::{Llama, LlamaModel};

const CONFIG: &str = "config.json";
const WEIGHTS: &str = "model.safetensors";

/// Loads the model of a directory onto a device.
///
/// # Errors
/// A file is missing or broken, a tensor is missing, unexpected, of the wrong shape or type or not finite, or the model
/// is not one that this engine runs.
pub fn load(dir: &Path, device: &Device) -> Result<Llama, LoadError> {
    let config = ModelConfig::load(dir)?;
    let path = dir.join(WEIGHTS);
    let bytes = std::fs::read(&path).map_err(LoadError::io(&path))?;
    let model = read(&bytes, &config, device).map_err(|reason| LoadError::broken(&path, reason))?;
    Ok(Llama { config, model })
}

/// Writes a model as `config.json` and `model.safetensors`, in f16.
///
/// # Errors
/// A file cannot be written, or a weight is outside the range of f16.
pub fn save(dir: &Path, llama: &Llama) -> Result<(), LoadError> {
    let path = dir.join(WEIGHTS);
    let mut model = llama.model.clone();
    let mut tensors = Vec::new();
    visit(&mut model, &mut |name: &str, parameter: Parameter<'_>| {
        let (shape, values) = parameter.read()?;
        let halves = values.iter().map(|&value| f16::from_f32(value));
        let bytes = halves.map(|half| if half.is_finite() { Ok(half.to_le_bytes()) } else { Err(()) });
        let bytes: Vec<_> =
            bytes.collect::<Result<_, _>>().map_err(|()| format!("{name} is outside the range of f16"))?;
        tensors.push((name.to_owned(), shape, bytes.concat()));
        Ok(())
    })
    .map_err(|reason| LoadError::broken(&path, reason))?;
    let views = tensors.iter().map(|(name, shape, bytes)| {
        let view = TensorView::new(Dtype::F16, shape.clone(), bytes).expect("the bytes were made for the shape");
        (name, view)
    });
    let metadata = HashMap::from([("format".to_owned(), "pt".to_owned())]);
    let file = safetensors::serialize(views, Some(metadata)).map_err(|error| LoadError::broken(&path, error))?;
    std::fs::write(&path, file).map_err(LoadError::io(&path))?;
    let path = dir.join(CONFIG);
    let config = serde_json::to_string_pretty(&llama.config).expect("a config has only JSON's types");
    std::fs::write(&path, config + "\n").map_err(LoadError::io(&path))
}

fn read(bytes: &[u8], config: &ModelConfig, device: &Device) -> Result<LlamaModel, String> {
    let file = SafeTensors::deserialize(bytes).map_err(|error| format!("not a safetensors file: {error}"))?;
    let mut names: Vec<&str> = file.names();
    let mut model = LlamaModel::init(config, device);
    visit(&mut model, &mut |name: &str, parameter: Parameter<'_>| {
        names.retain(|other| *other != name);
        let view = file.tensor(name).map_err(|_| format!("tensor {name} is missing"))?;
        let shape = parameter.shape();
        if view.shape() != shape {
            return Err(format!("tensor {name} has shape {:?}; config.json says {shape:?}", view.shape()));
        }
        let values = to_f32(&view).map_err(|reason| format!("tensor {name} {reason}"))?;
        parameter.write(values, device);
        Ok(())
    })?;
    // Old files keep the rotary frequencies, which follow from the config; tied ones may keep a copy of the embeddings.
    let tied = |name: &str| config.tie_word_embeddings && name == "lm_head.weight";
    names.retain(|name| !(name.ends_with(".rotary_emb.inv_freq") || tied(name)));
    match names.as_slice() {
        [] => Ok(model),
        [name, ..] => Err(format!("tensor {name} is not part of a LlamaForCausalLM")),
    }
}

fn to_f32(view: &TensorView<'_>) -> Result<Vec<f32>, String> {
    let data = view.data();
    let values: Vec<f32> = match view.dtype() {
        Dtype::F32 => data.as_chunks().0.iter().map(|bytes| f32::from_le_bytes(*bytes)).collect(),
        Dtype::F16 => data.as_chunks().0.iter().map(|bytes| f16::from_le_bytes(*bytes).to_f32()).collect(),
        Dtype::BF16 => data.as_chunks().0.iter().map(|bytes| bf16::from_le_bytes(*bytes).to_f32()).collect(),
        other => return Err(format!("is {other:?}; f16, bf16 and f32 can be read")),
    };
    if values.iter().all(|value| value.is_finite()) {
        Ok(values)
    } else {
        Err("has a value that is not finite".to_owned())
    }
}

/// One parameter in the model. Hugging Face stores linear layers `[out, in]`, burn `[in, out]`.
enum Parameter<'a> {
    Vector(&'a mut Param<Tensor<1>>),
    Matrix(&'a mut Param<Tensor<2>>),
    Linear(&'a mut Linear),
}

impl Parameter<'_> {
    /// As it stands in the file. Lazy, so that a config of absurd sizes is refused before anything is allocated.
    fn shape(&self) -> Vec<usize> {
        match self {
            Self::Vector(param) => param.lazy_shape().to_vec(),
            Self::Matrix(param) => param.lazy_shape().to_vec(),
            Self::Linear(linear) => linear.weight.lazy_shape().to_vec().into_iter().rev().collect(),
        }
    }

    fn read(&self) -> Result<(Vec<usize>, Vec<f32>), String> {
        let data = match self {
            Self::Vector(param) => param.val().try_to_vec_as::<f32>(),
            Self::Matrix(param) => param.val().try_to_vec_as::<f32>(),
            Self::Linear(linear) => linear.weight.val().transpose().try_to_vec_as::<f32>(),
        };
        Ok((self.shape(), data.map_err(|error| error.to_string())?))
    }

    fn write(self, values: Vec<f32>, device: &Device) {
        let shape = self.shape();
        let data = TensorData::new(values, shape.clone());
        match self {
            Self::Vector(param) => *param = Param::from_data(data, device),
            Self::Matrix(param) => *param = Param::from_data(data, device),
            Self::Linear(linear) => {
                let (input, output) = (shape[1], shape[0]);
                let weight = Tensor::<2>::from_data(data, device).transpose();
                // A copy in the new order, once, instead of a strided read in every step.
                let weight = weight.reshape([input * output]).reshape([input, output]);
                linear.weight = Param::from_tensor(weight);
            }
        }
    }
}

type Visitor<'a> = dyn FnMut(&str, Parameter<'_>) -> Result<(), String> + 'a;

/// Shows every parameter with its name in the file.
fn visit(model: &mut LlamaModel, visitor: &mut Visitor<'_>) -> Result<(), String> {
    visitor("model.embed_tokens.weight", Parameter::Matrix(&mut model.embed_tokens.weight))?;
    for (index, layer) in model.layers.iter_mut().enumerate() {
        let mut visitor =
            |name: &str, parameter: Parameter<'_>| visitor(&format!("model.layers.{index}.{name}.weight"), parameter);
        visitor("input_layernorm", Parameter::Vector(&mut layer.input_layernorm.gamma))?;
        visitor("self_attn.q_proj", Parameter::Linear(&mut layer.self_attn.q_proj))?;
        visitor("self_attn.k_proj", Parameter::Linear(&mut layer.self_attn.k_proj))?;
        visitor("self_attn.v_proj", Parameter::Linear(&mut layer.self_attn.v_proj))?;
        visitor("self_attn.o_proj", Parameter::Linear(&mut layer.self_attn.o_proj))?;
        visitor("post_attention_layernorm", Parameter::Vector(&mut layer.post_attention_layernorm.gamma))?;
        visitor("mlp.gate_proj", Parameter::Linear(&mut layer.mlp.gate_proj))?;
        visitor("mlp.up_proj", Parameter::Linear(&mut layer.mlp.up_proj))?;
        visitor("mlp.down_proj", Parameter::Linear(&mut layer.mlp.down_proj))?;
    }
    visitor("model.norm.weight", Parameter::Vector(&mut model.norm.gamma))?;
    if let Some(lm_head) = &mut model.lm_head {
        visitor("lm_head.weight", Parameter::Matrix(lm_head))?;
    }
    Ok(())
}

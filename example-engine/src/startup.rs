//! From flags to a model, a tokenizer and a running core.

use std::path::{Path, PathBuf};
use std::{fs, io};

use crate::api::{ChatTemplate, ModelCard, TemplateError};
use crate::config::{DeviceArg, EngineArgs};
use crate::engine::{EngineCore, StartError};
use crate::model::{self, LoadError, ModelConfig};
use crate::model_runner::{DeviceChoice, DeviceError, GpuModelRunner, SelectedDevice};
use crate::tokenizer::Tokenizer;

/// Name of the demo model towards clients.
const DEMO_MODEL: &str = "demo";

/// Why an engine does not start.
#[derive(Debug, thiserror::Error)]
pub enum StartupError {
    /// The checkpoint cannot be used.
    #[error("{0}")]
    Model(#[from] LoadError),
    /// Its chat template cannot be used.
    #[error("{}: {error}", path.display())]
    Template {
        /// The checkpoint.
        path: PathBuf,
        /// Why.
        error: TemplateError,
    },
    /// A file of it cannot be read.
    #[error("{}: {error}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// Why.
        error: io::Error,
    },
    /// The model cannot see as much as was asked for.
    #[error("--max-model-len is {asked}, but the model sees {longest} tokens at most")]
    MaxModelLen {
        /// What was asked for.
        asked: usize,
        /// What the model can.
        longest: usize,
    },
    /// There is no such device.
    #[error("{0}")]
    Device(#[from] DeviceError),
    /// The core does not start.
    #[error("{0}")]
    Core(#[from] StartError),
}

/// What the API needs of a checkpoint. An API without a core of its own needs no weights.
#[derive(Debug)]
pub struct Front {
    /// The tokenizer.
    pub tokenizer: Tokenizer,
    /// The chat template.
    pub template: ChatTemplate,
    /// What the model is.
    pub card: ModelCard,
    /// The architecture.
    pub config: ModelConfig,
    /// Where it is.
    pub dir: PathBuf,
}

impl Front {
    /// Loads everything but the weights.
    ///
    /// # Errors
    /// A file is missing, or not what it should be.
    pub fn load(args: &EngineArgs, served_name: Option<&str>) -> Result<Self, StartupError> {
        let dir = args.model.clone().unwrap_or_else(default_model);
        let config = ModelConfig::load(&dir)?;
        let longest = config.max_position_embeddings;
        if let Some(asked) = args.max_model_len.filter(|asked| *asked > longest) {
            return Err(StartupError::MaxModelLen { asked, longest });
        }
        let tokenizer = Tokenizer::load(&dir)?;
        let settings = read_if_there(&dir.join("tokenizer_config.json"))?;
        let template = read_if_there(&dir.join("chat_template.jinja"))?;
        let template = ChatTemplate::load(settings.as_deref(), template)
            .map_err(|error| StartupError::Template { path: dir.clone(), error })?;
        let name = match (served_name, &args.model, dir.file_name()) {
            (Some(name), _, _) => name.to_owned(),
            (None, None, _) => DEMO_MODEL.to_owned(),
            (None, Some(_), Some(name)) => name.to_string_lossy().into_owned(),
            (None, Some(_), None) => dir.display().to_string(),
        };
        let card =
            ModelCard { name, max_model_len: args.max_model_len.unwrap_or(longest), vocab_size: config.vocab_size };
        Ok(Self { tokenizer, template, card, config, dir })
    }

    /// Loads the weights, and starts a core with them.
    ///
    /// # Errors
    /// The weights or the device cannot be used, or a setting cannot work.
    pub fn start_core(&self, args: &EngineArgs) -> Result<EngineCore, StartupError> {
        let device = SelectedDevice::select(match args.device {
            DeviceArg::Auto => DeviceChoice::Auto,
            DeviceArg::Cpu => DeviceChoice::Cpu,
            DeviceArg::Gpu => DeviceChoice::Gpu,
        })?;
        let config = args.engine_config(&self.config);
        // Before the cache is allocated after them.
        config.validate()?;
        journey_layer::tracing::info!("model {} on {}", self.card.name, device.name);
        let llama = model::load(&self.dir, &device.device)?;
        let runner = GpuModelRunner::new(llama, &device, config.num_blocks, config.block_size);
        Ok(EngineCore::start(config, Box::new(runner))?)
    }
}

fn read_if_there(path: &Path) -> Result<Option<String>, StartupError> {
    match fs::read_to_string(path) {
        Ok(text) => Ok(Some(text)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(StartupError::Read { path: path.to_owned(), error }),
    }
}

/// The demo model: it is part of the sources.
fn default_model() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("model")
}

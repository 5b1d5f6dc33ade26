//! Runs the model on what the scheduler put together.

mod device;
mod gpu_model_runner;
mod input_batch;
mod io;
mod paged_attention;
mod sampler;

pub use device::{DeviceChoice, DeviceError, SelectedDevice};
pub use gpu_model_runner::GpuModelRunner;
pub use io::{ModelRunnerOutput, Sampling, ScheduledSequence, SchedulerOutput};

/// Why a step failed. The sequences in it end with this text.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ModelError {
    /// The batch does not fit the model: a mistake of the scheduler.
    #[error("the batch is not one for this model: {0}")]
    Batch(String),
    /// The device or the framework failed.
    #[error("the model failed: {0}")]
    Execution(String),
}

/// Something that computes a batch. It owns the KV cache's memory; the scheduler owns who uses which block.
pub trait ModelRunner: Send {
    /// Computes the scheduled tokens, writes their KV into the blocks, and chooses the next tokens.
    ///
    /// # Errors
    /// Why the step brought nothing. What it wrote to the blocks of its sequences is then unknown.
    fn execute_model(&mut self, scheduler_output: &SchedulerOutput) -> Result<ModelRunnerOutput, ModelError>;
}

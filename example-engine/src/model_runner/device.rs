//! Which device computes.

use burn::tensor::Device;
use journey_layer::tracing::warn;

/// What the user asks for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum DeviceChoice {
    /// The best GPU where there is one, else the CPU.
    #[default]
    Auto,
    /// The CPU.
    Cpu,
    /// The best GPU.
    Gpu,
}

/// The device that was chosen.
#[derive(Clone, Debug)]
pub struct SelectedDevice {
    /// For tensors.
    pub device: Device,
    /// For people.
    pub name: String,
}

/// Why there is no such device.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum DeviceError {
    /// This build has no GPU support.
    #[error("this build has no GPU support; build with `--features gpu`, or take `--device cpu`")]
    NotBuilt,
    /// No adapter was found.
    #[error("no GPU was found (Vulkan, Metal or DX12); install a driver, or take `--device cpu`")]
    NoAdapter,
    /// An adapter was found, but it does not start.
    #[error("the GPU {name} does not start: {reason}; update its driver, or take `--device cpu`")]
    Broken {
        /// The adapter.
        name: String,
        /// What the driver says.
        reason: String,
    },
}

impl SelectedDevice {
    /// The CPU.
    pub fn cpu() -> Self {
        Self { device: Device::flex(), name: "cpu (flex)".to_owned() }
    }

    /// Chooses a device. `Auto` takes the CPU whenever there is no GPU that starts, software adapters not counted, and
    /// warns of one that does not.
    ///
    /// # Errors
    /// `Gpu` was asked for, and there is none.
    pub fn select(choice: DeviceChoice) -> Result<Self, DeviceError> {
        match choice {
            DeviceChoice::Cpu => Ok(Self::cpu()),
            DeviceChoice::Gpu => gpu::select(true),
            DeviceChoice::Auto => Ok(gpu::select(false).unwrap_or_else(|error| {
                if let DeviceError::Broken { .. } = error {
                    warn!("{error}");
                }
                Self::cpu()
            })),
        }
    }
}

#[cfg(not(feature = "gpu"))]
mod gpu {
    use super::{DeviceError, SelectedDevice};

    pub(super) fn select(_software: bool) -> Result<SelectedDevice, DeviceError> {
        Err(DeviceError::NotBuilt)
    }
}

#[cfg(feature = "gpu")]
mod gpu;

//! GPUs through wgpu.

use std::sync::OnceLock;

use burn::tensor::wgpu::{WgpuBackend, wgpu};
use burn::tensor::{Device, DeviceKind};
use futures_util::FutureExt;

use super::{DeviceError, SelectedDevice};

/// Takes the best adapter and starts it. A software adapter counts only when `software`.
///
/// Adapters are enumerated first, because the framework panics on a thread of its own when it finds none.
pub(super) fn select(software: bool) -> Result<SelectedDevice, DeviceError> {
    // A runtime starts once in a process; whoever asks again shares it.
    static STARTED: OnceLock<Result<SelectedDevice, DeviceError>> = OnceLock::new();
    let adapter = best_adapter().filter(|info| software || info.device_type != wgpu::DeviceType::Cpu);
    let info = adapter.ok_or(DeviceError::NoAdapter)?;
    STARTED.get_or_init(|| start(&info)).clone()
}

fn best_adapter() -> Option<wgpu::AdapterInfo> {
    let mut descriptor = wgpu::InstanceDescriptor::new_without_display_handle();
    descriptor.backends = wgpu::Backends::VULKAN | wgpu::Backends::METAL | wgpu::Backends::DX12;
    let instance = wgpu::Instance::new(descriptor);
    // Asynchronous for browsers alone: here it is ready at once.
    let adapters = instance.enumerate_adapters(wgpu::Backends::all()).now_or_never().unwrap_or_default();
    adapters.iter().map(wgpu::Adapter::get_info).min_by_key(|info| rank(info.device_type))
}

/// Lower is better.
fn rank(device_type: wgpu::DeviceType) -> u8 {
    match device_type {
        wgpu::DeviceType::DiscreteGpu => 0,
        wgpu::DeviceType::IntegratedGpu => 1,
        wgpu::DeviceType::VirtualGpu => 2,
        wgpu::DeviceType::Other => 3,
        wgpu::DeviceType::Cpu => 4,
    }
}

fn start(info: &wgpu::AdapterInfo) -> Result<SelectedDevice, DeviceError> {
    let broken = |reason: String| DeviceError::Broken { name: info.name.clone(), reason };
    let kind = match info.device_type {
        wgpu::DeviceType::DiscreteGpu => DeviceKind::DiscreteGpu(0),
        wgpu::DeviceType::IntegratedGpu => DeviceKind::IntegratedGpu(0),
        wgpu::DeviceType::VirtualGpu => DeviceKind::VirtualGpu(0),
        wgpu::DeviceType::Cpu => DeviceKind::Cpu,
        wgpu::DeviceType::Other => return Err(broken("its kind is unknown".to_owned())),
    };
    let api = match info.backend {
        wgpu::Backend::Vulkan => WgpuBackend::Vulkan,
        wgpu::Backend::Metal => WgpuBackend::Metal,
        wgpu::Backend::Dx12 => WgpuBackend::Dx12,
        other => return Err(broken(format!("its interface {other:?} is not supported"))),
    };
    let options = Device::wgpu_options().device_kind(kind).graphics_api(api);
    let device = options.init().map_err(|error| broken(error.to_string()))?;
    Ok(SelectedDevice { device, name: format!("{} ({}, {:?})", info.name, info.backend, info.device_type) })
}

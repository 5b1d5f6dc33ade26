//! Rotary position embeddings.

use burn::tensor::{Device, Tensor, TensorData};

/// Sines and cosines for a list of positions, the same for every layer and head.
#[derive(Clone, Debug)]
pub(super) struct Rotation {
    /// `[tokens, 1, head_dim / 2]`
    cos: Tensor<3>,
    sin: Tensor<3>,
}

impl Rotation {
    pub(super) fn new(positions: &[u32], head_dim: usize, theta: f64, device: &Device) -> Self {
        let half = head_dim / 2;
        let frequencies: Vec<f64> = (0..half).map(|index| theta.powf(-(index as f64) / half as f64)).collect();
        let angles =
            || positions.iter().flat_map(|&at| frequencies.iter().map(move |frequency| f64::from(at) * frequency));
        let tensor = |values: Vec<f32>| Tensor::from_data(TensorData::new(values, [positions.len(), 1, half]), device);
        Self {
            cos: tensor(angles().map(|angle| angle.cos() as f32).collect()),
            sin: tensor(angles().map(|angle| angle.sin() as f32).collect()),
        }
    }

    /// Turns each pair (i, i + head_dim / 2) of `[tokens, heads, head_dim]`: the layout of Hugging Face's weights.
    pub(super) fn apply(&self, x: Tensor<3>) -> Tensor<3> {
        let half = x.dims()[2] / 2;
        let first = x.clone().narrow(2, 0, half);
        let second = x.narrow(2, half, half);
        let (cos, sin) = (self.cos.clone(), self.sin.clone());
        Tensor::cat(vec![first.clone() * cos.clone() - second.clone() * sin.clone(), second * cos + first * sin], 2)
    }
}

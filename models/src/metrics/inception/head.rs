//! The network's last layer, from pool features to classes.

use super::{NETWORK, TERM};
use crate::{Device, ModelError, foundation::FrozenFile, layers::full_float32_product, parameters::Init};
use schemas::ScoredImages;
use std::path::Path;
use tch::Tensor;

/// Classes of the network: a thousand of ImageNet and eight that mean nothing.
pub(in crate::metrics) const CLASSES: usize = 1008;

/// The weight of the classifier. Its bias is not used: scores are defined without it (`logits_unbiased`).
#[derive(Debug)]
pub struct InceptionHead {
    /// float32 `[1008, 2048]`.
    weight: Tensor,
    device: Device,
}

impl InceptionHead {
    /// Reads `fc.weight` alone from the file of the network.
    ///
    /// # Errors
    /// When the file is missing, damaged, a pickle, or lacks it.
    pub fn load(file: &Path, device: Device) -> Result<Self, ModelError> {
        let _no_grad = tch::no_grad_guard();
        let frozen = FrozenFile { term: TERM, network: NETWORK, path: file };
        let shape = [CLASSES as i64, ScoredImages::POOL as i64];
        // The rest of the network is there too, and checked where it is read.
        let weight = frozen.load(device.torch(), |scope| scope.placed("fc.weight", &shape, Init::WEIGHT), |_| true)?;
        Ok(Self { weight, device })
    }

    /// The device.
    pub fn device(&self) -> Device {
        self.device
    }

    /// # Shapes
    /// `pool`: float32 `[n, 2048]`; returns float32 `[n, 1008]`.
    pub(in crate::metrics) fn logits(&self, pool: &Tensor) -> Result<Tensor, ModelError> {
        full_float32_product(pool, &self.weight.f_transpose(0, 1)?)
    }
}

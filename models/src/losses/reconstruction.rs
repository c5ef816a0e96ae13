//! How far the reconstructed pixels are from the original ones.

use crate::ModelError;
use serde::{Deserialize, Serialize};
use tch::{Kind, Reduction, Tensor};

/// How far a reconstruction is from its original, pixel by pixel.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum ReconstructionKind {
    /// Mean absolute difference.
    L1,
    /// Mean squared difference.
    L2,
}

/// The mean distance of pixels, a scalar in float32.
///
/// # Shapes
/// `target` and `reconstructed`: two tensors of one shape.
pub(crate) fn distance(
    kind: ReconstructionKind,
    target: &Tensor,
    reconstructed: &Tensor,
) -> Result<Tensor, ModelError> {
    let (target, reconstructed) = (target.f_to_kind(Kind::Float)?, reconstructed.f_to_kind(Kind::Float)?);
    Ok(match kind {
        ReconstructionKind::L1 => reconstructed.f_l1_loss(&target, Reduction::Mean)?,
        ReconstructionKind::L2 => reconstructed.f_mse_loss(&target, Reduction::Mean)?,
    })
}

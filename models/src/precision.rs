//! The numbers a model computes in.

use crate::{Device, torch_switches};
use schemas::SchemaError;
use serde::{Deserialize, Serialize};
use std::{fmt, str::FromStr};
use tch::Kind;

/// Precision of the encoder and of the decoder's transformer.
///
/// Whatever is chosen here, the quantizer, the heads in front of it and the convolutional pixel decoder compute in float32, as
/// the published code does; layer norms and the residual stream of the transformers do too, which is what PyTorch's autocast
/// makes of the published training. Tokens differ a little between precisions, so every table names its own.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Precision {
    /// float32 throughout. On CUDA too: TensorFloat-32 is switched off.
    #[default]
    Fp32,
    /// float32, with products and convolutions through TensorFloat-32 on CUDA. On a CPU the same as [`Self::Fp32`].
    Tf32,
    /// bfloat16 weights and activations.
    Bf16,
    /// float16 weights and activations.
    Fp16,
}

impl Precision {
    /// All precisions.
    pub const ALL: [Self; 4] = [Self::Fp32, Self::Tf32, Self::Bf16, Self::Fp16];

    /// Its name in settings and tables.
    pub fn name(self) -> &'static str {
        match self {
            Self::Fp32 => "fp32",
            Self::Tf32 => "tf32",
            Self::Bf16 => "bf16",
            Self::Fp16 => "fp16",
        }
    }

    /// Whether `device` has instructions for this precision. Where it has not, results are right but slower than
    /// [`Self::Fp32`], by four times or more: worth a warning.
    pub fn is_native(self, device: Device) -> bool {
        match (self, device) {
            (Self::Fp32 | Self::Tf32, _) | (_, Device::Cuda(_)) => true,
            (Self::Bf16 | Self::Fp16, Device::Cpu) => {
                // The smallest weight that answers whether oneDNN has a kernel for its type.
                let weight = tch::Tensor::f_zeros([16, 16], (self.kind(), tch::Device::Cpu));
                weight.is_ok_and(|weight| torch_switches::pack_linear(&weight).is_ok())
            }
        }
    }

    pub(crate) fn kind(self) -> Kind {
        match self {
            Self::Fp32 | Self::Tf32 => Kind::Float,
            Self::Bf16 => Kind::BFloat16,
            Self::Fp16 => Kind::Half,
        }
    }
}

impl fmt::Display for Precision {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(self.name())
    }
}

impl FromStr for Precision {
    type Err = SchemaError;

    fn from_str(name: &str) -> Result<Self, SchemaError> {
        Self::ALL.into_iter().find(|precision| precision.name() == name).ok_or_else(|| SchemaError::UnknownName {
            what: "precision",
            found: name.to_owned(),
            expected: "fp32, tf32, bf16 or fp16".to_owned(),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_reads_back_as_its_precision() {
        for precision in Precision::ALL {
            assert_eq!(precision.to_string().parse::<Precision>().expect("own name"), precision);
        }
        let refused = "fp8".parse::<Precision>().expect_err("not a precision of ours").to_string();
        assert!(refused.contains("fp8") && refused.contains("bf16"), "{refused}");
    }
}

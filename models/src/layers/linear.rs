//! `y = x W^T + b`, through whichever library multiplies fastest on the device.
//!
//! On a CPU that is oneDNN over a weight packed once at load. torch's own float32 `linear` goes through MKL, which is slow on some
//! processors (AMD's with AVX-512 among them) and packs the weight anew at every call on all. The choice is made here and nowhere
//! else, by what the device is and not by a stopwatch: a measured choice could differ between two runs on the same machine, and
//! with it the last bit of a code's distance.

use super::full_float32_product;
use crate::{
    ModelError,
    parameters::{Init, Scope},
    torch_switches,
};
use tch::{Device, Kind, Tensor};

/// What follows the product.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Activation {
    None,
    /// x Φ(x), by erf; not the tanh approximation.
    GeluExact,
}

#[derive(Debug)]
enum Weight {
    /// `[out, in]`, for torch's own `linear`.
    Plain(Tensor),
    /// oneDNN's layout.
    Packed(Tensor),
}

/// A linear layer.
#[derive(Debug)]
pub(crate) struct Linear {
    weight: Weight,
    bias: Option<Tensor>,
    kind: Kind,
    /// Whether float32 stays float32 on CUDA where the process lets it go through TensorFloat-32.
    full_float32: bool,
}

impl Linear {
    /// The layer `name` of `scope`: `[…, inputs]` to `[…, outputs]`.
    pub(crate) fn new(scope: &Scope<'_>, inputs: i64, outputs: i64) -> Result<Self, ModelError> {
        let weight = scope.tensor("weight", &[outputs, inputs], Init::WEIGHT)?;
        let bias = scope.tensor("bias", &[outputs], Init::Zeros)?;
        Self::from_tensors(scope, &weight, Some(&bias))
    }

    /// The same without a bias, with a weight drawn as `init`.
    pub(crate) fn without_bias(scope: &Scope<'_>, inputs: i64, outputs: i64, init: Init) -> Result<Self, ModelError> {
        let weight = scope.tensor("weight", &[outputs, inputs], init)?;
        Self::from_tensors(scope, &weight, None)
    }

    /// A layer of `weight`, `[out, in]`, and `bias`, `[out]`, both in float32.
    pub(crate) fn from_tensors(scope: &Scope<'_>, weight: &Tensor, bias: Option<&Tensor>) -> Result<Self, ModelError> {
        let weight = scope.place(&weight.f_contiguous()?)?;
        let bias = bias.map(|bias| scope.place(bias)).transpose()?;
        // Packing fails where oneDNN has no fast kernel for the type, as for bfloat16 on a CPU that lacks its instructions.
        // A weight in training is another one at every step and must stay in the graph of gradients.
        let packs = scope.device == Device::Cpu && !scope.trainable();
        let packed = if packs { torch_switches::pack_linear(&weight).ok() } else { None };
        let weight = packed.map_or_else(|| Weight::Plain(weight.shallow_clone()), Weight::Packed);
        Ok(Self { weight, bias, kind: scope.kind, full_float32: false })
    }

    /// A layer that is not trained, but through which gradients flow to its input: oneDNN's product over a packed weight has none.
    pub(crate) fn unpacked(scope: &Scope<'_>, weight: &Tensor, bias: Option<&Tensor>) -> Result<Self, ModelError> {
        let bias = bias.map(|bias| scope.place(bias)).transpose()?;
        Ok(Self { weight: Weight::Plain(scope.place(weight)?), bias, kind: scope.kind, full_float32: false })
    }

    /// The same, in float32 wherever it computes, but for products that gradients flow through.
    pub(crate) fn in_full_float32(self) -> Self {
        Self { full_float32: true, ..self }
    }

    /// # Shapes
    /// `input`: `[…, in]` of any float kind; returns `[…, out]` in the layer's kind.
    pub(crate) fn forward(&self, input: &Tensor, activation: Activation) -> Result<Tensor, ModelError> {
        let input = input.f_to_kind(self.kind)?;
        match &self.weight {
            Weight::Plain(weight) => {
                let gradients = input.requires_grad() || weight.requires_grad();
                let mut output = if self.full_float32 && input.device() != Device::Cpu && !gradients {
                    self.in_rows(&input, weight)?
                } else {
                    input.f_linear(weight, self.bias.as_ref())?
                };
                match activation {
                    Activation::None => Ok(output),
                    Activation::GeluExact if output.requires_grad() => Ok(output.f_gelu("none")?),
                    Activation::GeluExact => Ok(output.f_gelu_("none")?),
                }
            }
            Weight::Packed(weight) => torch_switches::packed_linear(
                &input.f_contiguous()?,
                weight,
                self.bias.as_ref(),
                activation == Activation::GeluExact,
            ),
        }
    }
}

impl Linear {
    /// The layer over a plain weight, as one product of matrices in full float32.
    fn in_rows(&self, input: &Tensor, weight: &Tensor) -> Result<Tensor, ModelError> {
        let mut shape = input.size();
        let inputs = shape.pop().unwrap_or_default();
        shape.extend(weight.size().first());
        let output = full_float32_product(&input.f_reshape([-1, inputs])?, &weight.f_transpose(0, 1)?)?
            .f_view(shape.as_slice())?;
        match &self.bias {
            Some(bias) => Ok(output.f_add(bias)?),
            None => Ok(output),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::parameters::Parameters;

    #[test]
    fn full_float32_is_the_same_layer() {
        let parameters = Parameters::random(4);
        let scope = parameters.root(Device::Cpu, Kind::Float);
        let weight = scope.tensor("weight", &[48, 32], Init::Normal(1.0)).expect("drawn");
        let bias = scope.tensor("bias", &[48], Init::Normal(1.0)).expect("drawn");
        let input = scope.tensor("input", &[2, 7, 32], Init::Normal(1.0)).expect("drawn");
        let layer = Linear::unpacked(&scope, &weight, Some(&bias)).expect("built").in_full_float32();
        let found = layer.in_rows(&input, &weight).expect("computed");
        let difference = (found - input.linear(&weight, Some(&bias))).abs().max().double_value(&[]);
        assert!(difference < 2e-5, "{difference}");
    }

    #[test]
    fn a_packed_layer_equals_torchs_own() {
        let parameters = Parameters::random(3);
        let scope = parameters.root(Device::Cpu, Kind::Float);
        let weight = scope.tensor("weight", &[48, 32], Init::Normal(1.0)).expect("drawn");
        let bias = scope.tensor("bias", &[48], Init::Normal(1.0)).expect("drawn");
        let input = scope.tensor("input", &[2, 7, 32], Init::Normal(1.0)).expect("drawn");
        let layer = Linear::from_tensors(&scope, &weight, Some(&bias)).expect("built");
        assert!(matches!(layer.weight, Weight::Packed(_)), "float32 is packed on every CPU");
        let plain = input.linear(&weight, Some(&bias));
        for (activation, expected) in
            [(Activation::None, plain.shallow_clone()), (Activation::GeluExact, plain.gelu("none"))]
        {
            let output = layer.forward(&input, activation).expect("computed");
            let difference = (output - expected).abs().max().double_value(&[]);
            assert!(difference < 2e-5, "{activation:?}: {difference}");
        }
    }
}

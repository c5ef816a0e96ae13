//! Convolutions over images in channels-last order, and the residual block of the pixel encoder and decoder.
//!
//! Channels-last is how oneDNN and cuDNN compute fastest : pixels arrive in that order, the weights are put into it once,
//! and every layer keeps it. Published as modeling/modules/maskgit_vqgan.py.

use super::add_into;
use crate::{
    ModelError, kernels,
    parameters::{Init, Scope},
};
use tch::Tensor;

/// Groups of the group norms.
pub(crate) const NORM_GROUPS: i64 = 32;
const NORM_EPSILON: f64 = 1e-6;

/// A convolution. In the tokenizer the size of the image stays (stride 1, odd kernel), or is divided by the kernel (stride =
/// kernel); others' networks have other strides and paddings.
#[derive(Debug)]
pub(crate) struct Convolution {
    weight: Tensor,
    bias: Option<Tensor>,
    stride: i64,
    /// Zeros around the image: rows above and below, columns left and right.
    padding: [i64; 2],
    /// Whether float32 stays float32 on CUDA where the process lets it go through TensorFloat-32.
    full_float32: bool,
}

impl Convolution {
    /// Keeps the image's size; `kernel` is odd.
    pub(crate) fn same(
        scope: &Scope<'_>,
        inputs: i64,
        outputs: i64,
        kernel: i64,
        with_bias: bool,
    ) -> Result<Self, ModelError> {
        Self::square(scope, [inputs, outputs], kernel, (1, kernel / 2), with_bias)
    }

    /// Cuts the image into patches of `kernel` by `kernel` pixels.
    pub(crate) fn patches(scope: &Scope<'_>, inputs: i64, outputs: i64, kernel: i64) -> Result<Self, ModelError> {
        Self::square(scope, [inputs, outputs], kernel, (kernel, 0), true)
    }

    /// With a kernel of `kernel` by `kernel`, a stride, and a padding on all sides.
    pub(crate) fn square(
        scope: &Scope<'_>,
        [inputs, outputs]: [i64; 2],
        kernel: i64,
        (stride, padding): (i64, i64),
        with_bias: bool,
    ) -> Result<Self, ModelError> {
        let weight = scope.tensor("weight", &[outputs, inputs, kernel, kernel], Init::WEIGHT)?;
        let bias = with_bias.then(|| scope.tensor("bias", &[outputs], Init::Zeros)).transpose()?;
        Self::from_tensors(scope, &weight, bias.as_ref(), stride, [padding; 2])
    }

    /// Keeps the image's size, with `weight`, `[outputs, inputs, kernel, kernel]`, whose kernel is odd, and `bias`, `[outputs]`.
    pub(crate) fn same_from_tensors(
        scope: &Scope<'_>,
        weight: &Tensor,
        bias: Option<&Tensor>,
    ) -> Result<Self, ModelError> {
        let (_, _, kernel, _) = weight.size4()?;
        Self::from_tensors(scope, weight, bias, 1, [kernel / 2; 2])
    }

    /// With `weight`, `[outputs, inputs, rows, columns]`, and `bias`, `[outputs]`.
    pub(crate) fn from_tensors(
        scope: &Scope<'_>,
        weight: &Tensor,
        bias: Option<&Tensor>,
        stride: i64,
        padding: [i64; 2],
    ) -> Result<Self, ModelError> {
        Ok(Self {
            weight: channels_last(&scope.place(weight)?)?,
            bias: bias.map(|bias| scope.place(bias)).transpose()?,
            stride,
            padding,
            full_float32: false,
        })
    }

    /// The same, in float32 wherever it computes: for networks whose numbers are compared with others'. Not for training.
    pub(crate) fn in_full_float32(self) -> Self {
        Self { full_float32: true, ..self }
    }

    /// # Shapes
    /// `input`: `[B, inputs, height, width]`, channels-last; returns `[B, outputs, …, …]`, the same.
    pub(crate) fn forward(&self, input: &Tensor) -> Result<Tensor, ModelError> {
        let (stride, bias) = ([self.stride; 2], self.bias.as_ref());
        if self.full_float32 {
            return full_float32_convolution(input, &self.weight, bias, stride, self.padding);
        }
        Ok(input.f_conv2d(&self.weight, bias, stride, self.padding, [1, 1], 1)?)
    }
}

/// torch's `conv2d` over one group, which never goes through TensorFloat-32 on CUDA, whatever the process allows.
pub(crate) fn full_float32_convolution(
    input: &Tensor,
    weight: &Tensor,
    bias: Option<&Tensor>,
    stride: [i64; 2],
    padding: [i64; 2],
) -> Result<Tensor, ModelError> {
    let (dilation, output_padding, groups, transposed) = ([1, 1], [0, 0], 1, false);
    // What `conv2d` passes on by default, but for the last.
    let (benchmark, deterministic, cudnn_enabled, allow_tf32) = (false, false, true, false);
    Ok(input.f_internal_convolution(
        weight,
        bias,
        stride,
        padding,
        dilation,
        transposed,
        output_padding,
        groups,
        benchmark,
        deterministic,
        cudnn_enabled,
        allow_tf32,
    )?)
}

/// The same values and shape with channels innermost in memory. tch has no memory formats; this is what they come to.
pub(crate) fn channels_last(tensor: &Tensor) -> Result<Tensor, ModelError> {
    Ok(tensor.f_permute([0, 2, 3, 1])?.f_contiguous()?.f_permute([0, 3, 1, 2])?)
}

/// Group norm and SiLU.
#[derive(Debug)]
pub(crate) struct SiluNorm {
    weight: Tensor,
    bias: Tensor,
}

impl SiluNorm {
    pub(crate) fn new(scope: &Scope<'_>, channels: i64) -> Result<Self, ModelError> {
        Ok(Self {
            weight: scope.place(&scope.tensor("weight", &[channels], Init::Ones)?)?,
            bias: scope.place(&scope.tensor("bias", &[channels], Init::Zeros)?)?,
        })
    }

    pub(crate) fn forward(&self, input: &Tensor) -> Result<Tensor, ModelError> {
        if let Some(output) = kernels::group_norm_silu(input, &self.weight, &self.bias, NORM_GROUPS, NORM_EPSILON)? {
            return Ok(output);
        }
        let mut output = input.f_group_norm(NORM_GROUPS, Some(&self.weight), Some(&self.bias), NORM_EPSILON, true)?;
        if output.requires_grad() { Ok(output.f_silu()?) } else { Ok(output.f_silu_()?) }
    }
}

/// Two convolutions and a shortcut around them.
#[derive(Debug)]
pub(crate) struct ResidualBlock {
    norm1: SiluNorm,
    conv1: Convolution,
    norm2: SiluNorm,
    conv2: Convolution,
    shortcut: Option<Convolution>,
}

impl ResidualBlock {
    pub(crate) fn new(scope: &Scope<'_>, inputs: i64, outputs: i64) -> Result<Self, ModelError> {
        let shortcut = (inputs != outputs)
            .then(|| Convolution::same(&scope.sub("nin_shortcut"), outputs, outputs, 1, false))
            .transpose()?;
        Ok(Self {
            norm1: SiluNorm::new(&scope.sub("norm1"), inputs)?,
            conv1: Convolution::same(&scope.sub("conv1"), inputs, outputs, 3, false)?,
            norm2: SiluNorm::new(&scope.sub("norm2"), outputs)?,
            conv2: Convolution::same(&scope.sub("conv2"), outputs, outputs, 3, false)?,
            shortcut,
        })
    }

    /// # Shapes
    /// `[B, inputs, height, width]` to `[B, outputs, height, width]`, channels-last.
    pub(crate) fn forward(&self, input: &Tensor) -> Result<Tensor, ModelError> {
        let hidden = self.conv1.forward(&self.norm1.forward(input)?)?;
        let output = self.conv2.forward(&self.norm2.forward(&hidden)?)?;
        match &self.shortcut {
            None => add_into(output, input),
            // The published shortcut reads the block's own output and not its input; the weights were trained with it.
            Some(shortcut) => {
                let added = shortcut.forward(&output)?;
                add_into(output, &added)
            }
        }
    }
}

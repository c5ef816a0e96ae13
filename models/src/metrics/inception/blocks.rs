//! The network's layers and blocks, each a few branches side by side that are put behind one another along the channels.

use crate::{
    ModelError,
    layers::Convolution,
    parameters::{Init, Scope},
};
use tch::{Kind, Tensor};

/// Added to the variances of batch norms.
const VARIANCE_EPSILON: f64 = 0.001;

/// A convolution by its name and shape.
#[derive(Clone, Copy)]
pub(super) struct Shape {
    name: &'static str,
    outputs: i64,
    /// Rows and columns.
    kernel: [i64; 2],
    stride: i64,
    padded: bool,
}

/// Keeps the image's size.
pub(super) const fn same(name: &'static str, outputs: i64, kernel: [i64; 2]) -> Shape {
    Shape { name, outputs, kernel, stride: 1, padded: true }
}

/// Reads 3 by 3 pixels that all lie within the image.
pub(super) const fn inner(name: &'static str, outputs: i64, stride: i64) -> Shape {
    Shape { name, outputs, kernel: [3, 3], stride, padded: false }
}

/// A convolution, a batch norm and a rectifier.
///
/// The batch norm's statistics are fixed, so that it is a factor and an addend a channel, which go into the convolution's weight and
/// bias: in float64, rounded once.
#[derive(Debug)]
pub(super) struct NormedConvolution(Convolution);

impl NormedConvolution {
    pub(super) fn new(scope: &Scope<'_>, inputs: i64, shape: Shape) -> Result<Self, ModelError> {
        let scope = scope.sub(shape.name);
        let (rows, columns) = (shape.kernel[0], shape.kernel[1]);
        let norm = scope.sub("bn");
        let statistic = |name: &str, start| {
            norm.tensor(name, &[shape.outputs], start)?.f_to_kind(Kind::Double).map_err(ModelError::from)
        };
        let (gain, offset) = (statistic("weight", Init::Ones)?, statistic("bias", Init::Zeros)?);
        let (mean, variance) = (statistic("running_mean", Init::Zeros)?, statistic("running_var", Init::Ones)?);
        let factor = gain.f_div(&variance.f_add_scalar(VARIANCE_EPSILON)?.f_sqrt()?)?;
        let weight = scope.sub("conv").tensor("weight", &[shape.outputs, inputs, rows, columns], Init::WEIGHT)?;
        let weight = weight.f_to_kind(Kind::Double)?.f_mul(&factor.f_view([-1, 1, 1, 1])?)?;
        let bias = offset.f_sub(&mean.f_mul(&factor)?)?;
        let padding = if shape.padded { [rows / 2, columns / 2] } else { [0, 0] };
        let convolution = Convolution::from_tensors(&scope, &weight, Some(&bias), shape.stride, padding)?;
        Ok(Self(convolution.in_full_float32()))
    }

    pub(super) fn forward(&self, input: &Tensor) -> Result<Tensor, ModelError> {
        Ok(self.0.forward(input)?.f_relu_()?)
    }
}

/// A pooling over 3 by 3 pixels.
#[derive(Clone, Copy, Debug)]
pub(super) enum Pooling {
    /// The mean of the pixels within the image; its size stays. TensorFlow counts no padding.
    Mean,
    /// The largest; the image's size stays.
    Largest,
    /// The largest, at every second pixel within the image.
    Halving,
}

impl Pooling {
    pub(super) fn forward(self, input: &Tensor) -> Result<Tensor, ModelError> {
        Ok(match self {
            Self::Mean => input.f_avg_pool2d([3, 3], [1, 1], [1, 1], false, false, None)?,
            Self::Largest => input.f_max_pool2d([3, 3], [1, 1], [1, 1], [1, 1], false)?,
            Self::Halving => input.f_max_pool2d([3, 3], [2, 2], [0, 0], [1, 1], false)?,
        })
    }
}

/// A pooling, if any; convolutions one after another; and ends that all read the last of them.
#[derive(Debug)]
struct Branch {
    pooling: Option<Pooling>,
    convolutions: Vec<NormedConvolution>,
    ends: Vec<NormedConvolution>,
}

impl Branch {
    fn forward(&self, input: &Tensor, outputs: &mut Vec<Tensor>) -> Result<(), ModelError> {
        let mut hidden = match self.pooling {
            Some(pooling) => pooling.forward(input)?,
            None => input.shallow_clone(),
        };
        for convolution in &self.convolutions {
            hidden = convolution.forward(&hidden)?;
        }
        if self.ends.is_empty() {
            outputs.push(hidden);
            return Ok(());
        }
        for end in &self.ends {
            outputs.push(end.forward(&hidden)?);
        }
        Ok(())
    }
}

/// Branches side by side. Published as InceptionA to InceptionE_2.
#[derive(Debug)]
pub(super) struct Block(Vec<Branch>);

impl Block {
    /// # Shapes
    /// `[B, inputs, h, w]` to `[B, outputs, …, …]`, channels-last; the first channels are those of the first branch.
    pub(super) fn forward(&self, input: &Tensor) -> Result<Tensor, ModelError> {
        let mut outputs = Vec::with_capacity(6);
        for branch in &self.0 {
            branch.forward(input, &mut outputs)?;
        }
        Ok(Tensor::f_cat(&outputs, 1)?)
    }

    /// 5 by 5 pixels, and 3 by 3 twice: at 35 by 35.
    pub(super) fn a(scope: &Scope<'_>, inputs: i64, pooled: i64) -> Result<Self, ModelError> {
        let branch = |shapes: &[Shape]| branch(scope, inputs, None, shapes, &[]);
        Ok(Self(vec![
            branch(&[same("branch1x1", 64, [1, 1])])?,
            branch(&[same("branch5x5_1", 48, [1, 1]), same("branch5x5_2", 64, [5, 5])])?,
            branch(&[
                same("branch3x3dbl_1", 64, [1, 1]),
                same("branch3x3dbl_2", 96, [3, 3]),
                same("branch3x3dbl_3", 96, [3, 3]),
            ])?,
            pooled_branch(scope, inputs, Pooling::Mean, pooled)?,
        ]))
    }

    /// From 35 by 35 to 17 by 17.
    pub(super) fn b(scope: &Scope<'_>, inputs: i64) -> Result<Self, ModelError> {
        let branch = |pooling, shapes: &[Shape]| branch(scope, inputs, pooling, shapes, &[]);
        Ok(Self(vec![
            branch(None, &[inner("branch3x3", 384, 2)])?,
            branch(
                None,
                &[
                    same("branch3x3dbl_1", 64, [1, 1]),
                    same("branch3x3dbl_2", 96, [3, 3]),
                    inner("branch3x3dbl_3", 96, 2),
                ],
            )?,
            branch(Some(Pooling::Halving), &[])?,
        ]))
    }

    /// Lines of 7 pixels: at 17 by 17. `narrow` is the number of channels between them.
    pub(super) fn c(scope: &Scope<'_>, inputs: i64, narrow: i64) -> Result<Self, ModelError> {
        let branch = |shapes: &[Shape]| branch(scope, inputs, None, shapes, &[]);
        Ok(Self(vec![
            branch(&[same("branch1x1", 192, [1, 1])])?,
            branch(&[
                same("branch7x7_1", narrow, [1, 1]),
                same("branch7x7_2", narrow, [1, 7]),
                same("branch7x7_3", 192, [7, 1]),
            ])?,
            branch(&[
                same("branch7x7dbl_1", narrow, [1, 1]),
                same("branch7x7dbl_2", narrow, [7, 1]),
                same("branch7x7dbl_3", narrow, [1, 7]),
                same("branch7x7dbl_4", narrow, [7, 1]),
                same("branch7x7dbl_5", 192, [1, 7]),
            ])?,
            pooled_branch(scope, inputs, Pooling::Mean, 192)?,
        ]))
    }

    /// From 17 by 17 to 8 by 8.
    pub(super) fn d(scope: &Scope<'_>, inputs: i64) -> Result<Self, ModelError> {
        let branch = |pooling, shapes: &[Shape]| branch(scope, inputs, pooling, shapes, &[]);
        Ok(Self(vec![
            branch(None, &[same("branch3x3_1", 192, [1, 1]), inner("branch3x3_2", 320, 2)])?,
            branch(
                None,
                &[
                    same("branch7x7x3_1", 192, [1, 1]),
                    same("branch7x7x3_2", 192, [1, 7]),
                    same("branch7x7x3_3", 192, [7, 1]),
                    inner("branch7x7x3_4", 192, 2),
                ],
            )?,
            branch(Some(Pooling::Halving), &[])?,
        ]))
    }

    /// Lines of 3 pixels side by side: at 8 by 8. The first of the two pools by the mean, the second by the maximum.
    pub(super) fn e(scope: &Scope<'_>, inputs: i64, pooling: Pooling) -> Result<Self, ModelError> {
        let branch = |shapes: &[Shape], ends: &[Shape]| branch(scope, inputs, None, shapes, ends);
        Ok(Self(vec![
            branch(&[same("branch1x1", 320, [1, 1])], &[])?,
            branch(
                &[same("branch3x3_1", 384, [1, 1])],
                &[same("branch3x3_2a", 384, [1, 3]), same("branch3x3_2b", 384, [3, 1])],
            )?,
            branch(
                &[same("branch3x3dbl_1", 448, [1, 1]), same("branch3x3dbl_2", 384, [3, 3])],
                &[same("branch3x3dbl_3a", 384, [1, 3]), same("branch3x3dbl_3b", 384, [3, 1])],
            )?,
            pooled_branch(scope, inputs, pooling, 192)?,
        ]))
    }
}

fn branch(
    scope: &Scope<'_>,
    mut inputs: i64,
    pooling: Option<Pooling>,
    shapes: &[Shape],
    ends: &[Shape],
) -> Result<Branch, ModelError> {
    let mut convolutions = Vec::with_capacity(shapes.len());
    for &shape in shapes {
        convolutions.push(NormedConvolution::new(scope, inputs, shape)?);
        inputs = shape.outputs;
    }
    let ends = ends.iter().map(|&shape| NormedConvolution::new(scope, inputs, shape)).collect::<Result<_, _>>()?;
    Ok(Branch { pooling, convolutions, ends })
}

fn pooled_branch(scope: &Scope<'_>, inputs: i64, pooling: Pooling, outputs: i64) -> Result<Branch, ModelError> {
    branch(scope, inputs, Some(pooling), &[same("branch_pool", outputs, [1, 1])], &[])
}

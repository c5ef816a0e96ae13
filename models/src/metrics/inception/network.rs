//! The layers in their order, from images to features.

use super::{
    blocks::{Block, NormedConvolution, Pooling, Shape, inner, same},
    resize::resized,
};
use crate::{ModelError, parameters::Scope};
use tch::{Kind, Tensor};

/// The block whose first channels are the spatial features: the evaluator's `mixed_6/conv:0` is the first branch of its output.
const SPATIAL_LAYER: &str = "Mixed_6d";
const SPATIAL_CHANNELS: i64 = 7;

#[derive(Debug)]
enum Layer {
    Convolution(NormedConvolution),
    Pooling(Pooling),
    Block(Block),
}

impl Layer {
    fn forward(&self, input: &Tensor) -> Result<Tensor, ModelError> {
        match self {
            Self::Convolution(layer) => layer.forward(input),
            Self::Pooling(layer) => layer.forward(input),
            Self::Block(layer) => layer.forward(input),
        }
    }
}

/// What the features are made of, in the network's kind.
#[derive(Debug)]
pub(super) struct Activations {
    /// `[B, 2048]`.
    pub(super) pool: Tensor,
    /// The output of [`SPATIAL_LAYER`], `[B, 768, 17, 17]`.
    spatial_layer: Tensor,
}

impl Activations {
    /// Spatial features, float32 `[B, 2023]`: row, column, channel.
    pub(super) fn spatial(&self) -> Result<Tensor, ModelError> {
        let channels = self.spatial_layer.f_narrow(1, 0, SPATIAL_CHANNELS)?.f_to_kind(Kind::Float)?;
        Ok(channels.f_permute([0, 2, 3, 1])?.f_flatten(1, -1)?)
    }
}

/// The network without its classifier.
#[derive(Debug)]
pub(super) struct InceptionNetwork {
    kind: Kind,
    /// By the names of the port to PyTorch.
    layers: Vec<(&'static str, Layer)>,
}

impl InceptionNetwork {
    pub(super) fn new(scope: &Scope<'_>) -> Result<Self, ModelError> {
        let convolution = |inputs, name, shape: fn(&'static str) -> Shape| -> Result<_, ModelError> {
            Ok((name, Layer::Convolution(NormedConvolution::new(scope, inputs, shape(name))?)))
        };
        let pooling = |name| (name, Layer::Pooling(Pooling::Halving));
        let block = |name, build: &dyn Fn(&Scope<'_>) -> Result<Block, ModelError>| -> Result<_, ModelError> {
            Ok((name, Layer::Block(build(&scope.sub(name))?)))
        };
        let layers = vec![
            convolution(3, "Conv2d_1a_3x3", |name| inner(name, 32, 2))?,
            convolution(32, "Conv2d_2a_3x3", |name| inner(name, 32, 1))?,
            convolution(32, "Conv2d_2b_3x3", |name| same(name, 64, [3, 3]))?,
            pooling("MaxPool_1"),
            convolution(64, "Conv2d_3b_1x1", |name| same(name, 80, [1, 1]))?,
            convolution(80, "Conv2d_4a_3x3", |name| inner(name, 192, 1))?,
            pooling("MaxPool_2"),
            block("Mixed_5b", &|scope| Block::a(scope, 192, 32))?,
            block("Mixed_5c", &|scope| Block::a(scope, 256, 64))?,
            block("Mixed_5d", &|scope| Block::a(scope, 288, 64))?,
            block("Mixed_6a", &|scope| Block::b(scope, 288))?,
            block("Mixed_6b", &|scope| Block::c(scope, 768, 128))?,
            block("Mixed_6c", &|scope| Block::c(scope, 768, 160))?,
            block(SPATIAL_LAYER, &|scope| Block::c(scope, 768, 160))?,
            block("Mixed_6e", &|scope| Block::c(scope, 768, 192))?,
            block("Mixed_7a", &|scope| Block::d(scope, 768))?,
            block("Mixed_7b", &|scope| Block::e(scope, 1280, Pooling::Mean))?,
            block("Mixed_7c", &|scope| Block::e(scope, 2048, Pooling::Largest))?,
        ];
        Ok(Self { kind: scope.kind, layers })
    }

    /// `pixels`: bytes `[B, 3, H, W]`. `observe` sees the resized images and the output of every layer, by name.
    pub(super) fn forward(
        &self,
        pixels: &Tensor,
        mut observe: impl FnMut(&'static str, &Tensor),
    ) -> Result<Activations, ModelError> {
        let mut hidden = resized(pixels, self.kind)?;
        observe("resized", &hidden);
        let mut spatial_layer = None;
        for (name, layer) in &self.layers {
            hidden = layer.forward(&hidden)?;
            observe(name, &hidden);
            if *name == SPATIAL_LAYER {
                spatial_layer = Some(hidden.shallow_clone());
            }
        }
        let pool = hidden.f_mean_dim([2_i64, 3].as_slice(), false, None)?;
        observe("pool", &pool);
        let spatial_layer = spatial_layer.expect("the network has the layer of the spatial features");
        Ok(Activations { pool, spatial_layer })
    }
}

//! The decoder's transformer: all latent tokens and a grid of image tokens see each other (`ResTokDecoder` in
//! modeling/modules/blocks.py).

use super::{
    config::TokenizerConfig,
    hierarchy,
    latent_encoder::{latent_levels, pointwise},
    pixel_networks::PixelDecoder,
};
use crate::{
    ModelError,
    layers::{Activation, Block, Convolution, LayerNorm, Linear, Segment, Stage, rotary_table},
    parameters::{Init, Scope},
    sizes::TransformerSize,
};
use tch::{Kind, Tensor};

/// What the grid of image tokens starts from.
#[derive(Debug)]
enum ImageStart {
    /// One learned token for every place, `[1, 1, C]`.
    Learned(Tensor),
    /// The latent tokens, spread over the image: `[side * side, L]`.
    Spread(Tensor),
}

/// From the transformer's image tokens to pixels.
#[derive(Debug)]
enum Pixels {
    /// Features and a convolutional decoder: every published model.
    Convolutional(PixelDecoder),
    /// The patches themselves, and one convolution over their seams (`is_legacy: false`). The published code makes these pixels
    /// and then hands them to its convolutional decoder, which refuses three channels; TiTok, where the branch comes from, takes
    /// them as the image, and so do we.
    Patches { patch: i64, smooth: Convolution },
}

/// Which latent tokens the decoder reads; the learned mask stands for the rest.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Kept<'a> {
    /// The first so many of every image.
    First(i64),
    /// Those where this is true, bool `[B, L, 1]`: another number for every image, as nested dropout draws them.
    Where(&'a Tensor),
}

/// What decoding gives.
pub(crate) struct Decoded {
    /// float32 pixels around 0 to 1, `[B, 3, side, side]`.
    pub(crate) pixels: Tensor,
    /// The features that a second pass makes for alignment with a vision foundation model, `[B, C, h, w]`: in training with
    /// `decoder_feature_supervision` only.
    pub(crate) features: Option<Tensor>,
}

/// Quantized vectors to pixels.
#[derive(Debug)]
pub(super) struct LatentDecoder {
    embeddings: Vec<Linear>,
    /// Tokens of each embedding.
    sizes: Vec<i64>,
    /// Stands for a latent token that is not kept, `[1, 1, token size]`.
    absent: Tensor,
    image_start: ImageStart,
    /// In training with `decoder_feature_supervision`: what the grid of feature tokens starts from.
    feature_start: Option<ImageStart>,
    latent_levels: Tensor,
    ln_pre: LayerNorm,
    blocks: Vec<Block>,
    stage: Stage,
    last_stage: Stage,
    ln_post: LayerNorm,
    features: Linear,
    pixels: Pixels,
    side: i64,
}

impl LatentDecoder {
    pub(super) fn new(scope: &Scope<'_>, root: &Scope<'_>, config: &TokenizerConfig) -> Result<Self, ModelError> {
        let options = config.options();
        let TransformerSize { width, layers, heads } = config.decoder;
        let start = Init::Normal((width as f64).powf(-0.5));
        let (side, level_sizes) = (config.decoder_grid, config.levels.sizes());
        let latent_tokens = options.num_latent_tokens as i64;
        let embed = scope.sub("decoder_embed");
        let (embeddings, sizes) = if options.multi_quant {
            let embeddings =
                (0..level_sizes.len()).map(|level| Linear::new(&embed.sub(level), options.token_size, width));
            (embeddings.collect::<Result<_, _>>()?, level_sizes.iter().map(|&size| size as i64).collect())
        } else {
            (vec![Linear::new(&embed, options.token_size, width)?], vec![latent_tokens])
        };
        let grid_start = |learned: bool, name: &str| -> Result<ImageStart, ModelError> {
            if learned {
                return Ok(ImageStart::Learned(scope.placed(name, &[1, 1, width], start)?));
            }
            let spreading = scope.constant("spreading", || {
                let matrix = hierarchy::spreading_matrix(level_sizes, side as usize, options.residual_latent_tokens);
                let matrix = Tensor::f_from_slice(&matrix)?.f_view([side * side, latent_tokens])?;
                Ok(matrix.f_to_device(scope.device)?)
            })?;
            Ok(ImageStart::Spread(spreading))
        };
        let image_start = grid_start(options.learnable_dec_image_tokens, "mask_token")?;
        let feature_start = (scope.trainable() && config.decoder_features_are_aligned())
            .then(|| grid_start(options.learnable_dec_feat_tokens.unwrap_or(true), "feat_mask_token"))
            .transpose()?;
        let rotary = scope.constant("rotary", || {
            let positions = hierarchy::decoder_positions(options.num_latent_tokens, side);
            rotary_table(&positions, config.decoder.head_width(), options.rope_base_len, scope.device)
        })?;
        let tokens = latent_tokens + side * side;
        let stage = |start: i64| Stage {
            rotary: rotary.shallow_clone(),
            segments: vec![Segment { start, end: tokens, visible: tokens, mask: None }],
            queries_from: start,
        };
        let full = root.in_kind(Kind::Float);
        let (outputs, pixels) = if options.is_legacy {
            let decoder = PixelDecoder::new(&full.sub("pixel_decoder"), &config.pixel_networks)?;
            ((config.pixel_networks.z, "ffn"), Pixels::Convolutional(decoder))
        } else {
            let patch = options.vit_dec_patch_size;
            let smooth = Convolution::same(&scope.sub("conv_out").in_kind(Kind::Float), 3, 3, 3, true)?;
            ((3 * patch * patch, "ffn.0"), Pixels::Patches { patch, smooth })
        };
        Ok(Self {
            embeddings,
            sizes,
            absent: scope.placed("latent_mask_token", &[1, 1, options.token_size], start)?,
            image_start,
            feature_start,
            latent_levels: latent_levels(scope, level_sizes, width)?,
            ln_pre: LayerNorm::new(&scope.sub("ln_pre"), width)?,
            blocks: (0..layers)
                .map(|index| Block::new(&scope.sub("blocks").sub(index), width, heads, index + 1 == layers))
                .collect::<Result<_, _>>()?,
            stage: stage(0),
            last_stage: stage(latent_tokens),
            ln_post: LayerNorm::new(&scope.sub("ln_post"), width)?,
            features: pointwise(&scope.sub(outputs.1), width, outputs.0)?,
            pixels,
            side,
        })
    }

    /// # Shapes
    /// `vectors`: float32 `[B, L, token size]`, of which those that are `kept` are read.
    pub(super) fn forward(&self, vectors: &Tensor, kept: Kept<'_>) -> Result<Decoded, ModelError> {
        let (batch, latent_tokens, _) = vectors.size3()?;
        let vectors = match kept {
            Kept::First(count) => {
                let absent = self.absent.f_expand([batch, latent_tokens - count, -1], false)?;
                Tensor::f_cat(&[vectors.f_narrow(1, 0, count)?, absent], 1)?
            }
            Kept::Where(kept) => vectors.f_where_self(kept, &self.absent)?,
        };
        let (mut latent, mut start) = (Vec::new(), 0);
        for (embedding, &size) in self.embeddings.iter().zip(&self.sizes) {
            latent.push(embedding.forward(&vectors.f_narrow(1, start, size)?, Activation::None)?);
            start += size;
        }
        let latent = Tensor::f_cat(&latent, 1)?.f_to_kind(Kind::Float)?; // [B, L, C]
        let mut image = self.grid(&self.image_start, &latent)?;
        if let Some(start) = &self.feature_start {
            // Features are decoded as a second image would be, beside the first and unseen by it.
            image = Tensor::f_cat(&[&image, &self.grid(start, &latent)?], 0)?;
        }
        let mut latent = latent.f_add(&self.latent_levels)?;
        if self.feature_start.is_some() {
            latent = Tensor::f_cat(&[&latent, &latent], 0)?;
        }
        let mut stream = self.ln_pre.forward(&Tensor::f_cat(&[latent, image], 1)?)?;
        for (index, block) in self.blocks.iter().enumerate() {
            let stage = if index + 1 == self.blocks.len() { &self.last_stage } else { &self.stage };
            stream = block.forward(&stream, stage, None)?;
        }
        // The last block gave image tokens only.
        let mut features = None;
        if self.feature_start.is_some() {
            let shape = [batch, self.side, self.side, -1];
            features = Some(stream.f_narrow(0, batch, batch)?.f_reshape(shape)?.f_permute([0, 3, 1, 2])?);
            stream = stream.f_narrow(0, 0, batch)?;
        }
        Ok(Decoded { pixels: self.to_pixels(&self.ln_post.forward(&stream)?)?, features })
    }

    /// What a grid of tokens starts from, `[B, side * side, C]`.
    fn grid(&self, start: &ImageStart, latent: &Tensor) -> Result<Tensor, ModelError> {
        let (batch, _, _) = latent.size3()?;
        match start {
            ImageStart::Learned(token) => Ok(token.f_expand([batch, self.side * self.side, -1], false)?),
            ImageStart::Spread(matrix) => Ok(matrix.f_matmul(latent)?),
        }
    }

    /// Image tokens, `[B, side * side, C]`, to pixels.
    fn to_pixels(&self, tokens: &Tensor) -> Result<Tensor, ModelError> {
        let (batch, _, _) = tokens.size3()?;
        let features = self.features.forward(tokens, Activation::None)?;
        let features = features.f_to_kind(Kind::Float)?.f_view([batch, self.side, self.side, -1])?;
        match &self.pixels {
            Pixels::Convolutional(decoder) => decoder.forward(&features.f_permute([0, 3, 1, 2])?),
            Pixels::Patches { patch, smooth } => {
                let pixels = features.f_view([batch, self.side, self.side, *patch, *patch, 3])?;
                let pixels = pixels.f_permute([0, 1, 3, 2, 4, 5])?.f_contiguous()?;
                let pixels = pixels.f_view([batch, self.side * patch, self.side * patch, 3])?;
                smooth.forward(&pixels.f_permute([0, 3, 1, 2])?)
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        DeviceChoice,
        losses::reference_values::{Of, integers, reference_values, same, signed, weight},
        parameters::{ParameterStore, Parameters},
        weight_file::WeightFile,
    };
    use std::path::PathBuf;
    use tch::Device;

    const BATCH: i64 = 2;
    const TOKENS: i64 = 128;

    fn fixture(name: &str) -> PathBuf {
        crate::fixtures::fixture("tokenizer").join(name)
    }

    fn config(decoder_feature_supervision: bool) -> TokenizerConfig {
        // One thread: test processes run side by side.
        crate::initialise(&[DeviceChoice::Cpu], Some(1)).expect("there is a processor");
        let file = fixture("config.json");
        let text = std::fs::read_to_string(&file).expect("the fixture is part of the project");
        let mut config: serde_json::Value = serde_json::from_str(&text).expect("JSON");
        config["model"]["vq_model"]["use_vf"] = "dinov3".into();
        config["model"]["vq_model"]["decoder_feature_supervision"] = decoder_feature_supervision.into();
        TokenizerConfig::from_json(&config.to_string(), &file).expect("sound")
    }

    fn weights() -> WeightFile {
        WeightFile::open(&fixture("model.safetensors")).expect("the fixture is part of the project")
    }

    fn build(parameters: &Parameters<'_>, config: &TokenizerConfig) -> LatentDecoder {
        let root = parameters.root(Device::Cpu, Kind::Float);
        LatentDecoder::new(&root.sub("decoder"), &root, config).expect("built")
    }

    /// The fixture's weights in training; the feature token, which it lacks, by the formula of the reference values.
    fn store(config: &TokenizerConfig) -> ParameterStore {
        let (store, weights) = (ParameterStore::new(1, Device::Cpu), weights());
        build(&Parameters::from_store(&store), config);
        let _no_grad = tch::no_grad_guard();
        for (name, mut tensor) in store.trained() {
            let known = weights.shape(&name).is_some();
            assert!(known || name == "decoder.feat_mask_token", "{name}");
            let value = if known { weights.read(&name).expect("read") } else { weight(&name, &tensor.size()) };
            tensor.copy_(&value);
        }
        store
    }

    fn parameter(store: &ParameterStore, name: &str) -> Tensor {
        let tensor = store.trained().into_iter().find(|(found, _)| found == name);
        tensor.expect("asked for while the decoder was built").1
    }

    fn vectors() -> Tensor {
        signed("vectors", &[BATCH, TOKENS, 8])
    }

    /// Keeps the first so many tokens of each image, as nested dropout does.
    fn first_of_each(lengths: &[i64]) -> Tensor {
        let places = Tensor::arange(TOKENS, (Kind::Int64, Device::Cpu)).view([1, TOKENS, 1]);
        places.lt_tensor(&Tensor::from_slice(lengths).view([BATCH, 1, 1]))
    }

    fn difference(left: &Tensor, right: &Tensor) -> f64 {
        assert_eq!(left.size(), right.size());
        (left - right).abs().max().double_value(&[])
    }

    #[test]
    fn a_mask_keeps_of_every_image_what_a_count_keeps() {
        let (config, weights) = (config(false), weights());
        let decoder = build(&Parameters::from_file(&weights), &config);
        let _no_grad = tch::no_grad_guard();
        let pixels = |kept: Kept<'_>| decoder.forward(&vectors(), kept).expect("decoded").pixels;
        let counts = [1, 7, 64, TOKENS];
        let first = counts.map(|count| pixels(Kept::First(count)));
        for pair in first.windows(2) {
            assert!(difference(&pair[0], &pair[1]) > 1e-3, "more tokens, another image");
        }
        for (left, right) in [(0, 0), (1, 1), (2, 2), (3, 3), (0, 3), (2, 1)] {
            let found = pixels(Kept::Where(&first_of_each(&[counts[left], counts[right]])));
            let expected = Tensor::stack(&[first[left].get(0), first[right].get(1)], 0);
            let difference = difference(&found, &expected);
            assert!(difference <= 1e-6, "{} and {} tokens: {difference}", counts[left], counts[right]);
        }
    }

    #[test]
    fn features_are_decoded_beside_the_image_and_leave_it_as_it_is() {
        let (plain, aligned) = (config(false), config(true));
        let (plain_store, store) = (store(&plain), store(&aligned));
        let decode = |store: &ParameterStore, config: &TokenizerConfig| {
            let decoder = build(&Parameters::from_store(store), config);
            decoder.forward(&vectors(), Kept::First(32)).expect("decoded")
        };
        let without = decode(&plain_store, &plain);
        assert!(without.features.is_none());
        let with = decode(&store, &aligned);
        let features = with.features.expect("training with decoder_feature_supervision makes them");
        assert_eq!(features.size(), [BATCH, 64, 16, 16]);
        let changed = difference(&with.pixels, &without.pixels);
        assert!(changed <= 1e-5, "the image with features differs by {changed}");

        let start = parameter(&store, "decoder.feat_mask_token");
        // Not by a constant: the norm in front of the blocks would take it away again.
        tch::no_grad(|| start.shallow_clone().f_neg_().map(drop)).expect("written");
        let other = decode(&store, &aligned);
        assert_eq!(difference(&other.pixels, &with.pixels), 0.0, "the image does not see the feature token");
        assert!(difference(&other.features.expect("made"), &features) > 1e-3);
    }

    #[test]
    fn features_and_their_gradients_equal_the_published_ones() {
        let (reference_values, config) = (reference_values(), config(true));
        let cases = reference_values["decoder_features"].as_array().expect("cases");
        assert_eq!(cases.len(), 2);
        for case in cases {
            let (store, lengths) = (store(&config), integers(&case["kept"]));
            let decoder = build(&Parameters::from_store(&store), &config);
            let decoded = decoder.forward(&vectors(), Kept::Where(&first_of_each(&lengths))).expect("decoded");
            let features = decoded.features.expect("training with decoder_feature_supervision makes them");
            let what = format!("{lengths:?} tokens");
            same(&what, &features, "features", &case["features"], Of::Values, 0.0);
            (&features * signed("direction", &features.size())).mean(Kind::Float).backward();
            for (name, expected) in case["gradients"].as_object().expect("gradients") {
                let gradient = parameter(&store, name).grad();
                same(&format!("{what}, {name}"), &gradient, name, expected, Of::Gradients, 0.0);
            }
            let image_start = parameter(&store, "decoder.mask_token").grad();
            assert_eq!(image_start.norm().double_value(&[]), 0.0, "features do not see the image");
        }
    }
}

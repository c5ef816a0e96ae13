//! How many operations a tokenizer takes, counted from its configuration: what a measured time is compared with.

use super::{
    config::{ImageInput, PixelNetworkSize, TokenizerConfig},
    hierarchy,
};
use crate::{ModelError, sizes::TransformerSize};

const RGB: i64 = 3;
/// Width of a block's hidden layer over its own.
const HIDDEN_RATIO: i64 = 4;

/// Floating-point operations of matrix products and convolutions for one image, a multiplication and an addition being two. Norms,
/// activations and sums are left out: they cost memory traffic, not arithmetic.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct TokenizerOperations {
    /// In the precision that the tokenizer is loaded with.
    pub in_precision: i64,
    /// Always in float32: the convolutions that decode pixels, the heads in front of the quantizer and its distances.
    pub in_float32: i64,
}

impl TokenizerOperations {
    /// All of them.
    pub fn total(self) -> i64 {
        self.in_precision + self.in_float32
    }
}

impl TokenizerConfig {
    /// Operations of encoding one image.
    ///
    /// # Errors
    /// When the configuration's merges leave no whole columns, which loading refuses too.
    pub fn encode_operations(&self) -> Result<TokenizerOperations, ModelError> {
        let TransformerSize { width, layers, .. } = self.encoder;
        let options = self.options();
        let image_tokens = self.encoder_grid * self.encoder_grid;
        let latent: Vec<i64> = self.levels.sizes().iter().map(|&size| size as i64).collect();
        let latent_tokens: i64 = latent.iter().sum();
        let (pixels, patch) = match self.image_input {
            ImageInput::Convolutional => (pixel_encoder(&self.pixel_networks, self.resolution), self.pixel_networks.z),
            ImageInput::Patches => (0, RGB * options.vit_enc_patch_size * options.vit_enc_patch_size),
        };
        let mut transformer = linear(image_tokens, patch, width);
        if !options.learnable_latent_tokens {
            transformer += linear(latent_tokens, image_tokens, width);
        }
        let image_levels: Vec<i64> =
            hierarchy::image_levels(self)?.iter().map(|(height, width)| height * width).collect();
        let merging = hierarchy::merging_blocks(self);
        let mut levels_there = 1;
        for block in 0..layers {
            let coarsest_first: Vec<i64> = image_levels[..levels_there].iter().rev().copied().collect();
            let image: i64 = coarsest_first.iter().sum();
            let queries_from = if block + 1 == layers { image } else { 0 };
            let tokens = image + latent_tokens;
            // As `LatentEncoder` cuts attention into rectangles: latent levels are grouped apart from the image's.
            let image_pairs: i64 = match queries_from {
                0 => pairs(&coarsest_first, 0),
                _ => 0,
            };
            let seen = image_pairs + pairs(&latent, image);
            let merged = if merging.contains(&block) { image_levels[levels_there] } else { 0 };
            transformer += transformer_block(width, tokens, tokens - queries_from, merged, seen);
            levels_there += usize::from(merged > 0);
        }
        let heads = linear(latent_tokens, width, options.token_size);
        let distances = linear(latent_tokens, options.token_size, options.codebook_size as i64);
        Ok(TokenizerOperations { in_precision: pixels + transformer, in_float32: heads + distances })
    }

    /// Operations of decoding one image from all of its tokens; fewer tokens take as many.
    pub fn decode_operations(&self) -> TokenizerOperations {
        let TransformerSize { width, layers, .. } = self.decoder;
        let options = self.options();
        let (latent_tokens, image_tokens) =
            (self.levels.tokens_per_image() as i64, self.decoder_grid * self.decoder_grid);
        let tokens = latent_tokens + image_tokens;
        let mut transformer = linear(latent_tokens, options.token_size, width);
        if !options.learnable_dec_image_tokens {
            transformer += linear(image_tokens, latent_tokens, width);
        }
        for block in 0..layers {
            let queries = if block + 1 == layers { image_tokens } else { tokens };
            transformer += transformer_block(width, tokens, queries, 0, queries * tokens);
        }
        let (outputs, pixels) = if options.is_legacy {
            (self.pixel_networks.z, pixel_decoder(&self.pixel_networks, self.decoder_grid))
        } else {
            let patch = options.vit_dec_patch_size;
            (RGB * patch * patch, convolution(RGB, RGB, 3, self.resolution))
        };
        transformer += linear(image_tokens, width, outputs);
        TokenizerOperations { in_precision: transformer, in_float32: pixels }
    }
}

/// `rows` rows from `inputs` to `outputs` channels.
fn linear(rows: i64, inputs: i64, outputs: i64) -> i64 {
    2 * rows * inputs * outputs
}

/// A square kernel over a square image that keeps its size.
fn convolution(inputs: i64, outputs: i64, kernel: i64, side: i64) -> i64 {
    linear(side * side, inputs * kernel * kernel, outputs)
}

/// Query-key pairs that attention computes for levels that each see themselves and all before them, after `before` other tokens.
fn pairs(sizes: &[i64], before: i64) -> i64 {
    let computed = |run: &hierarchy::LevelRun| (run.end() - run.start) * (before + run.end());
    hierarchy::level_runs(sizes).iter().map(computed).sum()
}

/// Projections, attention and hidden layer of one block, into whose hidden layer `merged` more tokens come.
fn transformer_block(width: i64, tokens: i64, queries: i64, merged: i64, pairs: i64) -> i64 {
    let projections = linear(queries, width, width) + linear(tokens, width, 2 * width);
    // Scores, and values weighted by them.
    let attention = 2 * linear(pairs, width, 1);
    let output = linear(queries, width, width);
    let hidden = 2 * linear(queries + merged, width, HIDDEN_RATIO * width);
    projections + attention + output + hidden
}

fn residual_block(inputs: i64, outputs: i64, side: i64) -> i64 {
    let shortcut = if inputs == outputs { 0 } else { convolution(outputs, outputs, 1, side) };
    convolution(inputs, outputs, 3, side) + convolution(outputs, outputs, 3, side) + shortcut
}

fn residual_blocks(inputs: i64, outputs: i64, side: i64, count: usize) -> i64 {
    residual_block(inputs, outputs, side) + (count as i64 - 1) * residual_block(outputs, outputs, side)
}

fn pixel_encoder(size: &PixelNetworkSize, resolution: i64) -> i64 {
    let (mut channels, mut side) = (size.hidden, resolution);
    let mut sum = convolution(RGB, channels, 3, side);
    for (level, multiplier) in size.multipliers.iter().enumerate() {
        let outputs = size.hidden * multiplier;
        sum += residual_blocks(channels, outputs, side, size.residual_blocks);
        channels = outputs;
        if level + 1 < size.multipliers.len() {
            side /= 2;
        }
    }
    sum + residual_blocks(channels, channels, side, size.residual_blocks) + convolution(channels, size.z, 1, side)
}

fn pixel_decoder(size: &PixelNetworkSize, grid: i64) -> i64 {
    let coarsest = size.hidden * size.multipliers.last().copied().unwrap_or(1);
    let (mut channels, mut side) = (coarsest, grid);
    let mut sum = convolution(size.z, coarsest, 3, side);
    sum += residual_blocks(coarsest, coarsest, side, size.residual_blocks);
    for (level, multiplier) in size.multipliers.iter().enumerate().rev() {
        let outputs = size.hidden * multiplier;
        sum += residual_blocks(channels, outputs, side, size.residual_blocks);
        channels = outputs;
        if level > 0 {
            side *= 2;
            sum += convolution(outputs, outputs, 3, side);
        }
    }
    sum + convolution(channels, RGB, 3, side)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{TokenizerPreset, TokenizerSize};

    fn near(found: i64, billions: f64) {
        let found = found as f64 / 1e9;
        assert!((found - billions).abs() < 0.01 * billions, "{found} against {billions} GFLOP");
    }

    /// Against the numbers that were counted by hand from the published sizes.
    #[test]
    fn the_published_large_tokenizer_takes_455_gflop_to_encode_and_190_of_convolutions_to_decode() {
        let config = TokenizerConfig::preset(TokenizerSize::Large);
        let encode = config.encode_operations().expect("counted");
        near(encode.total(), 455.0);
        // The convolutions in front of the transformer.
        near(pixel_encoder(&config.pixel_networks, 256), 128.6);
        let decode = config.decode_operations();
        assert!((185_000_000_000..190_000_000_000).contains(&decode.in_float32), "{decode:?}");
        near(decode.in_precision, 243.7);
    }

    /// A block of `n` tokens that all see each other takes 24 n w² and 4 n² w, as everywhere in the literature.
    #[test]
    fn a_whole_block_is_counted_as_usual() {
        let (tokens, width) = (100, 64);
        let usual = 24 * tokens * width * width + 4 * tokens * tokens * width;
        assert_eq!(transformer_block(width, tokens, tokens, 0, tokens * tokens), usual);
    }

    #[test]
    fn smaller_presets_take_less() {
        let counted = |name| TokenizerPreset::named(name).expect(name).config.encode_operations().expect(name).total();
        let sizes = ["restok-l-128", "restok-b-128", "restok-s-128", "tiny"].map(counted);
        assert!(sizes.is_sorted_by(|left, right| left > right) && sizes[3] > 0, "{sizes:?}");
    }
}

//! The ResTok tokenizer: images to hierarchical residual tokens, and back.
//!
//! ```text
//! u8 pixels ── normalise ── PixelEncoder ── LatentEncoder ── z ── Quantizer ── codes
//!              (on the device) (convolutions)  (transformer)           │
//! u8 pixels ── round ────── PixelDecoder ── LatentDecoder ── vectors ──┘
//! ```

pub(crate) mod config;
mod hierarchy;
mod latent_decoder;
mod latent_encoder;
mod operations;
mod pixel_networks;
pub(crate) mod quantizer;
mod raw_config;

pub use self::{config::TokenizerConfig, operations::TokenizerOperations, quantizer::Quantized};

pub(crate) use self::latent_decoder::{Decoded, Kept};
use self::{
    config::ImageInput,
    latent_decoder::LatentDecoder,
    latent_encoder::LatentEncoder,
    pixel_networks::PixelEncoder,
    quantizer::{Quantizer, TrainingQuantized},
};
use crate::{
    BatchMemory, Device, ModelError, device,
    loaded_model::{LoadableNetwork, LoadedModel},
    parameters::{Parameters, Scope},
};
use schemas::{PixelBatch, Rounding, SchemaError, TokenBatch, TokenLevels};
use std::path::Path;
use tch::{Kind, Tensor};

/// ImageNet's mean and standard deviation of red, green and blue, for channels between 0 and 1.
pub(crate) const CHANNEL_MEAN: [f64; 3] = [0.485, 0.456, 0.406];
pub(crate) const CHANNEL_DEVIATION: [f64; 3] = [0.229, 0.224, 0.225];

/// A tokenizer on a device. Owned by one OS thread (`Send`, not `Sync`).
pub type VisualTokenizer = LoadedModel<TokenizerConfig, Networks>;

/// The tokenizer as a function of its parameters.
#[derive(Debug)]
pub struct Networks {
    /// 1 / (255 deviation) and -mean / deviation, `[1, 3, 1, 1]`.
    pixel_scale: Tensor,
    pixel_shift: Tensor,
    pixel_encoder: Option<PixelEncoder>,
    encoder: LatentEncoder,
    quantizer: Quantizer,
    decoder: LatentDecoder,
}

/// Tensors that training leaves in a checkpoint and that tokens do not depend on, by the start of their names.
const TRAINING_TENSORS: [&str; 6] = [
    // The frozen vision foundation model and the projections of features onto its own.
    "foundation_model.",
    "vf_proj.",
    "vf_proj_dec.",
    "mlp_proj.",
    // Queries for its features: a second pass through the decoder, whose image the first gives.
    "decoder.feat_mask_token",
    // Running use of each code.
    "quantize.embed_prob",
];

impl LoadableNetwork<TokenizerConfig> for Networks {
    fn read_config(text: &str, file: &Path) -> Result<TokenizerConfig, ModelError> {
        TokenizerConfig::from_json(text, file)
    }

    fn config_text(config: &TokenizerConfig) -> String {
        config.to_json()
    }

    fn build(
        parameters: &Parameters<'_>,
        config: &TokenizerConfig,
        device: Device,
        kind: Kind,
    ) -> Result<Self, ModelError> {
        Self::new(parameters, config, device, kind)
    }

    fn may_be_unread(config: &TokenizerConfig, name: &str) -> bool {
        // Without the legacy decoder nothing reads the convolutional one, which the published model has all the same.
        let pixel_decoder = !config.options().is_legacy && name.starts_with("pixel_decoder.");
        pixel_decoder || TRAINING_TENSORS.iter().any(|start| name.starts_with(start))
    }
}

impl Networks {
    pub(crate) fn new(
        parameters: &Parameters<'_>,
        config: &TokenizerConfig,
        device: Device,
        kind: Kind,
    ) -> Result<Self, ModelError> {
        let root: Scope<'_> = parameters.root(device.torch(), kind);
        let channels = |name, value: fn(usize) -> f64| {
            root.constant(name, || {
                let values: Vec<f32> = (0..3).map(|channel| value(channel) as f32).collect();
                Ok(Tensor::f_from_slice(&values)?.f_view([1, 3, 1, 1])?.f_to_device(device.torch())?)
            })
        };
        Ok(Self {
            pixel_scale: channels("pixel scale", |channel| 1.0 / (255.0 * CHANNEL_DEVIATION[channel]))?,
            pixel_shift: channels("pixel shift", |channel| -CHANNEL_MEAN[channel] / CHANNEL_DEVIATION[channel])?,
            pixel_encoder: match config.image_input {
                ImageInput::Convolutional => {
                    Some(PixelEncoder::new(&root.sub("pixel_encoder"), &config.pixel_networks)?)
                }
                ImageInput::Patches => None,
            },
            encoder: LatentEncoder::new(&root.sub("encoder"), &root, config)?,
            quantizer: Quantizer::new(&root.sub("quantize"), config)?,
            decoder: LatentDecoder::new(&root.sub("decoder"), &root, config)?,
        })
    }
}

/// What one forward pass of training gives.
pub(crate) struct TrainingPass {
    pub(crate) quantized: TrainingQuantized,
    pub(crate) decoded: Decoded,
    /// The encoder's coarsest image tokens after its last block, `[B, n, C]`, if they were asked for.
    pub(crate) coarsest_image_tokens: Option<Tensor>,
}

impl Networks {
    /// Images to images, through the tokens that are `kept`. `pixels`: bytes `[B, 3, side, side]` on the device.
    pub(crate) fn train(
        &self,
        pixels: &Tensor,
        kept: Kept<'_>,
        with_image_tokens: bool,
        kind: Kind,
    ) -> Result<TrainingPass, ModelError> {
        let encoded = self.encoder.forward(&self.encoder_input(pixels, kind)?, with_image_tokens)?;
        let quantized = self.quantizer.train(&encoded.z)?;
        let decoded = self.decoder.forward(&quantized.vectors, kept)?;
        Ok(TrainingPass { quantized, decoded, coarsest_image_tokens: encoded.image_tokens.into_iter().next() })
    }

    /// Bytes `[B, 3, side, side]` on the device to what the transformer reads: normalised in `kind`, and through the
    /// convolutional encoder where there is one.
    fn encoder_input(&self, pixels: &Tensor, kind: Kind) -> Result<Tensor, ModelError> {
        let pixels = self.pixel_shift.f_addcmul(&pixels.f_to_kind(Kind::Float)?, &self.pixel_scale)?.f_to_kind(kind)?;
        match &self.pixel_encoder {
            Some(encoder) => encoder.forward(&pixels),
            None => Ok(pixels),
        }
    }
}

/// The pixels of `batch` on `device`: bytes `[B, 3, height, width]`, channels-last. A quarter of the traffic of floats.
pub(crate) fn upload(batch: &PixelBatch, device: Device) -> Result<Tensor, ModelError> {
    let shape = [batch.rows() as i64, batch.height() as i64, batch.width() as i64, PixelBatch::CHANNELS as i64];
    let bytes = device::upload(batch.pixels(), &shape, device.torch())?;
    // Pixels lie in channels-last order as they come; from here on that is the order of every image.
    Ok(bytes.f_permute([0, 3, 1, 2])?)
}

/// Pixels around 0 to 1 as bytes.
fn rounded(pixels: &Tensor, rounding: Rounding) -> Result<Tensor, ModelError> {
    let pixels = pixels.f_clamp(0.0, 1.0)?.f_mul_scalar(255.0)?;
    let pixels = match rounding {
        Rounding::Truncate => pixels,
        Rounding::Nearest => pixels.f_round()?,
    };
    Ok(pixels.f_to_kind(Kind::Uint8)?)
}

/// Everything that encoding computes on its way, for tests and study. Rows of padding are included.
#[derive(Debug)]
pub struct EncoderStages {
    /// The convolutional encoder's features, `[B, z, side, side]`, where there is one.
    pub pixel_features: Option<Tensor>,
    /// The encoder's image tokens after its last block, coarsest level first, each `[B, n, C]`. [`VisualTokenizer::encode`]
    /// does not compute them: nothing in the tokens depends on them.
    pub image_tokens: Vec<Tensor>,
    /// What the quantizer reads, `[B, L, token size]`.
    pub z: Tensor,
    /// What it makes of it.
    pub quantized: Quantized,
}

impl VisualTokenizer {
    /// Encodes a batch: RGB pixels to one row of codes for each of its `filled` rows. The device runs ahead without waiting until
    /// the codes are copied back.
    ///
    /// # Errors
    /// When the images are not of this tokenizer's resolution, or libtorch refuses an operation.
    pub fn encode(&self, batch: &PixelBatch) -> Result<TokenBatch, ModelError> {
        let _no_grad = tch::no_grad_guard();
        self.check_size(batch)?;
        let codes = self.codes(&upload(batch, self.device)?)?;
        self.token_batch(&codes, batch.filled())
    }

    /// Codes on the device, int64 `[B, L]`, of bytes `[B, 3, side, side]` there. -1 where a latent is no number.
    pub(crate) fn codes(&self, pixels: &Tensor) -> Result<Tensor, ModelError> {
        let input = self.network.encoder_input(pixels, self.precision.kind())?;
        let encoded = self.network.encoder.forward(&input, false)?;
        self.network.quantizer.codes(&encoded.z)
    }

    /// Encodes a batch and keeps what is computed on the way, the unread image tokens included.
    ///
    /// # Errors
    /// As [`Self::encode`].
    pub fn encode_stages(&self, batch: &PixelBatch) -> Result<EncoderStages, ModelError> {
        let _no_grad = tch::no_grad_guard();
        let input = self.encoder_input(batch)?;
        let encoded = self.network.encoder.forward(&input, true)?;
        let quantized = self.network.quantizer.quantize(&encoded.z)?;
        let pixel_features = self.network.pixel_encoder.is_some().then_some(input);
        Ok(EncoderStages { pixel_features, image_tokens: encoded.image_tokens, z: encoded.z, quantized })
    }

    /// Decodes images from the first `keep_tokens` of their tokens, 1 to [`TokenLevels::tokens_per_image`]; the learned mask
    /// stands for the rest. Values are clamped to 0..=255 and made bytes by `rounding`.
    ///
    /// # Errors
    /// When the codes are not this tokenizer's, `keep_tokens` is out of range, or libtorch refuses an operation.
    pub fn decode(
        &self,
        tokens: &TokenBatch,
        keep_tokens: usize,
        rounding: Rounding,
    ) -> Result<PixelBatch, ModelError> {
        let _no_grad = tch::no_grad_guard();
        let pixels = rounded(&self.decode_unrounded(tokens, keep_tokens)?, rounding)?;
        let pixels = pixels.f_permute([0, 2, 3, 1])?.f_contiguous()?.f_to_device(tch::Device::Cpu)?;
        let mut bytes = vec![0; pixels.numel()];
        let size = bytes.len();
        pixels.f_copy_data_u8(&mut bytes, size)?;
        let (rows, side) = (tokens.rows(), self.resolution());
        Ok(PixelBatch::try_new(bytes, rows, rows, side, side)?)
    }

    /// What [`Self::encode`] takes for batches of some size, found by running a few of black images.
    ///
    /// # Errors
    /// As [`Self::encode`].
    pub fn encoding_memory(&self) -> Result<BatchMemory, ModelError> {
        let side = self.resolution();
        BatchMemory::measure(self.device, |rows| {
            let black = vec![0; rows * side * side * PixelBatch::CHANNELS];
            self.encode(&PixelBatch::try_new(black, rows, rows, side, side)?)?;
            Ok(())
        })
    }

    /// Decodes to float32 pixels around 0 to 1, `[rows, 3, side, side]`, as the network gives them.
    ///
    /// # Errors
    /// As [`Self::decode`].
    pub fn decode_unrounded(&self, tokens: &TokenBatch, keep_tokens: usize) -> Result<Tensor, ModelError> {
        let _no_grad = tch::no_grad_guard();
        let shape =
            |what, found: usize, expected: String| SchemaError::Shape { what, found: found.to_string(), expected };
        let tokens_per_image = self.levels().tokens_per_image();
        if tokens.tokens_per_image() != tokens_per_image {
            return Err(shape("tokens an image", tokens.tokens_per_image(), tokens_per_image.to_string()).into());
        }
        if !(1..=tokens_per_image).contains(&keep_tokens) {
            return Err(shape("tokens to decode from", keep_tokens, format!("1 to {tokens_per_image}")).into());
        }
        let codes: Vec<i64> = tokens.codes().iter().map(|&code| i64::from(code)).collect();
        TokenBatch::try_from_codes(&codes, tokens_per_image, self.codebook_size())?;
        let codes = device::upload(&codes, &[tokens.rows() as i64, tokens_per_image as i64], self.device.torch())?;
        self.unrounded(&codes, keep_tokens)
    }

    fn unrounded(&self, codes: &Tensor, keep_tokens: usize) -> Result<Tensor, ModelError> {
        let vectors = self.network.quantizer.vectors(codes)?;
        Ok(self.network.decoder.forward(&vectors, Kept::First(keep_tokens as i64))?.pixels)
    }

    /// Bytes `[B, 3, side, side]` on the device, of codes there, int64 `[B, L]`, of which the first `keep_tokens` count. Both must be
    /// the tokenizer's.
    pub(crate) fn pixels(&self, codes: &Tensor, keep_tokens: usize, rounding: Rounding) -> Result<Tensor, ModelError> {
        rounded(&self.unrounded(codes, keep_tokens)?, rounding)
    }

    /// How the tokens of an image divide into levels.
    pub fn levels(&self) -> &TokenLevels {
        self.config.levels()
    }

    /// Codes in the codebook.
    pub fn codebook_size(&self) -> usize {
        self.config.codebook_size()
    }

    /// Side of the square images, in pixels.
    pub fn resolution(&self) -> usize {
        self.config.resolution()
    }

    /// Normalised pixels through the convolutional encoder, where there is one: what the transformer reads.
    fn encoder_input(&self, batch: &PixelBatch) -> Result<Tensor, ModelError> {
        self.check_size(batch)?;
        self.network.encoder_input(&upload(batch, self.device)?, self.precision.kind())
    }

    /// # Errors
    /// When the images are not of this tokenizer's resolution.
    pub(crate) fn check_size(&self, batch: &PixelBatch) -> Result<(), ModelError> {
        let side = self.resolution();
        if (batch.height(), batch.width()) != (side, side) {
            return Err(ModelError::Data(SchemaError::Shape {
                what: "pixel batch",
                found: format!("{} by {} pixels", batch.height(), batch.width()),
                expected: format!("{side} by {side}, the tokenizer's resolution"),
            }));
        }
        Ok(())
    }

    /// The one wait for the device.
    pub(crate) fn token_batch(&self, codes: &Tensor, filled: usize) -> Result<TokenBatch, ModelError> {
        let codes = codes.f_narrow(0, 0, filled as i64)?.f_to_device(tch::Device::Cpu)?.f_contiguous()?;
        let mut narrow = vec![0_i64; codes.numel()];
        let count = narrow.len();
        codes.f_copy_data(&mut narrow, count)?;
        Ok(TokenBatch::try_from_codes(&narrow, self.levels().tokens_per_image(), self.codebook_size())?)
    }
}

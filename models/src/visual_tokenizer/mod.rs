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
mod pixel_networks;
mod quantizer;
mod raw_config;
mod storage;

pub use self::{config::TokenizerConfig, quantizer::Quantized};

use self::{
    config::ImageInput, latent_decoder::LatentDecoder, latent_encoder::LatentEncoder, pixel_networks::PixelEncoder,
    quantizer::Quantizer,
};
use crate::{
    Device, ModelError, Precision,
    parameters::{Parameters, Scope},
};
use schemas::{PixelBatch, SchemaError, TokenBatch, TokenLevels};
use std::path::PathBuf;
use tch::{Kind, Tensor};

/// ImageNet's mean and standard deviation of red, green and blue, for channels between 0 and 1.
const CHANNEL_MEAN: [f64; 3] = [0.485, 0.456, 0.406];
const CHANNEL_DEVIATION: [f64; 3] = [0.229, 0.224, 0.225];

/// How a tokenizer is loaded.
#[derive(Clone, Debug)]
pub struct LoadOptions {
    /// Where it computes.
    pub device: Device,
    /// In which numbers. TensorFloat-32 is a switch of the whole process: the last tokenizer loaded decides.
    pub precision: Precision,
    /// Its name in tables; the folder's name unless given.
    pub name: Option<String>,
}

/// A tokenizer on a device. Owned by one OS thread (`Send`, not `Sync`).
#[derive(Debug)]
pub struct VisualTokenizer {
    config: TokenizerConfig,
    device: Device,
    precision: Precision,
    name: String,
    weights_sha256: String,
    origin: Origin,
    networks: Networks,
}

/// Where the weights can be had again, in the precision in which they came.
#[derive(Debug)]
enum Origin {
    Folder(PathBuf),
    Memory(std::collections::BTreeMap<String, Tensor>),
}

#[derive(Debug)]
struct Networks {
    /// 1 / (255 deviation) and -mean / deviation, `[1, 3, 1, 1]`.
    pixel_scale: Tensor,
    pixel_shift: Tensor,
    pixel_encoder: Option<PixelEncoder>,
    encoder: LatentEncoder,
    quantizer: Quantizer,
    decoder: LatentDecoder,
}

impl Networks {
    fn new(
        parameters: &Parameters<'_>,
        config: &TokenizerConfig,
        device: Device,
        kind: Kind,
    ) -> Result<Self, ModelError> {
        let root: Scope<'_> = parameters.root(device.torch(), kind);
        let channels = |value: fn(usize) -> f64| -> Result<Tensor, ModelError> {
            let values: Vec<f32> = (0..3).map(|channel| value(channel) as f32).collect();
            Ok(Tensor::f_from_slice(&values)?.f_view([1, 3, 1, 1])?.f_to_device(device.torch())?)
        };
        Ok(Self {
            pixel_scale: channels(|channel| 1.0 / (255.0 * CHANNEL_DEVIATION[channel]))?,
            pixel_shift: channels(|channel| -CHANNEL_MEAN[channel] / CHANNEL_DEVIATION[channel])?,
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
        let input = self.encoder_input(batch)?;
        let encoded = self.networks.encoder.forward(&input, false)?;
        let codes = self.networks.quantizer.codes(&encoded.z)?;
        self.token_batch(&codes, batch.filled())
    }

    /// Encodes a batch and keeps what is computed on the way, the unread image tokens included.
    ///
    /// # Errors
    /// As [`Self::encode`].
    pub fn encode_stages(&self, batch: &PixelBatch) -> Result<EncoderStages, ModelError> {
        let _no_grad = tch::no_grad_guard();
        let input = self.encoder_input(batch)?;
        let encoded = self.networks.encoder.forward(&input, true)?;
        let quantized = self.networks.quantizer.quantize(&encoded.z)?;
        let pixel_features = self.networks.pixel_encoder.is_some().then_some(input);
        Ok(EncoderStages { pixel_features, image_tokens: encoded.image_tokens, z: encoded.z, quantized })
    }

    /// Decodes images from the first `keep_tokens` of their tokens, 1 to [`TokenLevels::tokens_per_image`]; the learned mask
    /// stands for the rest. Values are clamped to 0..=255 and rounded, as in the published reconstruction evaluation.
    ///
    /// # Errors
    /// When the codes are not this tokenizer's, `keep_tokens` is out of range, or libtorch refuses an operation.
    pub fn decode(&self, tokens: &TokenBatch, keep_tokens: usize) -> Result<PixelBatch, ModelError> {
        let _no_grad = tch::no_grad_guard();
        let pixels = self.decode_unrounded(tokens, keep_tokens)?;
        let pixels = pixels.f_clamp(0.0, 1.0)?.f_mul_scalar(255.0)?.f_round()?.f_to_kind(Kind::Uint8)?;
        let pixels = pixels.f_permute([0, 2, 3, 1])?.f_contiguous()?.f_to_device(tch::Device::Cpu)?;
        let mut bytes = vec![0; pixels.numel()];
        let size = bytes.len();
        pixels.f_copy_data_u8(&mut bytes, size)?;
        let (rows, side) = (tokens.rows(), self.resolution());
        Ok(PixelBatch::try_new(bytes, rows, rows, side, side)?)
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
        let codes = Tensor::f_from_slice(&codes)?.f_view([tokens.rows() as i64, tokens_per_image as i64])?;
        let vectors = self.networks.quantizer.vectors(&codes.f_to_device(self.device.torch())?)?;
        self.networks.decoder.forward(&vectors, keep_tokens as i64)
    }

    /// The configuration.
    pub fn config(&self) -> &TokenizerConfig {
        &self.config
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

    /// Its name in tables.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// SHA-256 of `model.safetensors`, lowercase hexadecimal; of the drawn numbers where there is no file.
    pub fn weights_sha256(&self) -> &str {
        &self.weights_sha256
    }

    /// The device.
    pub fn device(&self) -> Device {
        self.device
    }

    /// The precision.
    pub fn precision(&self) -> Precision {
        self.precision
    }

    /// Normalised pixels through the convolutional encoder, where there is one: what the transformer reads.
    fn encoder_input(&self, batch: &PixelBatch) -> Result<Tensor, ModelError> {
        let side = self.resolution();
        if (batch.height(), batch.width()) != (side, side) {
            return Err(ModelError::Data(SchemaError::Shape {
                what: "pixel batch",
                found: format!("{} by {} pixels", batch.height(), batch.width()),
                expected: format!("{side} by {side}, the tokenizer's resolution"),
            }));
        }
        let pixels = self.normalized(batch)?;
        match &self.networks.pixel_encoder {
            Some(encoder) => encoder.forward(&pixels),
            None => Ok(pixels),
        }
    }

    /// Bytes to the device, a quarter of the traffic of floats; there to `[B, 3, side, side]` in the precision's kind.
    fn normalized(&self, batch: &PixelBatch) -> Result<Tensor, ModelError> {
        let shape = [batch.rows() as i64, batch.height() as i64, batch.width() as i64, PixelBatch::CHANNELS as i64];
        let bytes = Tensor::f_from_data_size(batch.pixels(), &shape, Kind::Uint8)?;
        let bytes = match self.device {
            Device::Cpu => bytes,
            // From pinned memory the copy runs beside the computation of the batch before. torch's allocator keeps the pinned
            // block until the copy is done.
            Device::Cuda(_) => {
                bytes.f_pin_memory(self.device.torch())?.f_internal_to_copy((Kind::Uint8, self.device.torch()), true)?
            }
        };
        // Pixels lie in channels-last order as they come; from here on that is the order of every image.
        let pixels = bytes.f_permute([0, 3, 1, 2])?.f_to_kind(Kind::Float)?;
        let pixels = self.networks.pixel_shift.f_addcmul(&pixels, &self.networks.pixel_scale)?;
        Ok(pixels.f_to_kind(self.precision.kind())?)
    }

    /// The one wait for the device.
    fn token_batch(&self, codes: &Tensor, filled: usize) -> Result<TokenBatch, ModelError> {
        let codes = codes.f_narrow(0, 0, filled as i64)?.f_to_device(tch::Device::Cpu)?.f_contiguous()?;
        let mut narrow = vec![0_i64; codes.numel()];
        let count = narrow.len();
        codes.f_copy_data(&mut narrow, count)?;
        Ok(TokenBatch::try_from_codes(&narrow, self.levels().tokens_per_image(), self.codebook_size())?)
    }
}

//! The generator: LlamaGen with hierarchical autoregression, from a class to the tokens of an image (section 3.4 of the ResTok paper;
//! autoregressive/models/gpt_har.py and generate.py), and the variant that samples one token a step (gpt_vanilla.py).
//!
//! ```text
//! class ── embed ──┐                         ┌─ class half ─┐
//! tokens ─ embed ──┼─ blocks, cached keys ───┤              ├─ guide ── filter ── draw ── tokens of the step
//! special tokens ──┘                         └─ null half ──┘                                      │
//!        └────────────────────── the next step reads them ────────────────────────────────────────┘
//! ```

mod block;
mod config;
mod guidance_scales;
mod kv_cache;
mod operations;
mod raw_config;
mod rows;
mod steps;
#[cfg(test)]
mod tests;
mod token_sampler;
mod transformer;

pub(crate) use self::{
    rows::{DeviceRows, check_classes},
    transformer::Transformer,
};
pub use config::{GeneratorConfig, GeneratorData};

use self::{guidance_scales::GuidanceScales, kv_cache::KvCache, token_sampler::TokenSampler};
use crate::{
    Device, ModelError, device,
    loaded_model::{LoadableNetwork, LoadedModel},
    measuring,
    parameters::Parameters,
};
use schemas::{RandomStream, SampleBatch, Sampling, SchemaError, TokenBatch, TokenLevels};
use std::path::Path;
use tch::{Kind, Tensor};

/// A generator on a device. Owned by one OS thread (`Send`, not `Sync`).
pub type Generator = LoadedModel<GeneratorConfig, Sampler>;

/// The transformer, and what sampling from it writes to.
#[derive(Debug)]
pub struct Sampler {
    transformer: Transformer,
    /// None before the first batch.
    buffers: Option<SamplerBuffers>,
}

/// What the sampling of a batch writes to, kept for the next batch of as many samples.
#[derive(Debug)]
struct SamplerBuffers {
    cache: KvCache,
    /// int64 `[B, N]`.
    tokens: Tensor,
}

impl LoadableNetwork<GeneratorConfig> for Sampler {
    fn read_config(text: &str, file: &Path) -> Result<GeneratorConfig, ModelError> {
        GeneratorConfig::from_json(text, file)
    }

    fn config_text(config: &GeneratorConfig) -> String {
        config.to_json()
    }

    fn build(
        parameters: &Parameters<'_>,
        config: &GeneratorConfig,
        device: Device,
        kind: Kind,
    ) -> Result<Self, ModelError> {
        let transformer = Transformer::new(&parameters.root(device.torch(), kind), config)?;
        Ok(Self { transformer, buffers: None })
    }

    fn may_be_unread(_: &GeneratorConfig, _: &str) -> bool {
        false
    }
}

impl Generator {
    /// Draws the tokens of a batch of samples, one row for each of its `filled` samples.
    ///
    /// A sample's tokens follow from the network, its class, `sampling` and its number: each token is drawn by inverse CDF from one
    /// uniform number that follows from (seed, number, token), so that neighbours in a batch share no randomness. Every batch of a run
    /// should have one size all the same: kernels are chosen by shape, and with them the last bits of a logit.
    ///
    /// Where a step is guided, class and null class go through the network as one batch of twice the size. The null half is dropped
    /// after the last guided step. Before the first guided one it has to run, because later steps look at its keys and values; only
    /// its logits are left out. The device runs ahead without waiting until the tokens are copied back.
    ///
    /// # Errors
    /// When a class is none of this generator's, a number of `sampling` is out of range, guidance is asked for and the generator has
    /// no null class, logits are no numbers (in float16, for example), or libtorch refuses an operation.
    pub fn sample(&mut self, batch: &SampleBatch, sampling: &Sampling) -> Result<TokenBatch, ModelError> {
        let _no_grad = tch::no_grad_guard();
        let tokens = self.sample_on_device(batch, sampling)?;
        self.token_batch(&tokens, batch.filled())
    }

    /// Everything of [`Self::sample`] but the copy back: int64 `[B, N]`, which the next batch writes over.
    fn sample_on_device(&mut self, batch: &SampleBatch, sampling: &Sampling) -> Result<Tensor, ModelError> {
        sampling.check()?;
        check_classes(batch.classes(), self.config.classes())?;
        let guidance = GuidanceScales::new(self.network.transformer.steps(), &sampling.guidance);
        if guidance.any() && !self.config.has_null_class() {
            return Err(ModelError::setting(
                "guidance scale",
                sampling.guidance.scale,
                "1: class_dropout_prob is 0, so there is no null class",
            ));
        }
        let sampler = TokenSampler::new(sampling, self.config.codebook_size());
        let rows = batch.rows() as i64;
        let uniforms = self.uniforms(batch, sampling.seed)?;
        let classes = self.class_halves(batch, guidance.any())?;
        let mut copies = if guidance.any() { 2 } else { 1 };
        self.prepare_buffers(rows, copies)?;
        let Sampler { transformer, buffers } = &mut self.network;
        let Some(SamplerBuffers { cache, tokens }) = buffers else {
            return Err(ModelError::torch("the sampler has no buffers"));
        };
        for (step, scale) in transformer.steps().iter().zip(guidance.scales()) {
            if copies == 2 && guidance.is_over_at(step) {
                cache.keep_first(rows)?;
                copies = 1;
            }
            let input = match step.is_first() {
                true => classes.shallow_clone(),
                false => tokens.f_narrow(1, step.read.start, step.read.end - step.read.start)?.f_clamp_min(0)?,
            };
            let stream = transformer.step(step, &input, copies, cache)?;
            let measured = tracing::trace_span!(measuring::HEAD).entered();
            let logits = match scale {
                Some(scale) => classifier_free_guidance(&transformer.logits(&stream)?, rows, *scale)?,
                None => transformer.logits(&stream.f_narrow(0, 0, rows)?)?,
            };
            let codes = sampler.draw(logits, &uniforms.f_narrow(1, step.start, step.tokens)?)?;
            drop(measured);
            tokens.f_narrow(1, step.start, step.tokens)?.f_copy_(&codes)?;
        }
        Ok(tokens.shallow_clone())
    }

    /// Logits of every token from the true ones before it, float32 `[rows, tokens an image, codes]`. `classes`, one a row, may name the
    /// null class, which comes after the last.
    ///
    /// # Errors
    /// When tokens or classes are not this generator's, or libtorch refuses an operation.
    pub fn logits(&self, tokens: &TokenBatch, classes: &[i32]) -> Result<Tensor, ModelError> {
        let _no_grad = tch::no_grad_guard();
        Ok(self.predict(tokens, classes)?.0)
    }

    /// [`Self::logits`], and the tokens on the device, int64 `[rows, tokens an image]`.
    pub(crate) fn predict(&self, tokens: &TokenBatch, classes: &[i32]) -> Result<(Tensor, Tensor), ModelError> {
        let rows = DeviceRows::upload(&self.config, tokens, classes, self.device)?;
        Ok((self.network.transformer.forward(&rows.classes, &rows.tokens)?, rows.tokens))
    }

    /// How the tokens of an image divide into levels.
    pub fn levels(&self) -> &TokenLevels {
        self.config.levels()
    }

    /// One number in [0, 1) for each token, float32 `[B, N]`.
    fn uniforms(&self, batch: &SampleBatch, seed: u64) -> Result<Tensor, ModelError> {
        let tokens = self.config.tokens_per_image();
        let drawn = batch.samples().iter().map(|&sample| RandomStream::new(seed, "token", sample).uniforms(tokens));
        let drawn: Vec<f32> = drawn.flatten().collect();
        device::upload(&drawn, &[batch.rows() as i64, tokens as i64], self.device.torch())
    }

    /// The batch's classes, and after them the null class as often if it is asked for: int64 `[B]` or `[2 B]`.
    fn class_halves(&self, batch: &SampleBatch, with_null: bool) -> Result<Tensor, ModelError> {
        let null = std::iter::repeat_n(self.config.classes() as i64, if with_null { batch.rows() } else { 0 });
        let classes: Vec<i64> = batch.classes().iter().map(|&class| i64::from(class)).chain(null).collect();
        device::upload(&classes, &[classes.len() as i64], self.device.torch())
    }

    fn prepare_buffers(&mut self, rows: i64, copies: i64) -> Result<(), ModelError> {
        let samples = rows * copies;
        if let Some(buffers) = &mut self.network.buffers
            && buffers.cache.samples() >= samples
            && buffers.tokens.size()[0] == rows
        {
            return buffers.cache.restart(samples);
        }
        self.network.buffers = None;
        let (size, tokens) = (self.config.size(), self.config.tokens_per_image() as i64);
        let shape = [size.layers as i64, samples, self.config.kv_heads(), tokens, size.head_width()];
        let (kind, device) = (self.precision.kind(), self.device.torch());
        let mut cache = KvCache::new(shape, kind, device)?;
        cache.restart(samples)?;
        let tokens = Tensor::f_zeros([rows, tokens], (Kind::Int64, device))?;
        self.network.buffers = Some(SamplerBuffers { cache, tokens });
        Ok(())
    }

    /// The one wait for the device.
    fn token_batch(&self, tokens: &Tensor, filled: usize) -> Result<TokenBatch, ModelError> {
        let tokens = tokens.f_narrow(0, 0, filled as i64)?.f_to_device(tch::Device::Cpu)?.f_contiguous()?;
        let mut codes = vec![0_i64; tokens.numel()];
        let count = codes.len();
        tokens.f_copy_data(&mut codes, count)?;
        Ok(TokenBatch::try_from_codes(&codes, self.config.tokens_per_image(), self.config.codebook_size())?)
    }
}

/// `null + (class - null) * scale` of logits whose first `rows` rows are the class's: `[2 rows, n, codes]` to `[rows, n, codes]`.
fn classifier_free_guidance(logits: &Tensor, rows: i64, scale: f64) -> Result<Tensor, ModelError> {
    let (class, null) = (logits.f_narrow(0, 0, rows)?, logits.f_narrow(0, rows, rows)?);
    Ok(class.f_sub(&null)?.f_mul_scalar_(scale)?.f_add_(&null)?)
}

/// The error for `found` rows of something where there should be `expected`.
fn wrong_rows(what: &'static str, found: usize, expected: usize) -> ModelError {
    ModelError::Data(SchemaError::Shape { what, found: found.to_string(), expected: expected.to_string() })
}

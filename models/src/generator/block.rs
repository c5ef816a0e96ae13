//! One block of the generator: attention and a gated hidden layer, each behind a norm and added to the stream
//! (`TransformerBlock` in autoregressive/models/gpt_har.py).

use super::{
    config::{Dropouts, GeneratorConfig},
    kv_cache::LayerCache,
    steps::Steps,
};
use crate::{
    ModelError,
    layers::{Activation, Linear, RmsNorm, add_into, rotate},
    measuring,
    parameters::{Init, Scope},
};
use tch::{Kind, Tensor};

/// What the attention of one forward pass sees.
#[derive(Clone, Copy, Debug)]
pub(super) enum AttentionContext<'a> {
    /// All positions of an image are there at once.
    Whole(&'a Steps),
    /// The positions of one step are there; keys and values of all before them are in the cache.
    Step(&'a LayerCache),
}

/// A block.
#[derive(Debug)]
pub(super) struct Block {
    attention_norm: RmsNorm,
    projection: Linear,
    output: Linear,
    hidden_norm: RmsNorm,
    gate_up: GateUp,
    down_proj: Linear,
    heads: i64,
    kv_heads: i64,
    /// None outside training.
    dropouts: Dropouts,
    kind: Kind,
}

impl Block {
    pub(super) fn new(scope: &Scope<'_>, config: &GeneratorConfig, dropouts: Dropouts) -> Result<Self, ModelError> {
        let (size, hidden, kv_heads) = (config.size(), config.ffn_dim(), config.kv_heads());
        let (width, init) = (size.width, Init::Normal(config.init_std()));
        let projected = (size.heads + 2 * kv_heads) * size.head_width();
        let norm = |name: &str| RmsNorm::new(&scope.sub(name), width, config.norm_epsilon());
        let linear = |name: &str, inputs, outputs| Linear::without_bias(&scope.sub(name), inputs, outputs, init);
        Ok(Self {
            attention_norm: norm("attention_norm")?,
            projection: linear("attention.wqkv", width, projected)?,
            output: linear("attention.wo", width, width)?,
            hidden_norm: norm("ffn_norm")?,
            gate_up: GateUp::new(scope, width, hidden, init)?,
            down_proj: linear("feed_forward.w2", hidden, width)?,
            heads: size.heads,
            kv_heads,
            dropouts,
            kind: scope.kind,
        })
    }

    /// # Shapes
    /// `stream`: float32 `[B, n, C]`, which outside training is written over; `rotary`: the factors of its n positions. Returns the
    /// same shape.
    pub(super) fn forward(
        &self,
        stream: Tensor,
        rotary: &Tensor,
        context: AttentionContext<'_>,
    ) -> Result<Tensor, ModelError> {
        let attended = self.attend(&self.attention_norm.forward(&stream, self.kind)?, rotary, context)?;
        let attended = drop_path(dropout(attended, self.dropouts.residual)?, self.dropouts.path)?;
        let stream = add_into(stream, &attended)?;
        let normal = self.hidden_norm.forward(&stream, self.kind)?;
        let hidden = self.down_proj.forward(&self.gate_up.forward(&normal)?, Activation::None)?;
        add_into(stream, &drop_path(dropout(hidden, self.dropouts.hidden)?, self.dropouts.path)?)
    }

    fn attend(&self, input: &Tensor, rotary: &Tensor, context: AttentionContext<'_>) -> Result<Tensor, ModelError> {
        let (batch, tokens, channels) = input.size3()?;
        let (heads, shared) = (self.heads, self.kv_heads);
        let all = self.projection.forward(input, Activation::None)?;
        let all = all.f_view([batch, tokens, 1, heads + 2 * shared, channels / heads])?;
        // Queries and keys turn together; values stay.
        let turned = rotate(&all.f_narrow(3, 0, heads + shared)?.f_to_kind(Kind::Float)?, rotary)?;
        // [B, n, 1, H, D] to [B, H, n, D], as views.
        let turned = turned.f_to_kind(self.kind)?.f_squeeze_dim(2)?.f_transpose(1, 2)?;
        let (query, key) = (turned.f_narrow(1, 0, heads)?, turned.f_narrow(1, heads, shared)?);
        let value = all.f_narrow(3, heads + shared, shared)?.f_squeeze_dim(2)?.f_transpose(1, 2)?;
        let attended = match context {
            AttentionContext::Whole(steps) => self.attend_whole(&query, &key, &value, steps)?,
            AttentionContext::Step(cache) => {
                let _measured = tracing::trace_span!(measuring::ATTENTION).entered();
                let (key, value) = cache.extend(&key, &value)?;
                self.attention(&query, &key, &value, false)?.f_transpose(1, 2)?
            }
        };
        self.output.forward(&attended.f_reshape([batch, tokens, channels])?, Activation::None)
    }

    /// `[B, H, N, D]` to `[B, N, H, D]`. Every level is a rectangle of the attention matrix, its rows against the first columns, so
    /// that no mask is needed and what nobody sees is not computed; the single tokens in front are one causal square.
    fn attend_whole(&self, query: &Tensor, key: &Tensor, value: &Tensor, steps: &Steps) -> Result<Tensor, ModelError> {
        let rectangle = |init: i64, tokens: i64, causal: bool| -> Result<Tensor, ModelError> {
            let rows = query.f_narrow(2, init, tokens)?;
            let (key, value) = (key.f_narrow(2, 0, init + tokens)?, value.f_narrow(2, 0, init + tokens)?);
            Ok(self.attention(&rows, &key, &value, causal)?.f_transpose(1, 2)?)
        };
        let mut attended = vec![rectangle(0, steps.single(), steps.single() > 1)?];
        for step in steps.levels() {
            attended.push(rectangle(step.start, step.tokens, false)?);
        }
        match &attended[..] {
            [one] => Ok(one.shallow_clone()),
            several => Ok(Tensor::f_cat(several, 1)?),
        }
    }

    fn attention(&self, query: &Tensor, key: &Tensor, value: &Tensor, causal: bool) -> Result<Tensor, ModelError> {
        let (mask, scale) = (None::<Tensor>, None);
        let grouped = self.heads != self.kv_heads;
        let dropout = self.dropouts.attention;
        Ok(Tensor::f_scaled_dot_product_attention(query, key, value, mask, dropout, causal, scale, grouped)?)
    }
}

/// The hidden layer's gate and what it lets through: `silu(x w1) * (x w3)`.
#[derive(Debug)]
enum GateUp {
    /// One product, its first half the gate: one launch in the place of two.
    Fused(Linear),
    /// Each a parameter of its own, which training changes.
    Separate { gate_proj: Linear, up_proj: Linear },
}

impl GateUp {
    fn new(scope: &Scope<'_>, width: i64, hidden: i64, init: Init) -> Result<Self, ModelError> {
        let scopes = ["w1", "w3"].map(|name| scope.sub("feed_forward").sub(name));
        if scope.trainable() {
            let [gate, up] = scopes.each_ref().map(|scope| Linear::without_bias(scope, width, hidden, init));
            return Ok(Self::Separate { gate_proj: gate?, up_proj: up? });
        }
        let [gate, up] = scopes.each_ref().map(|scope| scope.tensor("weight", &[hidden, width], init));
        Ok(Self::Fused(Linear::from_tensors(scope, &Tensor::f_cat(&[gate?, up?], 0)?, None)?))
    }

    /// # Shapes
    /// `[B, n, C]` to `[B, n, hidden]`.
    fn forward(&self, input: &Tensor) -> Result<Tensor, ModelError> {
        match self {
            Self::Fused(linear) => {
                let both = linear.forward(input, Activation::None)?;
                let hidden = both.size().last().copied().unwrap_or(0) / 2;
                Ok(both.f_narrow(-1, 0, hidden)?.f_silu()?.f_mul_(&both.f_narrow(-1, hidden, hidden)?)?)
            }
            Self::Separate { gate_proj, up_proj } => {
                let (gate, up) =
                    (gate_proj.forward(input, Activation::None)?, up_proj.forward(input, Activation::None)?);
                match gate.requires_grad() {
                    true => Ok(gate.f_silu()?.f_mul(&up)?),
                    false => Ok(gate.shallow_clone().f_silu_()?.f_mul_(&up)?),
                }
            }
        }
    }
}

/// Sets a fraction of the values to zero and makes the rest larger by as much.
pub(super) fn dropout(input: Tensor, fraction: f64) -> Result<Tensor, ModelError> {
    if fraction == 0.0 { Ok(input) } else { Ok(input.f_dropout(fraction, true)?) }
}

/// Sets all values of a fraction of the samples to zero and makes the rest larger by as much (utils/drop_path.py).
fn drop_path(input: Tensor, fraction: f64) -> Result<Tensor, ModelError> {
    if fraction == 0.0 {
        return Ok(input);
    }
    let (batch, ..) = input.size3()?;
    let kept = Tensor::f_empty([batch, 1, 1], (input.kind(), input.device()))?.f_bernoulli_float_(1.0 - fraction)?;
    Ok(input.f_mul(&kept.f_div_scalar(1.0 - fraction)?)?)
}

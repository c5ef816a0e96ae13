//! Sizes of the transformers by name, published and ours.

use crate::ModelError;
use schemas::SchemaError;
use serde::{Deserialize, Serialize};

/// Size of one transformer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TransformerSize {
    /// Channels of the stream.
    pub width: i64,
    /// Blocks.
    pub layers: usize,
    /// Attention heads.
    pub heads: i64,
}

impl TransformerSize {
    /// Channels of one head.
    pub fn head_width(&self) -> i64 {
        self.width / self.heads
    }
}

/// A published size of a tokenizer's transformers (modeling/modules/blocks.py).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum TokenizerSize {
    /// Width 512, 6 layers, 8 heads.
    Small,
    /// Width 768, 12 layers, 12 heads.
    Base,
    /// Width 1024, 24 layers, 16 heads.
    Large,
}

impl TokenizerSize {
    /// Its transformers, encoder and decoder alike.
    pub const fn transformer(self) -> TransformerSize {
        match self {
            Self::Small => TransformerSize { width: 512, layers: 6, heads: 8 },
            Self::Base => TransformerSize { width: 768, layers: 12, heads: 12 },
            Self::Large => TransformerSize { width: 1024, layers: 24, heads: 16 },
        }
    }
}

/// The transformers of the tokenizer for images of 32 by 32 pixels.
pub(crate) const TINY_TOKENIZER: TransformerSize = TransformerSize { width: 96, layers: 3, heads: 3 };

/// The tokenizer presets by name, and the size of both their transformers.
pub(crate) const TOKENIZER_PRESETS: [(&str, TransformerSize); 4] = [
    ("restok-l-128", TokenizerSize::Large.transformer()),
    ("restok-b-128", TokenizerSize::Base.transformer()),
    ("restok-s-128", TokenizerSize::Small.transformer()),
    ("tiny", TINY_TOKENIZER),
];

/// Sizes by name (`GPT_models` in autoregressive/models/gpt_har.py), and one of ours for small images.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum GeneratorSize {
    /// Width 128, 6 layers, 4 heads: ours, what two cores train in an hour.
    Tiny,
    /// Width 768, 12 layers, 12 heads.
    GptB,
    /// Width 1024, 24 layers, 16 heads.
    GptL,
    /// Width 1280, 36 layers, 20 heads.
    GptXl,
    /// Width 1536, 48 layers, 24 heads.
    GptXxl,
}

impl GeneratorSize {
    /// The size `name`: `tiny`, `gpt-b`, `gpt-l`, `gpt-xl` or `gpt-xxl`.
    ///
    /// # Errors
    /// When there is none of that name.
    pub fn named(name: &str) -> Result<Self, ModelError> {
        Self::ALL.into_iter().find(|size| size.name() == name).ok_or_else(|| {
            ModelError::Data(SchemaError::UnknownName {
                what: "generator size",
                found: name.to_owned(),
                expected: Self::ALL.map(Self::name).join(", "),
            })
        })
    }

    /// All sizes, smallest first.
    pub const ALL: [Self; 5] = [Self::Tiny, Self::GptB, Self::GptL, Self::GptXl, Self::GptXxl];

    /// Its name in settings.
    pub fn name(self) -> &'static str {
        match self {
            Self::Tiny => "tiny",
            Self::GptB => "gpt-b",
            Self::GptL => "gpt-l",
            Self::GptXl => "gpt-xl",
            Self::GptXxl => "gpt-xxl",
        }
    }

    /// Its transformer.
    pub const fn transformer(self) -> TransformerSize {
        match self {
            Self::Tiny => TransformerSize { width: 128, layers: 6, heads: 4 },
            Self::GptB => TransformerSize { width: 768, layers: 12, heads: 12 },
            Self::GptL => TransformerSize { width: 1024, layers: 24, heads: 16 },
            Self::GptXl => TransformerSize { width: 1280, layers: 36, heads: 20 },
            Self::GptXxl => TransformerSize { width: 1536, layers: 48, heads: 24 },
        }
    }
}

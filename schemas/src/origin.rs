//! Where the rows of an output come from: images that were encoded, samples that were drawn, or tokens that were there.

use crate::{Crop, ImageIdRule, PlanHash, Sampling, SourceLayout, SourceReading};
use serde::{Deserialize, Serialize};
use std::collections::BTreeSet;

/// What a plan's inputs are, and what of the making of its rows belongs to that alone.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum Origin {
    /// Images of a source, cropped and encoded. Inputs are its objects.
    Images(ImageOrigin),
    /// Samples of a generator. Inputs are ranges of sample numbers.
    Samples(SampleOrigin),
    /// The tokens of another output, turned into pictures. Inputs are the files of its tokens table.
    Tokens(TokenOrigin),
}

/// How images are read and cropped.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ImageOrigin {
    /// How they lie in the source.
    pub layout: SourceLayout,
    /// How an image's key is made.
    pub image_id: ImageIdRule,
    /// The crop, by name.
    pub crop: Crop,
    /// Encoded images above this many bytes are rejected.
    pub max_image_bytes: u64,
    /// Images above this many pixels are rejected.
    pub max_image_pixels: u64,
    /// How images, labels and keys are found, where the layout leaves a choice.
    #[serde(default)]
    pub reading: SourceReading,
}

/// What samples are drawn from, and how.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct SampleOrigin {
    /// The generator.
    pub generator: GeneratorIdentity,
    /// How tokens are drawn.
    pub sampling: Sampling,
    /// Number of samples.
    pub count: u64,
    /// Classes in turn: sample `i` is of class `i` modulo their number. Interleaved, because a set that is sorted by class breaks
    /// the inception score, which is taken over parts of it.
    pub classes: Vec<i32>,
    /// What is made of the tokens; absent for tokens alone.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pictures: Option<Pictures>,
}

/// Which tokens are turned into pictures.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TokenOrigin {
    /// The plan whose tokens table is read, the first view of each image.
    pub tokens_plan: PlanHash,
    /// What is made of them.
    pub pictures: Pictures,
}

/// The generator, as far as its samples depend on it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct GeneratorIdentity {
    /// What the operator called it: a folder's name or `hf://owner/name`.
    pub name: String,
    /// SHA-256 of its configuration and weights, lowercase hexadecimal.
    pub sha256: String,
}

/// Pictures that are decoded from tokens, beside the tables.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Pictures {
    /// Arithmetic of the decoder: `fp32`, `tf32`, `bf16` or `fp16`.
    pub decoder_precision: String,
    /// How values become bytes.
    pub rounding: Rounding,
    /// The side of a picture in pixels.
    pub side: usize,
    /// The files to write.
    pub formats: BTreeSet<PictureFormat>,
}

/// From values between 0 and 1 to bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Rounding {
    /// The whole part of 255 times the value, as the published code writes evaluation sets.
    #[default]
    Truncate,
    /// The nearest byte, as the published code scores reconstructions.
    Nearest,
}

/// A form in which pictures are written.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum PictureFormat {
    /// Parquet with a column of PNG files, as Hugging Face reads it.
    Parquet,
    /// A tar a unit: `.png`, `.cls`, `.json`.
    Webdataset,
    /// A PNG file each.
    Png,
    /// The evaluation archive `samples.npz`, made at the end of what [`Self::Parquet`] holds.
    Npz,
}

impl Origin {
    /// Rows of the tokens table for each image.
    pub fn views(&self) -> usize {
        match self {
            Self::Images(images) => images.crop.views(),
            Self::Samples(_) | Self::Tokens(_) => 1,
        }
    }

    /// The pictures that are written, where there are any.
    pub fn pictures(&self) -> Option<&Pictures> {
        match self {
            Self::Images(_) => None,
            Self::Samples(samples) => samples.pictures.as_ref(),
            Self::Tokens(tokens) => Some(&tokens.pictures),
        }
    }

    /// How images are read and cropped, where that is where rows come from.
    pub fn images(&self) -> Option<&ImageOrigin> {
        match self {
            Self::Images(images) => Some(images),
            Self::Samples(_) | Self::Tokens(_) => None,
        }
    }

    /// What samples are drawn from, where that is where rows come from.
    pub fn samples(&self) -> Option<&SampleOrigin> {
        match self {
            Self::Samples(samples) => Some(samples),
            Self::Images(_) | Self::Tokens(_) => None,
        }
    }
}

impl std::fmt::Display for Origin {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Images(images) => images.crop.fmt(formatter),
            Self::Samples(samples) => {
                let Sampling { seed, temperature, top_k, top_p, guidance } = &samples.sampling;
                let schedule = guidance.schedule.name();
                write!(formatter, "guidance {} ({schedule}), top-p {top_p}, ", guidance.scale)?;
                write!(formatter, "top-k {top_k}, temperature {temperature}, seed {seed}")
            }
            Self::Tokens(tokens) => write!(formatter, "tokens of plan {}", tokens.tokens_plan.short()),
        }
    }
}

impl SampleOrigin {
    /// The class of a sample.
    pub fn class_of(&self, sample: u64) -> i32 {
        // Never empty: a plan without classes is refused where it is made.
        self.classes.get((sample % self.classes.len().max(1) as u64) as usize).copied().unwrap_or_default()
    }

    /// The key of a sample in both tables: its number, as wide as the last one's and six digits at least, so that keys sort.
    pub fn image_id(&self, sample: u64) -> String {
        let width = self.count.saturating_sub(1).to_string().len().max(6);
        format!("{sample:0width$}")
    }
}

impl Rounding {
    /// Its name in settings.
    pub fn name(self) -> &'static str {
        match self {
            Self::Truncate => "truncate",
            Self::Nearest => "nearest",
        }
    }
}

impl PictureFormat {
    /// Every form.
    pub const ALL: [Self; 4] = [Self::Parquet, Self::Webdataset, Self::Png, Self::Npz];

    /// Its name in settings.
    pub fn name(self) -> &'static str {
        match self {
            Self::Parquet => "parquet",
            Self::Webdataset => "webdataset",
            Self::Png => "png",
            Self::Npz => "npz",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn classes_take_turns_and_keys_sort() {
        let origin = SampleOrigin {
            generator: GeneratorIdentity { name: "har".to_owned(), sha256: "0".repeat(64) },
            sampling: Sampling::paper(0),
            count: 2_000_000,
            classes: vec![7, 8, 9],
            pictures: None,
        };
        let classes: Vec<i32> = (0..7).map(|sample| origin.class_of(sample)).collect();
        assert_eq!(classes, [7, 8, 9, 7, 8, 9, 7]);
        assert_eq!((origin.image_id(41), origin.image_id(1_999_999)), ("0000041".to_owned(), "1999999".to_owned()));
        let few = SampleOrigin { count: 10, ..origin };
        assert_eq!(few.image_id(3), "000003");
    }
}

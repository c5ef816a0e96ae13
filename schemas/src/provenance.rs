//! What every file of a table says of its own making, as Parquet key-value metadata.
//!
//! No clock and no host name: the same plan on the same kind of device gives the same bytes.

use crate::{Origin, PlanHash, PlanSettings, SCHEMA_VERSION, Sampling, SchemaError, TokenLevels};
use std::collections::BTreeMap;

/// The software and hardware that made a file, beyond what the plan fixes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WriterInfo {
    /// Kind of device, such as `cpu` or a GPU's name.
    pub device_kind: String,
    /// Version of libtorch.
    pub libtorch: String,
    /// Image decoders and their versions.
    pub decoder: String,
    /// Version of this project.
    pub version: String,
}

/// Provenance of one file.
#[derive(Clone, Debug, PartialEq)]
pub struct Provenance {
    /// The plan's hash.
    pub plan: PlanHash,
    /// The unit.
    pub unit: u32,
    /// What decided the tables.
    pub settings: PlanSettings,
    /// What made this file.
    pub writer_info: WriterInfo,
}

/// Metadata key of the plan's full hash.
pub const KEY_PLAN: &str = "restok.plan";
/// Metadata key of the unit's number.
pub const KEY_UNIT: &str = "restok.unit";
/// Metadata key of the schema version.
pub const KEY_SCHEMA_VERSION: &str = "restok.schema_version";
/// Metadata key of the level offsets, a JSON list such as `[0,1,2,4,8,16,32,64,128]`.
pub const KEY_LEVEL_OFFSETS: &str = "restok.level_offsets";
/// Metadata key of the codebook's size.
pub const KEY_CODEBOOK_SIZE: &str = "restok.codebook_size";
/// Metadata key of the kind of device.
pub const KEY_DEVICE_KIND: &str = "restok.device_kind";
/// Metadata keys of what made a file: every file has them, and one file may have other values than the next.
pub const WRITER_KEYS: [&str; 4] = [KEY_DEVICE_KIND, "restok.libtorch", "restok.decoder", "restok.version"];

impl Provenance {
    /// The pairs to store, sorted by key.
    pub fn to_key_values(&self) -> BTreeMap<String, String> {
        let WriterInfo { device_kind, libtorch, decoder, version } = self.writer_info.clone();
        let mut pairs = Self::plan_key_values(&self.plan, self.unit, &self.settings);
        pairs.extend(WRITER_KEYS.map(str::to_owned).into_iter().zip([device_kind, libtorch, decoder, version]));
        pairs
    }

    /// The pairs that follow from the plan: all but [`WRITER_KEYS`].
    pub fn plan_key_values(plan: &PlanHash, unit: u32, settings: &PlanSettings) -> BTreeMap<String, String> {
        let offsets: Vec<String> = settings.tokenizer.levels.offsets().iter().map(ToString::to_string).collect();
        [
            (KEY_SCHEMA_VERSION, SCHEMA_VERSION.to_string()),
            (KEY_PLAN, plan.to_string()),
            (KEY_UNIT, unit.to_string()),
            (KEY_LEVEL_OFFSETS, format!("[{}]", offsets.join(","))),
            (KEY_CODEBOOK_SIZE, settings.tokenizer.codebook_size.to_string()),
            ("restok.tokenizer", settings.tokenizer.name.clone()),
            ("restok.tokenizer_sha256", settings.tokenizer.sha256.clone()),
            ("restok.views", settings.origin.views().to_string()),
            ("restok.precision", settings.precision.clone()),
            ("restok.batch_size", settings.batch_size.to_string()),
            ("restok.source", settings.source.clone()),
            ("restok.split", settings.split.clone()),
        ]
        .into_iter()
        .chain(origin_key_values(&settings.origin))
        .map(|(key, value)| (key.to_owned(), value))
        .collect()
    }
}

/// What a file says of where its rows come from.
fn origin_key_values(origin: &Origin) -> Vec<(&'static str, String)> {
    let mut pairs = match origin {
        Origin::Images(images) => vec![
            ("restok.crop", images.crop.to_string()),
            ("restok.exif_orientation", "ignored".to_owned()),
            ("restok.image_id", images.image_id.name().to_owned()),
        ],
        Origin::Samples(samples) => {
            let Sampling { seed, temperature, top_k, top_p, guidance } = &samples.sampling;
            let schedule = serde_json::to_string(&guidance.schedule).unwrap_or_default();
            let interval = guidance.interval.map(|last| ("restok.guidance_interval", last.to_string()));
            let mut pairs = vec![
                ("restok.generator", samples.generator.name.clone()),
                ("restok.generator_sha256", samples.generator.sha256.clone()),
                ("restok.seed", seed.to_string()),
                ("restok.temperature", temperature.to_string()),
                ("restok.top_k", top_k.to_string()),
                ("restok.top_p", top_p.to_string()),
                ("restok.guidance", guidance.scale.to_string()),
                ("restok.guidance_schedule", schedule),
            ];
            pairs.extend(interval);
            pairs
        }
        Origin::Tokens(tokens) => vec![("restok.tokens_plan", tokens.tokens_plan.to_string())],
    };
    if let Some(pictures) = origin.pictures() {
        pairs.push(("restok.rounding", pictures.rounding.name().to_owned()));
        pairs.push(("restok.decoder_precision", pictures.decoder_precision.clone()));
    }
    pairs
}

/// The levels that a file's metadata states.
///
/// # Errors
/// When the key is absent or is no list of offsets.
pub fn read_levels(metadata: &BTreeMap<String, String>) -> Result<TokenLevels, SchemaError> {
    let text = read_key(metadata, KEY_LEVEL_OFFSETS)?;
    let offsets: Vec<usize> = serde_json::from_str(text).map_err(|error| SchemaError::Document {
        document: format!("metadata {KEY_LEVEL_OFFSETS}"),
        problem: format!("{error} in {text:?}"),
    })?;
    TokenLevels::from_offsets(&offsets)
}

/// A value that every file of a table must have.
///
/// # Errors
/// When it is absent.
pub fn read_key<'a>(metadata: &'a BTreeMap<String, String>, key: &str) -> Result<&'a str, SchemaError> {
    metadata.get(key).map(String::as_str).ok_or_else(|| SchemaError::Document {
        document: "file metadata".to_owned(),
        problem: format!("{key} is missing: was this file written by restok?"),
    })
}

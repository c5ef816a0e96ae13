//! The plan: every input frozen once, divided into units, named by its own hash.
//!
//! Written as JSON lines: a header, then a line for each input in the order of the tables. The hash of those bytes names the
//! plan, and with it every file of the output, so that a run with other inputs, another checkpoint or another crop can never
//! mix with this one.

use crate::{Origin, SchemaError, SourceReading, TokenLevels};
use serde::{Deserialize, Serialize, Serializer, ser::SerializeMap};
use sha2::{Digest, Sha256};
use std::{fmt, ops::Range};

/// Version of the plan, of the tables and of the markers; a reader refuses what is newer than itself.
pub const SCHEMA_VERSION: u32 = 1;

/// The tokenizer, as far as tokens depend on it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TokenizerIdentity {
    /// What the operator called it: a folder's name or `hf://owner/name`.
    pub name: String,
    /// SHA-256 of its configuration and weights, lowercase hexadecimal.
    pub sha256: String,
    /// Codes in the codebook.
    pub codebook_size: usize,
    /// Tokens of each level, coarsest first.
    pub levels: TokenLevels,
}

/// Everything besides the inputs that decides what the tables hold.
#[derive(Clone, Debug, PartialEq, Deserialize)]
pub struct PlanSettings {
    /// Where the rows come from, as given, without credentials: images, a generator, or another output.
    pub source: String,
    /// Value of the `split=` partition, such as `train`.
    pub split: String,
    /// The tokenizer: of images that are encoded, or of codes that are drawn or decoded.
    pub tokenizer: TokenizerIdentity,
    /// Arithmetic of the network that gives the codes: `fp32`, `tf32`, `bf16` or `fp16`.
    pub precision: String,
    /// Rows of a batch. Part of the plan because kernels, and so the last bits of what they compute, depend on it.
    pub batch_size: usize,
    /// Largest number of images in a unit.
    pub unit_size: usize,
    /// What the inputs are.
    #[serde(flatten)]
    pub origin: Origin,
}

impl Serialize for PlanSettings {
    /// In one flat map. The order of its keys is part of every plan's hash: that of plans of images is the order they have had since
    /// the first version, so that outputs of every version are read.
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let images = self.origin.images();
        let mut map = serializer.serialize_map(None)?;
        map.serialize_entry("source", &self.source)?;
        if let Some(images) = images {
            map.serialize_entry("layout", &images.layout)?;
        }
        map.serialize_entry("split", &self.split)?;
        if let Some(images) = images {
            map.serialize_entry("image_id", &images.image_id)?;
        }
        map.serialize_entry("tokenizer", &self.tokenizer)?;
        if let Some(images) = images {
            map.serialize_entry("crop", &images.crop)?;
        }
        map.serialize_entry("precision", &self.precision)?;
        map.serialize_entry("batch_size", &self.batch_size)?;
        map.serialize_entry("unit_size", &self.unit_size)?;
        match &self.origin {
            Origin::Images(images) => {
                map.serialize_entry("max_image_bytes", &images.max_image_bytes)?;
                map.serialize_entry("max_image_pixels", &images.max_image_pixels)?;
                // Absent where it is as ever, so that such plans keep their hashes.
                if images.reading != SourceReading::default() {
                    map.serialize_entry("reading", &images.reading)?;
                }
            }
            Origin::Samples(samples) => {
                map.serialize_entry("generator", &samples.generator)?;
                map.serialize_entry("sampling", &samples.sampling)?;
                map.serialize_entry("count", &samples.count)?;
                map.serialize_entry("classes", &samples.classes)?;
                map.serialize_entry("pictures", &samples.pictures)?;
            }
            Origin::Tokens(tokens) => {
                map.serialize_entry("tokens_plan", &tokens.tokens_plan)?;
                map.serialize_entry("pictures", &tokens.pictures)?;
            }
        }
        map.end()
    }
}

impl PlanSettings {
    /// Names what differs between two settings, one line each: `crop: adm-center-256 in the output, adm-center-281 here`.
    pub fn differences(&self, other: &Self) -> Vec<String> {
        let as_map = |settings: &Self| match serde_json::to_value(settings) {
            Ok(serde_json::Value::Object(map)) => map,
            _ => serde_json::Map::new(),
        };
        let (mine, theirs) = (as_map(self), as_map(other));
        mine.iter()
            .filter(|(name, value)| theirs.get(*name) != Some(value))
            .map(|(name, value)| {
                let show = |value: Option<&serde_json::Value>| match value {
                    Some(serde_json::Value::String(text)) => text.clone(),
                    Some(value) => value.to_string(),
                    None => "nothing".to_owned(),
                };
                format!("{name}: {} in the output, {} here", show(Some(value)), show(theirs.get(name)))
            })
            .collect()
    }
}

/// One object of the source, or a part of one, that a unit reads.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PlannedInput {
    /// Full address of the object, without credentials; [`Self::SAMPLES`] for numbers of samples.
    pub uri: String,
    /// Size of the object in bytes; 0 for samples.
    pub size: u64,
    /// The store's version tag, where it has one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub etag: Option<String>,
    /// Rows of the object that this unit reads, or numbers of its samples; absent when it reads all of the object.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rows: Option<Range<u64>>,
    /// Label, where the layout gives it by path (`folder`).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub label: Option<i32>,
    /// The unit that reads it.
    pub unit: u32,
}

impl PlannedInput {
    /// What stands for an address where there is no object: a range of samples to be drawn.
    pub const SAMPLES: &str = "samples";
}

/// First line of a plan.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct PlanHeader {
    schema_version: u32,
    settings: PlanSettings,
    class_names: Vec<String>,
}

/// The plan of a run.
#[derive(Clone, Debug, PartialEq)]
pub struct Plan {
    settings: PlanSettings,
    class_names: Vec<String>,
    inputs: Vec<PlannedInput>,
    hash: PlanHash,
}

impl Plan {
    /// Freezes `inputs`, whose units must count up from 0 without gaps.
    ///
    /// # Errors
    /// When there is no input, or units are out of order.
    pub fn try_new(
        settings: PlanSettings,
        class_names: Vec<String>,
        inputs: Vec<PlannedInput>,
    ) -> Result<Self, SchemaError> {
        let in_order = inputs.first().is_some_and(|input| input.unit == 0)
            && inputs.windows(2).all(|pair| pair[1].unit == pair[0].unit || pair[1].unit == pair[0].unit + 1);
        if !in_order {
            return Err(SchemaError::Document {
                document: "plan".to_owned(),
                problem: "units must count up from 0 without gaps, with at least one input".to_owned(),
            });
        }
        let mut plan = Self { settings, class_names, inputs, hash: PlanHash(String::new()) };
        plan.hash = PlanHash(hex(&Sha256::digest(plan.to_json_lines()?)));
        Ok(plan)
    }

    /// Reads what [`Self::to_json_lines`] wrote.
    ///
    /// # Errors
    /// When a line is no plan line, or the schema version is newer than this program's.
    pub fn from_json_lines(bytes: &[u8]) -> Result<Self, SchemaError> {
        let problem = |line: usize, problem: String| SchemaError::Document {
            document: format!("plan, line {}", line + 1),
            problem,
        };
        let mut lines = bytes.split(|&byte| byte == b'\n').filter(|line| !line.is_empty()).enumerate();
        let (_, first) = lines.next().ok_or_else(|| problem(0, "the plan is empty".to_owned()))?;
        let header: PlanHeader = serde_json::from_slice(first).map_err(|error| problem(0, error.to_string()))?;
        if header.schema_version > SCHEMA_VERSION {
            return Err(problem(
                0,
                format!(
                    "written with schema version {}, this program reads up to {SCHEMA_VERSION}: use a newer restok",
                    header.schema_version
                ),
            ));
        }
        let inputs = lines
            .map(|(line, bytes)| serde_json::from_slice(bytes).map_err(|error| problem(line, error.to_string())))
            .collect::<Result<Vec<_>, _>>()?;
        Self::try_new(header.settings, header.class_names, inputs)
    }

    /// The plan as JSON lines; the same plan always gives the same bytes.
    ///
    /// # Errors
    /// When serialization fails, which a plan that was built by this program does not.
    pub fn to_json_lines(&self) -> Result<Vec<u8>, SchemaError> {
        let header = PlanHeader {
            schema_version: SCHEMA_VERSION,
            settings: self.settings.clone(),
            class_names: self.class_names.clone(),
        };
        let document = |error: serde_json::Error| SchemaError::Document {
            document: "plan".to_owned(),
            problem: error.to_string(),
        };
        let mut lines = serde_json::to_vec(&header).map_err(document)?;
        lines.push(b'\n');
        for input in &self.inputs {
            serde_json::to_writer(&mut lines, input).map_err(document)?;
            lines.push(b'\n');
        }
        Ok(lines)
    }

    /// What decides the tables besides the inputs.
    pub fn settings(&self) -> &PlanSettings {
        &self.settings
    }

    /// Names of the classes by label, where the layout gives them; else empty.
    pub fn class_names(&self) -> &[String] {
        &self.class_names
    }

    /// Every input, in the order of the tables.
    pub fn inputs(&self) -> &[PlannedInput] {
        &self.inputs
    }

    /// The hash that names the plan.
    pub fn hash(&self) -> &PlanHash {
        &self.hash
    }

    /// Number of units.
    pub fn units(&self) -> u32 {
        self.inputs.last().map_or(0, |input| input.unit + 1)
    }

    /// The inputs of one unit, in order; empty for a unit that the plan does not have.
    pub fn unit_inputs(&self, unit: u32) -> &[PlannedInput] {
        let start = self.inputs.partition_point(|input| input.unit < unit);
        let end = self.inputs.partition_point(|input| input.unit <= unit);
        &self.inputs[start..end]
    }
}

/// SHA-256 of a plan, lowercase hexadecimal.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct PlanHash(String);

impl TryFrom<String> for PlanHash {
    type Error = SchemaError;

    fn try_from(digits: String) -> Result<Self, Self::Error> {
        if digits.len() == 64 && digits.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f')) {
            return Ok(Self(digits));
        }
        Err(SchemaError::Shape {
            what: "plan hash",
            found: format!("{digits:?}"),
            expected: "64 lowercase hexadecimal digits".to_owned(),
        })
    }
}

impl From<PlanHash> for String {
    fn from(hash: PlanHash) -> Self {
        hash.0
    }
}

impl PlanHash {
    /// All 64 digits.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The eight digits that appear in file names.
    pub fn short(&self) -> &str {
        &self.0[..8]
    }
}

impl fmt::Display for PlanHash {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&self.0)
    }
}

/// Lowercase hexadecimal digits of a digest.
pub fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// SHA-256 of some bytes, lowercase hexadecimal.
pub fn sha256_hex(bytes: &[u8]) -> String {
    hex(&Sha256::digest(bytes))
}

//! The plan: every input frozen once, divided into units, named by its own hash.
//!
//! Written as JSON lines: a header, then a line for each input in the order of the tables. The hash of those bytes names the
//! plan, and with it every file of the output, so that a run with other inputs, another checkpoint or another crop can never
//! mix with this one.

use crate::{Origin, PackedList, PlanHash, SchemaError, SourceReading, TokenLevels, packed_list::compress};
use serde::{Deserialize, Serialize, Serializer, ser::SerializeMap};
use sha2::{Digest, Sha256};
use std::{borrow::Cow, io::BufRead, ops::Range};

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
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
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
struct PlanHeader<'a> {
    schema_version: u32,
    settings: Cow<'a, PlanSettings>,
    class_names: Cow<'a, [String]>,
}

/// The plan of a run. Its inputs are packed: see [`PackedList`].
#[derive(Clone, Debug, PartialEq)]
pub struct Plan {
    settings: PlanSettings,
    class_names: Vec<String>,
    inputs: PackedList<PlannedInput>,
    /// The unit of the first input of each frame of `inputs`.
    first_units: Vec<u32>,
    units: u32,
    hash: PlanHash,
}

/// A plan whose inputs are added one by one, so that not all of them have to be in memory unpacked.
#[derive(Debug)]
pub struct PlanBuilder {
    settings: PlanSettings,
    class_names: Vec<String>,
    inputs: PackedList<PlannedInput>,
    first_units: Vec<u32>,
    units: u32,
    digest: Sha256,
}

impl PlanBuilder {
    /// A plan without inputs.
    pub fn new(settings: PlanSettings, class_names: Vec<String>) -> Self {
        let digest = Sha256::new_with_prefix(header_line(&settings, &class_names));
        Self { settings, class_names, inputs: PackedList::default(), first_units: Vec::new(), units: 0, digest }
    }

    /// Adds an input, whose unit is that of the one before or the next.
    ///
    /// # Errors
    /// When it is another.
    pub fn push(&mut self, input: &PlannedInput) -> Result<(), SchemaError> {
        if input.unit != self.units && input.unit.checked_add(1) != Some(self.units) {
            return Err(out_of_order());
        }
        self.units = input.unit.checked_add(1).ok_or_else(out_of_order)?;
        self.digest.update(self.inputs.push(input));
        if self.inputs.frames() > self.first_units.len() {
            self.first_units.push(input.unit);
        }
        Ok(())
    }

    /// Freezes the plan.
    ///
    /// # Errors
    /// When it has no input.
    pub fn finish(self) -> Result<Plan, SchemaError> {
        let Self { settings, class_names, inputs, first_units, units, digest } = self;
        if inputs.is_empty() {
            return Err(out_of_order());
        }
        Ok(Plan { settings, class_names, inputs, first_units, units, hash: PlanHash::of(digest) })
    }
}

fn header_line(settings: &PlanSettings, class_names: &[String]) -> Vec<u8> {
    let header = PlanHeader {
        schema_version: SCHEMA_VERSION,
        settings: Cow::Borrowed(settings),
        class_names: Cow::Borrowed(class_names),
    };
    let mut line = serde_json::to_vec(&header).expect("settings are text and numbers");
    line.push(b'\n');
    line
}

fn out_of_order() -> SchemaError {
    SchemaError::Document {
        document: "plan".to_owned(),
        problem: "units must count up from 0 without gaps, with at least one input".to_owned(),
    }
}

impl Plan {
    /// Freezes `inputs`, whose units must count up from 0 without gaps.
    ///
    /// # Errors
    /// When there is no input, or units are out of order.
    pub fn try_new(
        settings: PlanSettings,
        class_names: Vec<String>,
        inputs: impl IntoIterator<Item = PlannedInput>,
    ) -> Result<Self, SchemaError> {
        let mut plan = PlanBuilder::new(settings, class_names);
        inputs.into_iter().try_for_each(|input| plan.push(&input))?;
        plan.finish()
    }

    /// Reads what [`Self::to_json_lines`] gives.
    ///
    /// # Errors
    /// When a line is no plan line, the schema version is newer than this program's, or `lines` cannot be read.
    pub fn from_json_lines(mut lines: impl BufRead) -> Result<Self, SchemaError> {
        let problem =
            |line: usize, problem: String| SchemaError::Document { document: format!("plan, line {line}"), problem };
        let (mut line, mut number) = (Vec::new(), 0);
        let mut next_line = |line: &mut Vec<u8>| {
            line.clear();
            number += 1;
            let read = lines.read_until(b'\n', line).map_err(|error| problem(number, error.to_string()))?;
            Ok::<_, SchemaError>((read > 0).then_some(number))
        };
        next_line(&mut line)?.ok_or_else(|| problem(1, "the plan is empty".to_owned()))?;
        let header: PlanHeader<'_> = serde_json::from_slice(&line).map_err(|error| problem(1, error.to_string()))?;
        if header.schema_version > SCHEMA_VERSION {
            return Err(problem(
                1,
                format!(
                    "written with schema version {}, this program reads up to {SCHEMA_VERSION}: use a newer restok",
                    header.schema_version
                ),
            ));
        }
        let mut plan = PlanBuilder::new(header.settings.into_owned(), header.class_names.into_owned());
        while let Some(number) = next_line(&mut line)? {
            if line != b"\n" {
                let input = serde_json::from_slice(&line).map_err(|error| problem(number, error.to_string()))?;
                plan.push(&input)?;
            }
        }
        plan.finish()
    }

    /// The plan as JSON lines; the same plan always gives the same bytes.
    pub fn to_json_lines(&self) -> Vec<u8> {
        let lines = zstd::decode_all(self.to_compressed_json_lines().as_slice());
        lines.expect("it is compressed as this program does it")
    }

    /// [`Self::to_json_lines`] as a zstd file.
    pub fn to_compressed_json_lines(&self) -> Vec<u8> {
        let mut file = compress(&header_line(&self.settings, &self.class_names)).into_vec();
        self.inputs.append_compressed(&mut file);
        file
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
    pub fn inputs(&self) -> &PackedList<PlannedInput> {
        &self.inputs
    }

    /// The hash that names the plan.
    pub fn hash(&self) -> &PlanHash {
        &self.hash
    }

    /// Number of units.
    pub fn units(&self) -> u32 {
        self.units
    }

    /// The inputs of one unit, in order; empty for a unit that the plan does not have. Unpacks the frames that they lie in.
    pub fn unit_inputs(&self, unit: u32) -> Vec<PlannedInput> {
        // It may begin at the end of the frame before the first one that begins with it.
        let frame = self.first_units.partition_point(|&first| first < unit).saturating_sub(1);
        let inputs = self.inputs.iter_from(frame).skip_while(|input| input.unit < unit);
        inputs.take_while(|input| input.unit == unit).collect()
    }
}

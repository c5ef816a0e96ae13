//! `model.safetensors.index.json`: which tensor is in which of several files. It is an outline that others fill; so it is believed only
//! where the files beside it agree with it.

use super::{
    foreign::{Foreign, LOOKED_AT},
    safetensors_file::SafetensorsFile,
};
use crate::ModelError;
use serde::{
    Deserialize, Deserializer,
    de::{Error as _, MapAccess, Visitor},
};
use std::{
    collections::{BTreeMap, BTreeSet},
    fmt,
    path::{Path, PathBuf},
};

/// Ending of an index's name.
pub(super) const ENDING: &str = ".index.json";

/// Names that an error shows.
const SHOWN: usize = 3;

/// An index that was read and whose shards were not opened yet.
#[derive(Debug)]
pub(super) struct ShardIndex {
    pub(super) path: PathBuf,
    /// The shard of each tensor.
    shards: BTreeMap<String, String>,
}

#[derive(Deserialize)]
struct RawIndex {
    weight_map: WeightMap,
}

struct WeightMap(BTreeMap<String, String>);

impl<'de> Deserialize<'de> for WeightMap {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Pairs;

        impl<'de> Visitor<'de> for Pairs {
            type Value = WeightMap;

            fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
                formatter.write_str("the shard of each tensor")
            }

            // A map would keep the last of two entries and say nothing.
            fn visit_map<A: MapAccess<'de>>(self, mut entries: A) -> Result<WeightMap, A::Error> {
                let mut shards = BTreeMap::new();
                while let Some((tensor, shard)) = entries.next_entry::<String, String>()? {
                    if let Some(first) = shards.insert(tensor.clone(), shard.clone()) {
                        return Err(A::Error::custom(format!("{tensor} is named twice, in {first} and in {shard}")));
                    }
                }
                Ok(WeightMap(shards))
            }
        }

        deserializer.deserialize_map(Pairs)
    }
}

impl ShardIndex {
    /// Reads the index at `path`.
    ///
    /// # Errors
    /// When it cannot be read, does not read as one, or names a shard that is no file beside it.
    pub(super) fn read(path: &Path) -> Result<Self, ModelError> {
        let bytes = std::fs::read(path).map_err(|source| ModelError::File { file: path.to_owned(), source })?;
        let wrong = |problem: String| ModelError::Shards { index: path.to_owned(), problem };
        let raw: RawIndex = serde_json::from_slice(&bytes).map_err(|error| {
            match Foreign::of(&bytes[..bytes.len().min(LOOKED_AT)]) {
                // A JSON text is what it should be; what is wrong with it, the parser says.
                Some(Foreign::Other { what, advice }) if !bytes.trim_ascii_start().starts_with(b"{") => {
                    ModelError::ForeignFile { file: path.to_owned(), what, expected: "an index of shards", advice }
                }
                _ => wrong(format!("it does not read as an index of shards, which has the shard of each tensor under weight_map: {error}; download it again")),
            }
        })?;
        let WeightMap(shards) = raw.weight_map;
        if shards.is_empty() {
            return Err(wrong("its weight_map is empty: download it again".to_owned()));
        }
        for (tensor, shard) in &shards {
            let is_plain = !shard.contains(['/', '\\', '\0']) && !matches!(shard.as_str(), "" | "." | "..");
            if !is_plain {
                return Err(wrong(format!(
                    "it has {tensor} in {shard:?}; a shard is a file beside the index, named without any folder"
                )));
            }
            if !shard.ends_with(".safetensors") {
                return Err(wrong(format!(
                    "it has {tensor} in {shard:?}, and only safetensors is read: convert the shards, and the index with them"
                )));
            }
        }
        Ok(Self { path: path.to_owned(), shards })
    }

    /// Names of the shards, sorted.
    pub(super) fn shards(&self) -> BTreeSet<&str> {
        self.shards.values().map(String::as_str).collect()
    }

    /// Where the shards are.
    pub(super) fn files(&self) -> Vec<PathBuf> {
        self.shards().into_iter().map(|shard| self.path.with_file_name(shard)).collect()
    }

    /// Opens the shards, which must hold what the index says, each tensor once and nothing else.
    ///
    /// # Errors
    /// When a shard is missing, damaged, or does not agree with the index.
    pub(super) fn open(&self) -> Result<Vec<SafetensorsFile>, ModelError> {
        let wrong = |problem: String| ModelError::Shards { index: self.path.clone(), problem };
        let missing: Vec<&str> =
            self.shards().into_iter().filter(|shard| !self.path.with_file_name(shard).exists()).collect();
        if !missing.is_empty() {
            let lost = self.shards.values().filter(|shard| missing.contains(&shard.as_str())).count();
            return Err(wrong(format!(
                "{} of {} shards missing, and with them {lost} of {} tensors: {}; download them into the same folder",
                missing.len(),
                self.shards().len(),
                self.shards.len(),
                shown(&missing)
            )));
        }
        let files: Vec<_> = self.files().iter().map(|file| SafetensorsFile::open(file)).collect::<Result<_, _>>()?;
        let mut found: BTreeMap<&str, &str> = BTreeMap::new();
        for (file, shard) in files.iter().zip(self.shards()) {
            for (tensor, _) in &file.tensors {
                if let Some(first) = found.insert(tensor, shard) {
                    return Err(wrong(format!(
                        "{tensor} is in two shards, {first} and {shard}: one of them belongs to another checkpoint"
                    )));
                }
            }
        }
        let named = self.shards.iter().map(|(tensor, shard)| (tensor.as_str(), shard.as_str()));
        let lacking = named.filter(|(tensor, shard)| found.get(tensor) != Some(shard));
        let unnamed = found.iter().map(|(&tensor, &shard)| (tensor, shard));
        let unnamed = unnamed.filter(|(tensor, _)| !self.shards.contains_key(*tensor));
        let told = |(tensor, shard): (&str, &str)| format!("{tensor} in {shard}");
        for (tensors, what) in [
            (lacking.map(told).collect::<Vec<_>>(), "that are not where it says"),
            (unnamed.map(told).collect(), "in its shards that it does not name"),
        ] {
            if !tensors.is_empty() {
                let count =
                    if tensors.len() == 1 { "1 tensor".to_owned() } else { format!("{} tensors", tensors.len()) };
                return Err(wrong(format!(
                    "{count} {what}: {}; the shards or the index are of another checkpoint",
                    shown(&tensors)
                )));
            }
        }
        Ok(files)
    }
}

/// The first of some names, and how many more there are.
fn shown(names: &[impl AsRef<str>]) -> String {
    let first: Vec<&str> = names.iter().take(SHOWN).map(AsRef::as_ref).collect();
    match names.len().checked_sub(SHOWN) {
        None | Some(0) => first.join(", "),
        Some(more) => format!("{} and {more} more", first.join(", ")),
    }
}

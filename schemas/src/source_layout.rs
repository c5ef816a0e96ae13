//! How a set of images lies in storage.

use crate::SchemaError;
use serde::{Deserialize, Serialize};
use std::{fmt, str::FromStr};

/// The three layouts that tokenizing reads.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum SourceLayout {
    /// `<class>/<file>`; the label is the index of the class in sorted order.
    Folder,
    /// Tar shards of `<key>.jpg` with `<key>.cls` and optionally `<key>.json`.
    Webdataset,
    /// Parquet with `image: struct<bytes, path>` and `label: int64`.
    Parquet,
}

impl SourceLayout {
    /// Every layout, in the order of the documentation.
    pub const ALL: [Self; 3] = [Self::Folder, Self::Webdataset, Self::Parquet];

    /// The layout's name in settings and plans.
    pub fn name(self) -> &'static str {
        match self {
            Self::Folder => "folder",
            Self::Webdataset => "webdataset",
            Self::Parquet => "parquet",
        }
    }
}

impl fmt::Display for SourceLayout {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(self.name())
    }
}

impl FromStr for SourceLayout {
    type Err = SchemaError;

    fn from_str(name: &str) -> Result<Self, Self::Err> {
        Self::ALL.into_iter().find(|layout| layout.name() == name).ok_or_else(|| SchemaError::UnknownName {
            what: "layout",
            found: name.to_owned(),
            expected: Self::ALL.map(Self::name).join(", "),
        })
    }
}

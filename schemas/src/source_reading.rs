//! How images, labels and keys are found in a source, where its layout leaves a choice.

use crate::SchemaError;
use serde::{Deserialize, Serialize};
use std::{collections::BTreeSet, fmt, str::FromStr};

/// Where labels come from.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum LabelSource {
    /// Whatever the layout has: folders, `.cls` before `.json`, the label's column.
    #[default]
    Auto,
    /// `.cls` members of tar shards alone.
    Cls,
    /// `.json` members of tar shards alone.
    Json,
    /// Nowhere: no row has a label, and no side file is read.
    None,
}

impl LabelSource {
    /// Every way, in the order of the help.
    pub const ALL: [Self; 4] = [Self::Auto, Self::Cls, Self::Json, Self::None];

    /// Its name in settings.
    pub fn name(self) -> &'static str {
        match self {
            Self::Auto => "auto",
            Self::Cls => "cls",
            Self::Json => "json",
            Self::None => "none",
        }
    }
}

impl FromStr for LabelSource {
    type Err = SchemaError;

    fn from_str(name: &str) -> Result<Self, Self::Err> {
        Self::ALL.into_iter().find(|way| way.name() == name).ok_or_else(|| SchemaError::UnknownName {
            what: "source of labels",
            found: name.to_owned(),
            expected: Self::ALL.map(Self::name).join(", "),
        })
    }
}

/// Which files and members are images, by their extensions in lower case.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub enum ImageExtensions {
    /// Those that image files usually have.
    #[default]
    Usual,
    /// Every file, with an extension or without: the first bytes tell what it is.
    Any,
    /// These alone.
    These(BTreeSet<String>),
}

impl ImageExtensions {
    /// Extensions that image files usually have, readable formats and others: those of the others become rows that name the format.
    const USUAL: [&str; 32] = [
        "apng", "avif", "bmp", "dib", "gif", "heic", "heif", "ico", "j2c", "j2k", "jfif", "jif", "jp2", "jpe", "jpeg",
        "jpf", "jpg", "jpx", "jxl", "pam", "pbm", "pfm", "pgm", "png", "pnm", "ppm", "qoi", "tga", "tif", "tiff",
        "webp", "exr",
    ];

    /// Whether a file of this extension, in lower case and without its dot, is an image.
    pub fn contain(&self, extension: Option<&str>) -> bool {
        match (self, extension) {
            (Self::Any, _) => true,
            (_, None) => false,
            (Self::Usual, Some(extension)) => Self::USUAL.contains(&extension),
            (Self::These(these), Some(extension)) => these.contains(extension),
        }
    }
}

impl fmt::Display for ImageExtensions {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Usual => formatter.write_str("usual"),
            Self::Any => formatter.write_str("any"),
            Self::These(these) => formatter.write_str(&these.iter().map(String::as_str).collect::<Vec<_>>().join(",")),
        }
    }
}

impl FromStr for ImageExtensions {
    type Err = SchemaError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match text.trim() {
            "usual" => Ok(Self::Usual),
            "any" => Ok(Self::Any),
            list => {
                let parts = list.split(',').map(|part| part.trim().trim_start_matches('.').to_ascii_lowercase());
                let these: BTreeSet<String> = parts.collect();
                let sound = |part: &String| !part.is_empty() && !part.contains(['/', '.', ' ']);
                match these.iter().all(sound) {
                    true => Ok(Self::These(these)),
                    false => Err(SchemaError::UnknownName {
                        what: "list of extensions",
                        found: text.to_owned(),
                        expected: "usual, any, or extensions with commas such as jpg,jpeg".to_owned(),
                    }),
                }
            }
        }
    }
}

impl TryFrom<String> for ImageExtensions {
    type Error = SchemaError;

    fn try_from(text: String) -> Result<Self, Self::Error> {
        text.parse()
    }
}

impl From<ImageExtensions> for String {
    fn from(extensions: ImageExtensions) -> Self {
        extensions.to_string()
    }
}

/// Names of the columns of a Parquet source; parts of nested columns are joined by dots. What is absent is found by its usual name.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct ColumnNames {
    /// Encoded images: binary, or a struct with a binary `bytes`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub image: Option<String>,
    /// Labels: numbers, or names of classes.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub label: Option<String>,
    /// Keys of the images: text or numbers.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub id: Option<String>,
}

/// The choices together. The default leaves a plan's bytes as they were before there were any.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct SourceReading {
    /// Where labels come from.
    pub labels: LabelSource,
    /// What is an image.
    pub image_extensions: ImageExtensions,
    /// Where in a Parquet file they are.
    pub columns: ColumnNames,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn extensions_read_back_as_they_are_written() {
        for (text, shown, jpg, none) in [
            ("usual", "usual", true, false),
            ("any", "any", true, true),
            ("PNG, .jpg", "jpg,png", true, false),
            ("gif", "gif", false, false),
        ] {
            let extensions: ImageExtensions = text.parse().expect(text);
            assert_eq!(extensions.to_string(), shown);
            assert_eq!((extensions.contain(Some("jpg")), extensions.contain(None)), (jpg, none), "{text}");
            let json = serde_json::to_string(&extensions).expect("written");
            assert_eq!(serde_json::from_str::<ImageExtensions>(&json).expect("read"), extensions);
        }
        for text in ["", "jpg,,png", "tar.gz", "a b"] {
            let error = text.parse::<ImageExtensions>().expect_err(text).to_string();
            assert!(error.contains("jpg,jpeg"), "{error}");
        }
    }

    #[test]
    fn the_sources_of_labels_are_named_in_their_error() {
        assert_eq!("json".parse::<LabelSource>().expect("known"), LabelSource::Json);
        let error = "txt".parse::<LabelSource>().expect_err("unknown").to_string();
        assert!(error.contains("auto, cls, json, none"), "{error}");
    }
}

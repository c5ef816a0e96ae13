//! The protocols by name. Numbers of two protocols do not compare, nor do numbers of one that was not kept.

use crate::SchemaError;
use serde::{Deserialize, Serialize};
use std::{fmt, str::FromStr};

/// Everything that a score depends on besides the images.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum Protocol {
    /// Generated sets as the ADM evaluator scores them (evaluations/c2i/evaluator.py): 50,000 images in a mixed order, statistics of
    /// a stored reference, float32 features, the inception score over consecutive splits of 5,000, precision and recall with
    /// three neighbours.
    #[serde(rename = "gfid-adm")]
    GfidAdm,
    /// Reconstructions as the published evaluation scores them (evaluator/evaluator.py): the same crops of the same 50,000 images
    /// before and after, rounded to bytes, a float64 extractor, the inception score over one split.
    #[serde(rename = "rfid")]
    Rfid,
}

impl Protocol {
    /// Every protocol.
    pub const ALL: [Self; 2] = [Self::GfidAdm, Self::Rfid];

    /// Its name.
    pub fn name(self) -> &'static str {
        match self {
            Self::GfidAdm => "gfid-adm",
            Self::Rfid => "rfid",
        }
    }

    /// Images of a set.
    pub fn count(self) -> u64 {
        50_000
    }

    /// Side of an image in pixels.
    pub fn side(self) -> usize {
        256
    }
}

impl fmt::Display for Protocol {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(self.name())
    }
}

impl FromStr for Protocol {
    type Err = SchemaError;

    fn from_str(name: &str) -> Result<Self, Self::Err> {
        Self::ALL.into_iter().find(|protocol| protocol.name() == name).ok_or_else(|| SchemaError::UnknownName {
            what: "protocol",
            found: name.to_owned(),
            expected: Self::ALL.map(Self::name).join(" or "),
        })
    }
}

/// A rule of a protocol that can be broken.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum DeviationKind {
    /// Another number of images.
    Count,
    /// Images that stand sorted by class, or splits of few classes.
    Order,
    /// Images of another size, or cropped in another way.
    Resize,
    /// Images that lie in lossy files.
    Jpeg,
    /// A reference of another protocol, or of unknown origin.
    Reference,
    /// Broken images that were left out.
    Rejects,
    /// Another arithmetic of the tokenizer.
    Precision,
}

impl DeviationKind {
    /// Every kind.
    pub const ALL: [Self; 7] =
        [Self::Count, Self::Order, Self::Resize, Self::Jpeg, Self::Reference, Self::Rejects, Self::Precision];

    /// Its name, with which it is allowed.
    pub fn name(self) -> &'static str {
        match self {
            Self::Count => "count",
            Self::Order => "order",
            Self::Resize => "resize",
            Self::Jpeg => "jpeg",
            Self::Reference => "reference",
            Self::Rejects => "rejects",
            Self::Precision => "precision",
        }
    }
}

impl fmt::Display for DeviationKind {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(self.name())
    }
}

/// A broken rule: what was found, and what the protocol says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Deviation {
    /// The rule.
    pub kind: DeviationKind,
    /// What is so.
    pub found: String,
    /// What the protocol says.
    pub expected: String,
}

impl fmt::Display for Deviation {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { kind, found, expected } = self;
        write!(formatter, "{kind}: {found}, the protocol says {expected}")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn protocols_are_known_by_name() {
        for protocol in Protocol::ALL {
            assert_eq!(protocol.name().parse::<Protocol>().expect("its own name"), protocol);
            assert_eq!(serde_json::to_string(&protocol).expect("JSON"), format!("{:?}", protocol.name()));
        }
        let error = "fid".parse::<Protocol>().expect_err("no protocol").to_string();
        assert!(error.contains("gfid-adm or rfid"), "{error}");
    }
}

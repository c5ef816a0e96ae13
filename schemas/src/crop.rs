//! Crops by name: tokens depend on the pixels, so the name of a crop is part of every plan and table.

use crate::SchemaError;
use serde::{Deserialize, Serialize};
use std::{fmt, str::FromStr};

/// How an image becomes one or more square views.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub enum Crop {
    /// `adm-center-<size>`: the centre crop of the published generator's data (ADM's `center_crop_arr`).
    AdmCenter {
        /// Side of the view in pixels.
        size: usize,
    },
    /// `adm-center-<size>-flip`: the same and its mirror image, 2 views.
    AdmCenterFlip {
        /// Side of the view in pixels.
        size: usize,
    },
    /// `adm-ten-crop-<resize>-<size>`: ADM's centre crop at `resize`, of which the top left, top right, bottom left, bottom
    /// right and centre windows, then the same five windows of its mirror image, as torchvision's `TenCrop` gives them: 10
    /// views. View 5, the top left of the mirror image, thus shows the top right corner mirrored.
    AdmTenCrop {
        /// Side of the centre crop in pixels.
        resize: usize,
        /// Side of the view in pixels.
        size: usize,
    },
    /// `torchvision-center-<size>`: `Resize(size, bicubic)` and `CenterCrop(size)`, the published evaluation's crop.
    TorchvisionCenter {
        /// Side of the view in pixels.
        size: usize,
    },
}

impl Crop {
    /// Smallest and largest side of a view in pixels.
    pub const SIZES: std::ops::RangeInclusive<usize> = 8..=4096;

    /// Views an image.
    pub fn views(self) -> usize {
        match self {
            Self::AdmCenter { .. } | Self::TorchvisionCenter { .. } => 1,
            Self::AdmCenterFlip { .. } => 2,
            Self::AdmTenCrop { .. } => 10,
        }
    }

    /// Side of a view in pixels.
    pub fn size(self) -> usize {
        match self {
            Self::AdmCenter { size }
            | Self::AdmCenterFlip { size }
            | Self::AdmTenCrop { size, .. }
            | Self::TorchvisionCenter { size } => size,
        }
    }
}

impl fmt::Display for Crop {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::AdmCenter { size } => write!(formatter, "adm-center-{size}"),
            Self::AdmCenterFlip { size } => write!(formatter, "adm-center-{size}-flip"),
            Self::AdmTenCrop { resize, size } => write!(formatter, "adm-ten-crop-{resize}-{size}"),
            Self::TorchvisionCenter { size } => write!(formatter, "torchvision-center-{size}"),
        }
    }
}

impl FromStr for Crop {
    type Err = SchemaError;

    fn from_str(name: &str) -> Result<Self, Self::Err> {
        let unknown = || SchemaError::UnknownName {
            what: "crop",
            found: name.to_owned(),
            expected: format!(
                "adm-center-SIZE, adm-center-SIZE-flip, adm-ten-crop-RESIZE-SIZE or torchvision-center-SIZE, \
                 sizes {} to {} and RESIZE at least SIZE",
                Self::SIZES.start(),
                Self::SIZES.end()
            ),
        };
        let number = |text: &str| {
            let plain = !text.starts_with(['0', '+']);
            text.parse().ok().filter(|size| plain && Self::SIZES.contains(size)).ok_or_else(unknown)
        };
        if let Some(rest) = name.strip_prefix("adm-ten-crop-") {
            let (resize, size) = rest.split_once('-').ok_or_else(unknown)?;
            let (resize, size) = (number(resize)?, number(size)?);
            return if resize >= size { Ok(Self::AdmTenCrop { resize, size }) } else { Err(unknown()) };
        }
        if let Some(rest) = name.strip_prefix("adm-center-") {
            return match rest.strip_suffix("-flip") {
                Some(size) => Ok(Self::AdmCenterFlip { size: number(size)? }),
                None => Ok(Self::AdmCenter { size: number(rest)? }),
            };
        }
        let size = name.strip_prefix("torchvision-center-").ok_or_else(unknown)?;
        Ok(Self::TorchvisionCenter { size: number(size)? })
    }
}

impl TryFrom<String> for Crop {
    type Error = SchemaError;

    fn try_from(name: String) -> Result<Self, Self::Error> {
        name.parse()
    }
}

impl From<Crop> for String {
    fn from(crop: Crop) -> Self {
        crop.to_string()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_crop_reads_back_from_its_name() {
        for (name, views, size) in [
            ("adm-center-256", 1, 256),
            ("adm-center-256-flip", 2, 256),
            ("adm-ten-crop-281-256", 10, 256),
            ("torchvision-center-256", 1, 256),
            ("adm-center-32", 1, 32),
        ] {
            let crop: Crop = name.parse().expect(name);
            assert_eq!((crop.to_string().as_str(), crop.views(), crop.size()), (name, views, size));
        }
    }

    #[test]
    fn other_names_are_refused_with_the_names_there_are() {
        for name in [
            "",
            "center-256",
            "adm-center-",
            "adm-center-0",
            "adm-center-0256",
            "adm-ten-crop-255-256",
            "adm-ten-crop-256",
        ] {
            let error = name.parse::<Crop>().expect_err(name).to_string();
            assert!(error.contains("adm-ten-crop-RESIZE-SIZE"), "{error}");
        }
    }
}

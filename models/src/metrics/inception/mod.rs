//! The Inception network of 2015-12-05, by whose features sets of images are scored (Szegedy and others, "Rethinking the Inception
//! Architecture for Computer Vision", 2016; Heusel and others, "GANs Trained by a Two Time-Scale Update Rule", 2017).
//!
//! It is TensorFlow's network of that day, in the names of its port to PyTorch, and differs from later ones: average poolings do not
//! count their padding, the last block pools by the maximum, and there are 1,008 classes. Images are resized within the network, as
//! TensorFlow 1 did it ([`resize`]).

mod blocks;
mod head;
mod network;
mod resize;
#[cfg(test)]
mod test_network;

pub use head::InceptionHead;

pub(super) use head::CLASSES;

use self::network::InceptionNetwork;
use crate::{Device, ModelError, foundation::FrozenFile, visual_tokenizer::upload, weight_file::sha256};
use schemas::{PixelBatch, SchemaError, ScoredImages};
use std::{fmt, path::Path, str::FromStr};
use tch::{Kind, Tensor};

/// Who asks for the network, in errors.
const TERM: &str = "scoring";
const NETWORK: &str = "the Inception network of 2015-12-05";

/// Numbers that the extractor computes in. Features come as float32 from both.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ExtractorPrecision {
    /// As the ADM evaluator.
    Float32,
    /// As the published evaluation of reconstructions.
    Float64,
}

impl ExtractorPrecision {
    /// Its name in records.
    pub fn name(self) -> &'static str {
        match self {
            Self::Float32 => "float32",
            Self::Float64 => "float64",
        }
    }

    fn kind(self) -> Kind {
        match self {
            Self::Float32 => Kind::Float,
            Self::Float64 => Kind::Double,
        }
    }
}

impl fmt::Display for ExtractorPrecision {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(self.name())
    }
}

impl FromStr for ExtractorPrecision {
    type Err = SchemaError;

    fn from_str(name: &str) -> Result<Self, Self::Err> {
        [Self::Float32, Self::Float64].into_iter().find(|precision| precision.name() == name).ok_or_else(|| {
            SchemaError::UnknownName {
                what: "precision of the extractor",
                found: name.to_owned(),
                expected: "float32 or float64".to_owned(),
            }
        })
    }
}

/// Features of some images, on the device.
#[derive(Debug)]
pub(crate) struct ImageFeatures {
    /// float32 `[B, 2048]`.
    pub(crate) pool: Tensor,
    /// float32 `[B, 2023]`, if they were asked for.
    pub(crate) spatial: Option<Tensor>,
}

/// The network on a device. Owned by one OS thread (`Send`, not `Sync`).
#[derive(Debug)]
pub struct Inception {
    network: InceptionNetwork,
    device: Device,
    precision: ExtractorPrecision,
    sha256: String,
}

impl Inception {
    /// Reads a safetensors file under the names of the port to PyTorch (`Conv2d_1a_3x3.conv.weight`, …), strictly: every tensor that
    /// is missing, left over, misshapen or of another type is named in one error. The classifier (`fc.*`) may be there and is
    /// [`InceptionHead`]'s to read.
    ///
    /// # Errors
    /// When the file is missing, damaged, a pickle (the error has the command that converts it), or holds another network.
    pub fn load(file: &Path, device: Device, precision: ExtractorPrecision) -> Result<Self, ModelError> {
        let _no_grad = tch::no_grad_guard();
        let frozen = FrozenFile { term: TERM, network: NETWORK, path: file };
        let network = frozen.load(
            device.torch(),
            |scope| InceptionNetwork::new(&scope.in_kind(precision.kind())),
            |name| name.starts_with("fc.") || name.ends_with(".num_batches_tracked"),
        )?;
        Ok(Self { network, device, precision, sha256: sha256(file)? })
    }

    /// SHA-256 of the file, lowercase hexadecimal.
    pub fn sha256(&self) -> &str {
        &self.sha256
    }

    /// The device.
    pub fn device(&self) -> Device {
        self.device
    }

    /// What it computes in.
    pub fn precision(&self) -> ExtractorPrecision {
        self.precision
    }

    /// Features of the `filled` rows, of any size: pool features, and the spatial ones if `spatial` asks for them. The one wait is
    /// the copy of the features back.
    ///
    /// # Errors
    /// When libtorch refuses an operation, for want of memory for example.
    pub fn features(&self, images: &PixelBatch, spatial: bool) -> Result<ScoredImages, ModelError> {
        let _no_grad = tch::no_grad_guard();
        self.extract(&upload(images, self.device)?, spatial)?.read(images.filled())
    }

    /// Features on the device, which nothing waits for.
    ///
    /// # Shapes
    /// `pixels`: bytes `[B, 3, H, W]`, channels-last as [`upload`] gives them or not.
    pub(crate) fn extract(&self, pixels: &Tensor, spatial: bool) -> Result<ImageFeatures, ModelError> {
        let _no_grad = tch::no_grad_guard();
        let activations = self.network.forward(pixels, |_, _| ())?;
        let pool = activations.pool.f_to_kind(Kind::Float)?;
        let spatial = spatial.then(|| activations.spatial()).transpose()?;
        Ok(ImageFeatures { pool, spatial })
    }
}

impl ImageFeatures {
    /// The first `filled` rows in main memory. Waits for the device.
    pub(crate) fn read(&self, filled: usize) -> Result<ScoredImages, ModelError> {
        Ok(ScoredImages {
            kept_tokens: None,
            pool: read(&self.pool, filled)?,
            spatial: self.spatial.as_ref().map_or(Ok(Vec::new()), |spatial| read(spatial, filled))?,
            measures: Vec::new(),
        })
    }
}

/// The first `filled` rows of a float32 matrix, row-major.
fn read(features: &Tensor, filled: usize) -> Result<Vec<f32>, ModelError> {
    let rows = features.f_narrow(0, 0, filled as i64)?.f_to_device(tch::Device::Cpu)?;
    Ok(Vec::try_from(rows.f_reshape([-1])?)?)
}

//! Features of a set, a row for each image, checked once for all scores.

use crate::{Device, ModelError};
use schemas::SchemaError;
use tch::{Kind, Tensor};

/// Feature vectors of a set: finite numbers in whole rows.
#[derive(Clone, Copy, Debug)]
pub struct FeatureRows<'a> {
    what: &'static str,
    values: &'a [f32],
    dimensions: usize,
}

impl<'a> FeatureRows<'a> {
    /// Takes `[rows, dimensions]` row-major. `what` names them in errors, such as `features of samples`.
    ///
    /// # Errors
    /// When these are no whole rows, or a feature is no finite number.
    pub fn try_new(what: &'static str, values: &'a [f32], dimensions: usize) -> Result<Self, ModelError> {
        if values.len().checked_rem(dimensions) != Some(0) {
            return Err(wrong(what, values.len(), format!("rows of {dimensions}")));
        }
        match values.iter().position(|value| !value.is_finite()) {
            None => Ok(Self { what, values, dimensions }),
            Some(index) => {
                let found = format!("{} at row {}, column {}", values[index], index / dimensions, index % dimensions);
                Err(wrong(what, found, "finite numbers"))
            }
        }
    }

    /// Number of vectors.
    pub fn rows(&self) -> usize {
        self.values.len() / self.dimensions
    }

    /// Features of a vector.
    pub fn dimensions(&self) -> usize {
        self.dimensions
    }

    /// What they are, for errors.
    pub(super) fn what(&self) -> &'static str {
        self.what
    }

    /// All numbers.
    pub(super) fn values(&self) -> &'a [f32] {
        self.values
    }

    /// One vector.
    pub(super) fn row(&self, place: usize) -> &'a [f32] {
        &self.values[place * self.dimensions..][..self.dimensions]
    }

    /// The vectors at these places, in their order.
    pub(super) fn chosen(&self, places: &[usize]) -> Vec<f32> {
        places.iter().flat_map(|&place| self.row(place)).copied().collect()
    }

    /// Consecutive vectors, at most so many at a time.
    pub(super) fn blocks(&self, rows: usize) -> impl Iterator<Item = &'a [f32]> + use<'a> {
        self.values.chunks(rows * self.dimensions)
    }

    /// Fails where there are fewer than `least`; `reason` says what they are needed for.
    pub(super) fn at_least(&self, least: usize, reason: &str) -> Result<(), ModelError> {
        match self.rows() < least {
            false => Ok(()),
            true => Err(wrong(self.what, format!("{} rows", self.rows()), format!("at least {least}, {reason}"))),
        }
    }

    /// Fails where vectors of the two have different lengths.
    pub(super) fn same_dimensions(&self, samples: &Self) -> Result<(), ModelError> {
        match self.dimensions == samples.dimensions {
            true => Ok(()),
            false => Err(wrong("dimensions of features", samples.dimensions, self.dimensions)),
        }
    }
}

/// Vectors of `dimensions` on a device, in float64: `[n, dimensions]`.
pub(super) fn in_float64(values: &[f32], dimensions: usize, device: Device) -> Result<Tensor, ModelError> {
    let rows = Tensor::f_from_slice(values)?.f_view([-1, dimensions as i64])?;
    Ok(rows.f_to_device(device.torch())?.f_to_kind(Kind::Double)?)
}

/// An error about what was given.
pub(super) fn wrong(what: &'static str, found: impl ToString, expected: impl ToString) -> ModelError {
    ModelError::Data(SchemaError::Shape { what, found: found.to_string(), expected: expected.to_string() })
}

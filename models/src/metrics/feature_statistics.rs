//! Mean and covariance of feature vectors in one pass, in float64.
//!
//! Rows are gathered into blocks; a block is centred by its own mean, and blocks are put together by the parallel update of Chan,
//! Golub and LeVeque ("Updating Formulae and a Pairwise Algorithm for Computing Sample Variances", 1979). Sums of squares would lose
//! the small variances beside the means.

use super::{feature_distribution::FeatureDistribution, feature_rows::wrong};
use crate::{Device, ModelError};
use tch::{Kind, Tensor};

/// Rows of a block: the products are large enough for any library to be at its best, and 2,048 features take 64 MB.
const BLOCK_ROWS: usize = 4096;
/// The scatter is symmetric, and is computed from the diagonal on in this many strips: 9/16 of the whole work.
const STRIPS: usize = 8;

/// Statistics of the rows so far. Those of parts of a set merge into those of the whole, in any order.
#[derive(Debug)]
pub struct FeatureStatistics {
    dimensions: usize,
    device: Device,
    /// Rows that no block has yet, row-major, fewer than [`BLOCK_ROWS`].
    waiting: Vec<f32>,
    summed: Moments,
}

/// Statistics of some rows, in float64 on a device.
#[derive(Debug)]
struct Moments {
    rows: u64,
    /// `[D]`.
    mean: Tensor,
    /// Sums of products of deviations from the mean: a strip of rows each, `[w, D - start]`, columns from the diagonal on.
    scatter: Vec<Tensor>,
}

impl FeatureStatistics {
    /// No rows yet, of `dimensions` features.
    ///
    /// # Errors
    /// When libtorch refuses, for want of memory for example.
    pub fn new(dimensions: usize, device: Device) -> Result<Self, ModelError> {
        let options = (Kind::Double, device.torch());
        let scatter =
            strips(dimensions).map(|(start, width)| Tensor::f_zeros([width, dimensions as i64 - start], options));
        let summed = Moments {
            rows: 0,
            mean: Tensor::f_zeros([dimensions as i64], options)?,
            scatter: scatter.collect::<Result<_, _>>()?,
        };
        Ok(Self { dimensions, device, waiting: Vec::new(), summed })
    }

    /// Rows so far.
    pub fn count(&self) -> u64 {
        self.summed.rows + (self.waiting.len() / self.dimensions.max(1)) as u64
    }

    /// Adds any number of rows, `[rows, dimensions]` row-major.
    ///
    /// # Errors
    /// When these are no whole rows, or libtorch refuses.
    pub fn add(&mut self, features: &[f32]) -> Result<(), ModelError> {
        let whole = features.len().checked_rem(self.dimensions) == Some(0);
        if !whole {
            return Err(wrong("features", features.len(), format!("rows of {}", self.dimensions)));
        }
        let block = BLOCK_ROWS * self.dimensions;
        let mut rest = features;
        while self.waiting.len() + rest.len() >= block {
            let (now, later) = rest.split_at(block - self.waiting.len());
            // A block that lies in the rows as they came is not copied.
            if self.waiting.is_empty() {
                self.add_block(now)?;
            } else {
                self.waiting.extend_from_slice(now);
                self.add_waiting()?;
            }
            rest = later;
        }
        self.waiting.extend_from_slice(rest);
        Ok(())
    }

    /// Adds the rows of `other`.
    ///
    /// # Errors
    /// When they have other dimensions, or libtorch refuses.
    pub fn merge(&mut self, mut other: Self) -> Result<(), ModelError> {
        if other.dimensions != self.dimensions {
            return Err(wrong("dimensions of features", other.dimensions, self.dimensions));
        }
        let _no_grad = tch::no_grad_guard();
        self.add_waiting()?;
        other.add_waiting()?;
        let device = self.device.torch();
        let moved = |tensor: &Tensor| tensor.f_to_device(device);
        let moments = Moments {
            rows: other.summed.rows,
            mean: moved(&other.summed.mean)?,
            scatter: other.summed.scatter.iter().map(moved).collect::<Result<_, _>>()?,
        };
        self.summed.merge(&moments)
    }

    /// Mean and covariance (with N - 1). Waits for the device.
    ///
    /// # Errors
    /// When there are fewer than two rows, a feature is no number, or libtorch refuses.
    pub fn finish(mut self) -> Result<FeatureDistribution, ModelError> {
        let rows = self.count();
        if rows < 2 {
            return Err(wrong("images for statistics of features", rows, "at least 2"));
        }
        let _no_grad = tch::no_grad_guard();
        self.add_waiting()?;
        let size = self.dimensions as i64;
        let whole = Tensor::f_zeros([size, size], (Kind::Double, self.device.torch()))?;
        for ((start, width), strip) in strips(self.dimensions).zip(&self.summed.scatter) {
            whole.f_narrow(0, start, width)?.f_narrow(1, start, size - start)?.f_copy_(strip).map(drop)?;
        }
        let (upper, above) = (whole.f_triu(0)?, whole.f_triu(1)?);
        let covariance = upper.f_add(&above.f_transpose(0, 1)?)?.f_div_scalar((rows - 1) as f64)?;
        let read = |tensor: &Tensor| -> Result<Vec<f64>, ModelError> {
            Ok(Vec::try_from(tensor.f_reshape([-1])?.f_to_device(tch::Device::Cpu)?)?)
        };
        FeatureDistribution::try_new(read(&self.summed.mean)?, read(&covariance)?, Some(rows))
    }

    fn add_waiting(&mut self) -> Result<(), ModelError> {
        let mut waiting = std::mem::take(&mut self.waiting);
        if !waiting.is_empty() {
            self.add_block(&waiting)?;
        }
        waiting.clear();
        self.waiting = waiting;
        Ok(())
    }

    fn add_block(&mut self, features: &[f32]) -> Result<(), ModelError> {
        let _no_grad = tch::no_grad_guard();
        let size = self.dimensions as i64;
        let rows = Tensor::f_from_slice(features)?.f_view([-1, size])?;
        let rows = rows.f_to_device(self.device.torch())?.f_to_kind(Kind::Double)?;
        let mean = rows.f_mean_dim([0_i64].as_slice(), false, None)?;
        let deviations = rows.f_sub(&mean)?;
        let turned = deviations.f_transpose(0, 1)?;
        let scatter = strips(self.dimensions).map(|(start, width)| {
            turned.f_narrow(0, start, width)?.f_matmul(&deviations.f_narrow(1, start, size - start)?)
        });
        let scatter = scatter.collect::<Result<_, _>>()?;
        self.summed.merge(&Moments { rows: rows.size2()?.0.unsigned_abs(), mean, scatter })
    }
}

impl Moments {
    /// Takes `other`'s rows in, on the same device.
    fn merge(&mut self, other: &Self) -> Result<(), ModelError> {
        let rows = self.rows + other.rows;
        if other.rows == 0 {
            return Ok(());
        }
        let fraction = other.rows as f64 / rows as f64;
        let difference = other.mean.f_sub(&self.mean)?;
        let weighted = difference.f_mul_scalar(self.rows as f64 * fraction)?;
        let size = difference.size1()?;
        for ((start, width), (strip, added)) in strips(size as usize).zip(self.scatter.iter_mut().zip(&other.scatter)) {
            let between =
                weighted.f_narrow(0, start, width)?.f_outer(&difference.f_narrow(0, start, size - start)?)?;
            *strip = strip.f_add_(added)?.f_add_(&between)?;
        }
        self.mean = self.mean.f_add(&difference.f_mul_scalar(fraction)?)?;
        self.rows = rows;
        Ok(())
    }
}

/// First row and width of each strip.
fn strips(dimensions: usize) -> impl Iterator<Item = (i64, i64)> {
    let width = dimensions.div_ceil(STRIPS).max(1);
    (0..dimensions).step_by(width).map(move |start| (start as i64, width.min(dimensions - start) as i64))
}

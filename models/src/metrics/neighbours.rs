//! Distances between the features of two sets and nearest neighbours among them, block by block, in float32.

use super::feature_rows::FeatureRows;
use crate::{Device, ModelError, layers::full_float32_product};
use tch::Tensor;

/// Rows of either side whose distances are there at once: 64 MB in float32.
pub(super) const BLOCK_ROWS: i64 = 4096;

/// Some consecutive rows.
#[derive(Clone, Copy, Debug)]
pub(super) struct Block {
    pub(super) start: i64,
    pub(super) len: i64,
}

/// A set's features on a device.
#[derive(Debug)]
pub(super) struct Vectors {
    /// float32 `[N, D]`.
    features: Tensor,
    /// Squared lengths, `[N]`.
    squares: Tensor,
    block_rows: i64,
}

/// The nearest others of each row, nearest first.
#[derive(Debug)]
pub(super) struct Nearest {
    /// Squared distances, float32 `[N, count]`.
    pub(super) distances: Tensor,
    /// Rows, int64 `[N, count]`.
    pub(super) places: Tensor,
}

impl Vectors {
    pub(super) fn new(rows: FeatureRows<'_>, device: Device, block_rows: i64) -> Result<Self, ModelError> {
        let features = Tensor::f_from_slice(rows.values())?.f_view([rows.rows() as i64, rows.dimensions() as i64])?;
        let features = features.f_to_device(device.torch())?;
        let squares = features.f_square()?.f_sum_dim_intlist([1_i64].as_slice(), false, None)?;
        Ok(Self { features, squares, block_rows })
    }

    pub(super) fn blocks(&self) -> impl Iterator<Item = Block> + use<> {
        let rows = self.squares.size().first().copied().unwrap_or(0);
        let most = self.block_rows;
        (0..rows).step_by(most as usize).map(move |start| Block { start, len: most.min(rows - start) })
    }

    /// Squared distances between rows of the two, at least 0: `[rows, columns]`.
    pub(super) fn distances(&self, rows: Block, other: &Self, columns: Block) -> Result<Tensor, ModelError> {
        let part = |of: &Tensor, block: Block| of.f_narrow(0, block.start, block.len);
        let (left, right) = (part(&self.features, rows)?, part(&other.features, columns)?.f_transpose(0, 1)?);
        let mut products = full_float32_product(&left, &right)?;
        let lengths =
            part(&self.squares, rows)?.f_unsqueeze(1)?.f_add(&part(&other.squares, columns)?.f_unsqueeze(0)?)?;
        Ok(lengths.f_sub(&products.f_mul_scalar_(2.0)?)?.f_clamp_min_(0.0)?)
    }

    /// The squared distance of each row to the nearest of number `nearest`, itself included, `[N]`. Two blocks meet once: the distances
    /// of one to the other are those of the other to the one.
    pub(super) fn radii(&self, nearest: i64) -> Result<Tensor, ModelError> {
        let blocks: Vec<Block> = self.blocks().collect();
        // The least distances so far, [rows, up to `nearest`].
        let mut least: Vec<Option<Tensor>> = blocks.iter().map(|_| None).collect();
        let mut keep = |index: usize, distances: &Tensor| -> Result<(), ModelError> {
            let smallest = |distances: &Tensor| -> Result<Tensor, ModelError> {
                let (_, columns) = distances.size2()?;
                Ok(distances.f_topk(nearest.min(columns), 1, false, true)?.0)
            };
            let new = smallest(distances)?;
            least[index] = Some(match least[index].take() {
                None => new,
                Some(known) => smallest(&Tensor::f_cat(&[known, new], 1)?)?,
            });
            Ok(())
        };
        for (row, &rows) in blocks.iter().enumerate() {
            for (column, &columns) in blocks.iter().enumerate().skip(row) {
                let distances = self.distances(rows, self, columns)?;
                keep(row, &distances)?;
                if column != row {
                    keep(column, &distances.f_transpose(0, 1)?)?;
                }
            }
        }
        let radii =
            least.iter().flatten().map(|least| least.f_select(1, nearest - 1)).collect::<Result<Vec<_>, _>>()?;
        Ok(Tensor::f_cat(&radii, 0)?)
    }

    /// For each of these rows the `count` nearest of `among`, of which there must be as many.
    pub(super) fn nearest(&self, among: &Self, count: i64) -> Result<Nearest, ModelError> {
        self.find_nearest(among, count, false)
    }

    /// For each row the `count` nearest others of the same set, of which there must be as many. What is equal to it is another one.
    pub(super) fn nearest_others(&self, count: i64) -> Result<Nearest, ModelError> {
        self.find_nearest(self, count, true)
    }

    fn find_nearest(&self, among: &Self, count: i64, others: bool) -> Result<Nearest, ModelError> {
        let (mut distances, mut places) = (Vec::new(), Vec::new());
        for rows in self.blocks() {
            let mut least: Option<(Tensor, Tensor)> = None;
            for columns in among.blocks() {
                let mut between = self.distances(rows, among, columns)?;
                // Blocks of one set are the same on both sides, so that a row meets itself on the diagonal alone.
                if others && rows.start == columns.start {
                    between = between.f_fill_diagonal_(f64::INFINITY, false)?;
                }
                let (new, at) = between.f_topk(count.min(columns.len), 1, false, true)?;
                let at = at.f_add_scalar(columns.start)?;
                least = Some(match least.take() {
                    None => (new, at),
                    Some((known, known_at)) => {
                        let (all, all_at) = (Tensor::f_cat(&[known, new], 1)?, Tensor::f_cat(&[known_at, at], 1)?);
                        let (_, columns) = all.size2()?;
                        let (least, order) = all.f_topk(count.min(columns), 1, false, true)?;
                        (least, all_at.f_gather(1, &order, false)?)
                    }
                });
            }
            if let Some((least, at)) = least {
                distances.push(least);
                places.push(at);
            }
        }
        Ok(Nearest { distances: Tensor::f_cat(&distances, 0)?, places: Tensor::f_cat(&places, 0)? })
    }
}

//! A unit in memory: its rows, its pictures and its row counts.

use bytes::Bytes;
use schemas::{ImageRow, RowCounts, TokenRows};

/// A unit's part of both tables, in plan order, its pictures and its row counts.
#[derive(Debug)]
pub(crate) struct UnitRows {
    pub(crate) tokens: TokenRows,
    pub(crate) images: Vec<ImageRow>,
    pub(crate) pictures: Vec<PictureFile>,
    pub(crate) row_counts: RowCounts,
}

/// A file of pictures in memory.
#[derive(Debug)]
pub(crate) struct PictureFile {
    /// Path below the output.
    pub(crate) path: String,
    pub(crate) bytes: Bytes,
    /// Pictures in it.
    pub(crate) rows: u64,
}

/// The row counts that follow from the rows of an images table whose crop has `views` views.
pub(crate) fn row_counts_of(images: &[ImageRow], views: usize) -> RowCounts {
    let mut row_counts = RowCounts { listed: images.len() as u64, ..RowCounts::default() };
    for image in images {
        match image.rejected {
            Some(reason) => *row_counts.rejected.entry(reason).or_default() += 1,
            None => {
                row_counts.written += 1;
                row_counts.token_rows += views as u64;
            }
        }
        // An image that was not read has no digest.
        if image.sha256.is_some() {
            row_counts.bytes_read += u64::try_from(image.bytes).unwrap_or(0);
        }
    }
    row_counts
}

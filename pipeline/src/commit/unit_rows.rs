//! A unit in memory: its rows, its pictures and its books.

use bytes::Bytes;
use schemas::{Books, ImageRow, TokenRows};

/// A unit's part of both tables, in plan order, its pictures and its books.
#[derive(Debug)]
pub(crate) struct UnitRows {
    pub(crate) tokens: TokenRows,
    pub(crate) images: Vec<ImageRow>,
    pub(crate) pictures: Vec<PictureFile>,
    pub(crate) books: Books,
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

/// The books that follow from the rows of an images table whose crop has `views` views.
pub(crate) fn books_of(images: &[ImageRow], views: usize) -> Books {
    let mut books = Books { listed: images.len() as u64, ..Books::default() };
    for image in images {
        match image.rejected {
            Some(reason) => *books.rejected.entry(reason).or_default() += 1,
            None => {
                books.written += 1;
                books.token_rows += views as u64;
            }
        }
        // An image that was not read has no digest.
        if image.sha256.is_some() {
            books.bytes_read += u64::try_from(image.bytes).unwrap_or(0);
        }
    }
    books
}

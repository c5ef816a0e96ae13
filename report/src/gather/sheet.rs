//! A sheet of pictures in one PNG file, as `restok reconstruct` and `restok generate --grid` and `--reveal` write it.

use super::pictures;
use crate::{
    Album,
    album::{Added, LeftOut, Picture},
};
use anyhow::Result;
use std::path::Path;

/// Longest side of a sheet on the page, in pixels.
const LONGEST: u32 = 1_600;

/// A sheet.
#[derive(Debug)]
pub(crate) struct SheetFile {
    /// The picture; `None` where it is left out.
    pub(crate) picture: Option<Picture>,
    /// Why, if it is.
    pub(crate) left_out: LeftOut,
}

impl SheetFile {
    /// Takes a sheet in that was read from `place`.
    ///
    /// # Errors
    /// When it is no picture.
    pub(super) fn of(png: &[u8], place: &str, album: &mut Album) -> Result<Self> {
        Ok(Self::added(album.add(png, LONGEST, "contact sheet".to_owned(), place)?))
    }

    /// Reads a file of this machine.
    ///
    /// # Errors
    /// When it cannot be read, or is no picture.
    pub(super) fn read(file: &Path, album: &mut Album) -> Result<Self> {
        let name = file.file_name().unwrap_or_default().to_string_lossy().into_owned();
        Ok(Self::added(pictures::file(file, LONGEST, name, album)?))
    }

    fn added(added: Added) -> Self {
        let mut left_out = LeftOut::default();
        Self { picture: left_out.taken(added), left_out }
    }
}

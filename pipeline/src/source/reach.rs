//! Whether what an address names can be reached, without reading it.

use super::{
    open_address,
    pattern::{expand_braces, has_wildcard},
};
use crate::{Limits, PipelineError};

/// A folder is listed so far: a page of most stores.
const MOST_OBJECTS: usize = 1_000;

/// What answers at an address.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Reached {
    /// A folder with so many objects, at most those of a page.
    Folder {
        /// Objects below it.
        objects: usize,
        /// Whether there may be more.
        is_cut: bool,
    },
    /// A file; of several that the address names, the first.
    File {
        /// Its address, without credentials.
        uri: String,
        /// Its size in bytes, if it is there.
        bytes: Option<u64>,
    },
}

/// Looks at what an address names, by the rules by which a source is listed: of a folder or a wildcard the first objects, of files the first.
///
/// # Errors
/// When the address is none, or the store fails, after all retries.
pub async fn reach(address: &str, limits: &Limits) -> Result<Reached, PipelineError> {
    let (storage, pattern) = open_address(address, limits)?;
    let wrong = |problem| PipelineError::Source { uri: storage.uri(&pattern), problem };
    let names = expand_braces(&pattern).map_err(wrong)?;
    if let Some(name) = names.first().filter(|name| !name.is_empty() && !has_wildcard(name)) {
        let found = storage.head_if_exists(name).await?;
        return Ok(Reached::File { uri: storage.uri(name), bytes: found.map(|file| file.size) });
    }
    let objects = storage.count_up_to(MOST_OBJECTS).await?;
    Ok(Reached::Folder { objects, is_cut: objects == MOST_OBJECTS })
}

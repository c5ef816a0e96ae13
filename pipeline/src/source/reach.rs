//! Whether what an address names can be reached, without reading it.

use super::{
    open_address,
    pattern::{Wildcard, expand_braces, has_wildcard},
};
use crate::{Limits, PipelineError, storage::Listed};
use futures::TryStreamExt;

/// A folder is listed so far: a page of most stores.
const MOST_OBJECTS: usize = 1_000;

/// What answers at an address.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Reached {
    /// A folder, or what a wildcard matches.
    Folder {
        /// Readable objects among the first that the store lists, of those that the wildcard matches, if there is one.
        objects: usize,
        /// How many were listed, if there may be more.
        cut_at: Option<usize>,
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
    let is_folder = pattern.is_empty() || names.iter().any(|name| has_wildcard(name));
    if let Some(name) = names.first().filter(|_| !is_folder) {
        let found = storage.head_if_exists(name).await?;
        return Ok(Reached::File { uri: storage.uri(name), bytes: found.map(|file| file.size) });
    }
    let wildcards = names.iter().filter(|name| !name.is_empty()).map(|name| Wildcard::new(name));
    let wildcards = wildcards.collect::<Result<Vec<_>, _>>().map_err(wrong)?;
    let (mut objects, mut listed) = (0, 0);
    let mut entries = storage.list_stream("");
    while listed < MOST_OBJECTS
        && let Some(entry) = entries.try_next().await?
    {
        listed += 1;
        if let Listed::Object(object) = entry
            && (wildcards.is_empty() || wildcards.iter().any(|wildcard| wildcard.matches(&object.path)))
        {
            objects += 1;
        }
    }
    Ok(Reached::Folder { objects, cut_at: (listed == MOST_OBJECTS).then_some(listed) })
}

//! Whether every image id of a listing or an output is there once, in eight bytes an image.

use crate::PipelineError;
use std::{
    collections::{HashMap, HashSet, hash_map::DefaultHasher},
    hash::{BuildHasher, BuildHasherDefault, Hash},
};

/// First pass: the hashes of all ids. Two equal hashes only mean that a second pass must look at the ids themselves.
#[derive(Debug, Default)]
pub(crate) struct IdHashes {
    hashes: Vec<u64>,
}

impl IdHashes {
    /// Takes some ids.
    pub(crate) fn add<'a>(&mut self, image_ids: impl IntoIterator<Item = &'a str>) {
        self.hashes.extend(image_ids.into_iter().map(hash_of));
    }

    /// The hashes that appeared more than once; almost always none.
    pub(crate) fn into_repeated<P: Clone>(mut self) -> Repeated<P> {
        self.hashes.sort_unstable();
        let hashes = self.hashes.windows(2).filter(|pair| pair[0] == pair[1]).map(|pair| pair[0]).collect();
        Repeated { hashes, places: HashMap::new() }
    }
}

/// Second pass: only ids whose hash repeated, each with its place: a unit, a path.
#[derive(Debug)]
pub(crate) struct Repeated<P> {
    hashes: HashSet<u64>,
    places: HashMap<String, P>,
}

impl<P: Clone> Repeated<P> {
    /// Whether there is nothing to look at.
    pub(crate) fn is_empty(&self) -> bool {
        self.hashes.is_empty()
    }

    /// Takes the ids of a place again; gives those that were there before, with the place that had them.
    pub(crate) fn add<'a>(&mut self, place: &P, image_ids: impl IntoIterator<Item = &'a str>) -> Vec<(String, P)> {
        let mut found = Vec::new();
        for image_id in image_ids.into_iter().filter(|image_id| self.hashes.contains(&hash_of(image_id))) {
            match self.places.get(image_id) {
                Some(first) => found.push((image_id.to_owned(), first.clone())),
                None => {
                    self.places.insert(image_id.to_owned(), place.clone());
                }
            }
        }
        found
    }
}

/// Hash of a value, the same throughout the process.
pub(crate) fn hash_of<T: Hash + ?Sized>(value: &T) -> u64 {
    BuildHasherDefault::<DefaultHasher>::default().hash_one(value)
}

/// The error for an id that two units, or one unit twice, hold.
pub(crate) fn duplicate_id(uri: &str, image_id: &str, first: u32, second: u32) -> PipelineError {
    let place =
        if first == second { format!("twice in unit {first}") } else { format!("in units {first} and {second}") };
    PipelineError::Source {
        uri: uri.to_owned(),
        problem: format!(
            "image id {image_id:?} appears {place}; ids must be unique: `image_id` position tells any two images apart, \
             and `image_id` path those whose paths differ"
        ),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn exactly_the_ids_that_repeat_are_found(units in prop::collection::vec(prop::collection::vec(0_u8..40, 0..8), 0..6)) {
            let units: Vec<Vec<String>> =
                units.into_iter().map(|ids| ids.into_iter().map(|id| id.to_string()).collect()).collect();
            let mut hashes = IdHashes::default();
            for ids in &units {
                hashes.add(ids.iter().map(String::as_str));
            }
            let mut repeated = hashes.into_repeated();
            let (mut found, mut expected, mut seen) = (Vec::new(), Vec::new(), HashMap::new());
            for (unit, ids) in units.iter().enumerate() {
                found.extend(repeated.add(&(unit as u32), ids.iter().map(String::as_str)));
                for id in ids {
                    let first = *seen.entry(id.clone()).or_insert(unit as u32);
                    expected.push((id.clone(), first));
                }
            }
            // Every occurrence but the first of its id.
            let mut firsts = HashSet::new();
            expected.retain(|(id, _)| !firsts.insert(id.clone()));
            prop_assert_eq!(found, expected);
        }
    }
}

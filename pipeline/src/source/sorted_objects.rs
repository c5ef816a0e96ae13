//! Objects in the order of their paths, however they come, in little memory.

use crate::storage::StoredObject;
use schemas::PackedList;
use std::{cmp::Reverse, collections::BinaryHeap, mem};

/// Objects that are sorted in one go.
const SORTED_AT_ONCE: usize = 1 << 16;

/// Takes objects in any order.
///
/// Local disks and most stores list in order, which is one run; what comes in an order of its own becomes many, which are merged.
#[derive(Debug, Default)]
pub(super) struct SortedObjects {
    waiting: Vec<StoredObject>,
    /// Each sorted.
    runs: Vec<PackedList<StoredObject>>,
    /// The last object of the last run.
    last: Option<StoredObject>,
}

impl SortedObjects {
    pub(super) fn push(&mut self, object: StoredObject) {
        self.waiting.push(object);
        if self.waiting.len() == SORTED_AT_ONCE {
            self.pack();
        }
    }

    fn pack(&mut self) {
        let mut objects = mem::take(&mut self.waiting);
        objects.sort_unstable();
        objects.dedup();
        let run = match self.runs.last_mut() {
            Some(run) if self.last.as_ref() < objects.first() => run,
            _ => self.runs.push_mut(PackedList::default()),
        };
        for object in &objects {
            run.push(object);
        }
        self.last = objects.pop();
        objects.clear();
        self.waiting = objects;
    }

    /// All of them, sorted, each once.
    pub(super) fn finish(mut self) -> PackedList<StoredObject> {
        if !self.waiting.is_empty() {
            self.pack();
        }
        if self.runs.len() == 1 {
            return self.runs.swap_remove(0);
        }
        let mut runs: Vec<_> = self.runs.into_iter().map(IntoIterator::into_iter).collect();
        let mut nexts: BinaryHeap<_> =
            runs.iter_mut().enumerate().filter_map(|(run, objects)| Some(Reverse((objects.next()?, run)))).collect();
        let (mut sorted, mut last) = (PackedList::default(), None);
        while let Some(Reverse((object, run))) = nexts.pop() {
            nexts.extend(runs[run].next().map(|next| Reverse((next, run))));
            if last.as_ref() != Some(&object) {
                sorted.push(&object);
                last = Some(object);
            }
        }
        sorted
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    #[test]
    fn objects_come_out_sorted_and_each_once() {
        // Several runs, in order within and without, with one object in two of them.
        let number_of = |place: usize| (place * 7_919) % 150_001;
        let in_order: Vec<_> = (0..150_000).collect();
        let mixed: Vec<_> = (0..150_001).map(number_of).chain([5, 5, 149_999]).collect();
        for numbers in [in_order, mixed] {
            let object = |number: &usize| StoredObject { path: number.to_string(), size: *number as u64, etag: None };
            let mut sorted = SortedObjects::default();
            numbers.iter().for_each(|number| sorted.push(object(number)));
            let expected: BTreeSet<_> = numbers.iter().map(object).collect();
            assert!(sorted.finish().iter().eq(expected), "{} objects", numbers.len());
        }
        assert!(SortedObjects::default().finish().is_empty());
    }
}

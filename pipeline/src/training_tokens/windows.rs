//! The order of training tokens: files by a permutation of the epoch, then windows of files whose images are shuffled all together.
//!
//! ```text
//!  epoch 0:  files 5 | 0 4 | 1 3 7 2 | 6 …          one, two, four: the first batch waits for one file
//!  epoch 1:  files 2 7 4 0 5 1 | 6 3 …              as many as fit; all of them, where all fit
//! ```
//! All of it follows from the manifests, so a position is found again without reading a row.

use crate::DataPosition;
use schemas::RandomStream;
use std::{collections::VecDeque, ops::Range};

/// How files become windows.
#[derive(Clone, Debug)]
pub(super) struct Windows {
    pub(super) seed: u64,
    /// Images of each file, and the bytes that it takes in memory.
    pub(super) files: Vec<(u64, u64)>,
    /// Most bytes of a window; `None` where all files stay in memory.
    pub(super) window_bytes: Option<u64>,
}

/// Files whose images are shuffled together.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Window {
    /// Where it begins: nothing is taken.
    pub(super) start: DataPosition,
    /// Its files, by their places in the list, in the order of the epoch.
    pub(super) files: Vec<usize>,
    pub(super) images: u64,
    /// Where the window after it begins.
    pub(super) next: DataPosition,
}

impl Windows {
    /// How `memory_bytes` divide these files: all of them stay if they fit; if not, half is for the window in use and half for
    /// the next one.
    pub(super) fn new(seed: u64, files: Vec<(u64, u64)>, memory_bytes: u64) -> Self {
        let all: u64 = files.iter().map(|(_, bytes)| bytes).sum();
        Self { seed, files, window_bytes: (all > memory_bytes).then_some(memory_bytes / 2) }
    }

    /// Everything from `from` on, without end; the first window is the one that `from` lies in. `None` where there is no such place.
    pub(super) fn from(self, from: DataPosition) -> Option<impl Iterator<Item = Window> + Send + use<>> {
        let mut windows: VecDeque<_> = self.epoch(from.epoch).into();
        let here = windows.iter().position(|window| window.start == DataPosition { taken: 0, ..from })?;
        windows.drain(..here);
        if from.taken >= windows.front()?.images {
            return None;
        }
        let mut epoch = from.epoch;
        Some(std::iter::from_fn(move || {
            if windows.is_empty() {
                epoch += 1;
                windows = self.epoch(epoch).into();
            }
            windows.pop_front()
        }))
    }

    /// The windows of an epoch.
    fn epoch(&self, epoch: u64) -> Vec<Window> {
        let mut order: Vec<usize> = (0..self.files.len()).collect();
        RandomStream::new(self.seed, "order of token files", epoch).shuffle(&mut order);
        let mut most_files = if epoch == 0 { 1 } else { usize::MAX };
        let (mut windows, mut place, mut position) = (Vec::new(), 0, DataPosition { epoch, ..DataPosition::default() });
        while place < order.len() {
            let range = self.window(&order, place, most_files);
            let files = order[range.clone()].to_vec();
            let images = files.iter().map(|&file| self.files[file].0).sum();
            let window_start = position.window_start + images;
            let next = if range.end == order.len() {
                position.next_epoch()
            } else {
                DataPosition { input: range.end as u64, window_start, ..position }
            };
            windows.push(Window { start: position, files, images, next });
            (place, position, most_files) = (range.end, next, most_files.saturating_mul(2));
        }
        windows
    }

    /// At least one file, and as many as there may be.
    fn window(&self, order: &[usize], start: usize, most_files: usize) -> Range<usize> {
        let most_bytes = self.window_bytes.unwrap_or(u64::MAX);
        let (mut end, mut bytes) = (start, 0_u64);
        while end < order.len() && end - start < most_files {
            bytes = bytes.saturating_add(self.files[order[end]].1);
            if bytes > most_bytes && end > start {
                break;
            }
            end += 1;
        }
        start..end
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn windows(memory_bytes: u64) -> Windows {
        Windows::new(7, (0..20).map(|file| (10 + file, 100 + file)).collect(), memory_bytes)
    }

    fn lengths(windows: &[Window]) -> Vec<usize> {
        windows.iter().map(|window| window.files.len()).collect()
    }

    #[test]
    fn windows_grow_in_the_first_epoch_and_hold_what_fits_in_the_others() {
        let all: u64 = windows(0).files.iter().map(|file| file.1).sum();
        assert_eq!(lengths(&windows(all).epoch(0)), [1, 2, 4, 8, 5]);
        assert_eq!(lengths(&windows(all).epoch(1)), [20]);
        // One byte less, and half of the memory is for the window that is read meanwhile.
        assert!(lengths(&windows(all - 1).epoch(1)).len() == 3);
        let first = lengths(&windows(1000).epoch(0));
        assert!(first.starts_with(&[1, 2, 4, 4]), "{first:?}");
        // A file that is larger than everything allowed is a window of its own.
        assert_eq!(lengths(&windows(1).epoch(3)), [1; 20]);
    }

    #[test]
    fn windows_cover_every_file_once_and_each_begins_where_the_one_before_ends() {
        for memory_bytes in [1, 500, 1000, 100_000] {
            for epoch in [0, 1, 5] {
                let windows = windows(memory_bytes);
                let parts = windows.epoch(epoch);
                let mut files: Vec<_> = parts.iter().flat_map(|window| window.files.clone()).collect();
                files.sort_unstable();
                assert_eq!(files, (0..20).collect::<Vec<_>>());
                assert!(parts.windows(2).all(|pair| pair[0].next == pair[1].start));
                assert_eq!(parts.last().map(|last| last.next.epoch), Some(epoch + 1));
                if let Some(most) = windows.window_bytes {
                    let bytes = |window: &Window| window.files.iter().map(|&file| windows.files[file].1).sum::<u64>();
                    assert!(parts.iter().all(|window| window.files.len() == 1 || bytes(window) <= most));
                }
            }
        }
    }

    #[test]
    fn only_places_that_there_are_can_be_gone_on_from() {
        let parts: Vec<_> = windows(1000).from(DataPosition::default()).expect("the beginning").take(30).collect();
        for (number, window) in parts.iter().enumerate() {
            let from = DataPosition { taken: window.images - 1, ..window.start };
            let again: Vec<_> = windows(1000).from(from).expect("a place").take(30 - number).collect();
            assert_eq!(again, parts[number..]);
            assert!(windows(1000).from(DataPosition { taken: window.images, ..window.start }).is_none());
            assert!(windows(1000).from(DataPosition { row: 1, ..window.start }).is_none());
            assert!(windows(1000).from(DataPosition { window_start: 1, ..window.start }).is_none());
        }
        assert!(windows(1000).from(DataPosition { input: 20, ..DataPosition::default() }).is_none());
    }
}

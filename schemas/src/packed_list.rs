//! A long list in little memory: JSON lines, compressed a piece at a time.

use serde::{Serialize, de::DeserializeOwned};
use std::{fmt, iter, marker::PhantomData};

/// Bytes of lines that are compressed together. Larger frames are hardly smaller by the record, and whoever wants one record unpacks
/// a whole frame.
const FRAME_BYTES: usize = 256 << 10;

/// Higher levels take several times as long for a few per cent.
const ZSTD_LEVEL: i32 = 3;

/// A list that is written once, from its beginning to its end, and read in order.
///
/// A name, a size and a version tag take a fraction of what they take as strings, so that sets of a hundred million objects fit the
/// memory of one machine.
#[derive(Clone)]
pub struct PackedList<T> {
    /// Lines, each frame compressed for itself. One behind the other they are a zstd file.
    frames: Vec<Box<[u8]>>,
    /// Lines that are not compressed yet.
    tail: Vec<u8>,
    length: usize,
    records: PhantomData<fn() -> T>,
}

impl<T> Default for PackedList<T> {
    fn default() -> Self {
        Self { frames: Vec::new(), tail: Vec::new(), length: 0, records: PhantomData }
    }
}

impl<T> PackedList<T> {
    /// Number of records.
    pub fn len(&self) -> usize {
        self.length
    }

    /// Whether there is no record.
    pub fn is_empty(&self) -> bool {
        self.length == 0
    }

    /// Number of frames, the one that is being filled included.
    pub(crate) fn frames(&self) -> usize {
        self.frames.len() + usize::from(!self.tail.is_empty())
    }

    /// Makes a frame of the lines that are not compressed yet.
    fn pack_tail(&mut self) {
        if !self.tail.is_empty() {
            self.frames.push(compress(&self.tail));
            self.tail.clear();
        }
    }

    /// All lines as one zstd file.
    pub(crate) fn append_compressed(&self, file: &mut Vec<u8>) {
        self.frames.iter().for_each(|frame| file.extend_from_slice(frame));
        if !self.tail.is_empty() {
            file.extend_from_slice(&compress(&self.tail));
        }
    }
}

impl<T: Serialize> PackedList<T> {
    /// Adds a record; gives its line, with the newline.
    ///
    /// # Panics
    /// When the record is none that JSON can hold, as a map whose keys are not text.
    pub fn push(&mut self, record: &T) -> &[u8] {
        if self.tail.len() >= FRAME_BYTES {
            self.pack_tail();
        }
        let start = self.tail.len();
        serde_json::to_writer(&mut self.tail, record).expect("records are text and numbers");
        self.tail.push(b'\n');
        self.length += 1;
        &self.tail[start..]
    }
}

impl<T: DeserializeOwned> PackedList<T> {
    /// The records, in order.
    pub fn iter(&self) -> impl Iterator<Item = T> {
        self.iter_from(0)
    }

    /// The records from the first of a frame on.
    pub(crate) fn iter_from(&self, frame: usize) -> impl Iterator<Item = T> {
        let frames = self.frames.iter().skip(frame).map(|frame| decompress(frame));
        frames.chain(iter::once_with(|| self.tail.clone())).flat_map(records)
    }
}

impl<T: Serialize + DeserializeOwned> PackedList<T> {
    /// Keeps the records that `keep` is true of. Frames of which all are kept stay as they are.
    #[must_use]
    pub fn retain(self, mut keep: impl FnMut(&T) -> bool) -> Self {
        let mut kept = Self::default();
        let frames = self.frames.into_iter().map(|frame| (decompress(&frame), Some(frame)));
        for (lines, frame) in frames.chain(iter::once((self.tail, None))) {
            let all: Vec<T> = records(lines).collect();
            let are_kept: Vec<bool> = all.iter().map(&mut keep).collect();
            match frame {
                Some(frame) if !are_kept.contains(&false) => {
                    kept.pack_tail();
                    kept.frames.push(frame);
                    kept.length += all.len();
                }
                _ => all.iter().zip(are_kept).filter(|(_, is_kept)| *is_kept).for_each(|(record, _)| {
                    kept.push(record);
                }),
            }
        }
        kept
    }
}

impl<T: DeserializeOwned + 'static> IntoIterator for PackedList<T> {
    type Item = T;
    type IntoIter = Box<dyn Iterator<Item = T> + Send>;

    /// Lets go of each frame when its records have been given.
    fn into_iter(self) -> Self::IntoIter {
        let Self { frames, tail, .. } = self;
        Box::new(frames.into_iter().map(|frame| decompress(&frame)).chain(iter::once(tail)).flat_map(records))
    }
}

impl<T: Serialize> Extend<T> for PackedList<T> {
    fn extend<I: IntoIterator<Item = T>>(&mut self, records: I) {
        for record in records {
            self.push(&record);
        }
    }
}

impl<T: Serialize> FromIterator<T> for PackedList<T> {
    fn from_iter<I: IntoIterator<Item = T>>(records: I) -> Self {
        let mut list = Self::default();
        list.extend(records);
        list
    }
}

/// Lists of equal records are equal, however their frames are cut.
impl<T: DeserializeOwned + PartialEq> PartialEq for PackedList<T> {
    fn eq(&self, other: &Self) -> bool {
        let same_lines = self.frames == other.frames && self.tail == other.tail;
        self.length == other.length && (same_lines || self.iter().eq(other.iter()))
    }
}

impl<T: DeserializeOwned + Eq> Eq for PackedList<T> {}

impl<T: DeserializeOwned + fmt::Debug> fmt::Debug for PackedList<T> {
    /// The first records: a log is no place for a million of them.
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        const SHOWN: usize = 10;
        let mut list = formatter.debug_list();
        list.entries(self.iter().take(SHOWN));
        if self.length > SHOWN {
            list.entry(&format_args!("{} more", self.length - SHOWN));
        }
        list.finish()
    }
}

pub(crate) fn compress(lines: &[u8]) -> Box<[u8]> {
    zstd::bulk::compress(lines, ZSTD_LEVEL).expect("memory is all that compressing needs").into_boxed_slice()
}

fn decompress(frame: &[u8]) -> Vec<u8> {
    zstd::decode_all(frame).expect("frames are as `compress` made them")
}

fn records<T: DeserializeOwned>(lines: Vec<u8>) -> impl Iterator<Item = T> {
    let mut start = 0;
    iter::from_fn(move || {
        // No JSON line holds a newline: it is escaped in text.
        let length = lines[start..].iter().position(|&byte| byte == b'\n')?;
        let line = &lines[start..start + length];
        start += length + 1;
        Some(serde_json::from_slice(line).expect("lines are as `push` wrote them"))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_packed_comes_back_in_order_from_any_frame_on() {
        // Some frames, and a tail.
        let numbers = 0_u64..200_000;
        let list: PackedList<(u64, String)> =
            numbers.clone().map(|number| (number, format!("line\n{number}"))).collect();
        assert!(list.frames() > 10, "{}", list.frames());
        assert_eq!(list.len(), 200_000);
        assert!(list.iter().map(|(number, _)| number).eq(numbers.clone()));
        assert!(list.clone().into_iter().map(|(number, _)| number).eq(numbers));
        let (first, text) = list.iter_from(3).next().expect("there are more");
        assert!(first > 0 && text == format!("line\n{first}"));
        assert_eq!(list.iter_from(3).count() as u64, 200_000 - first);
        let again: PackedList<(u64, String)> = list.iter().collect();
        assert_eq!(again, list);
        assert!(again != list.iter().skip(1).collect());
        let mut file = Vec::new();
        list.append_compressed(&mut file);
        let lines = zstd::decode_all(&file[..]).expect("one file of many frames");
        assert_eq!(records::<(u64, String)>(lines).count(), 200_000);
        assert!(format!("{list:?}").ends_with("199990 more]"));
    }

    #[test]
    fn what_is_kept_of_a_list_stays_in_order_and_whole_frames_as_they_are() {
        let list: PackedList<u64> = (0..200_000).collect();
        assert_eq!(list.clone().retain(|_| true), list);
        assert!(list.clone().retain(|_| false).is_empty());
        // The first number of all, some in the middle, and the tail: frames before, between and behind are whole.
        let gone = |number: &u64| *number == 0 || (90_000..90_100).contains(number) || *number >= 199_000;
        let kept = list.clone().retain(|number| !gone(number));
        assert!(kept.iter().eq((0..200_000).filter(|number| !gone(number))));
        assert_eq!(kept.len(), 200_000 - 1_101);
        let moved = list.frames.iter().filter(|frame| kept.frames.contains(frame)).count();
        // Less the first, the one in the middle, and what lies in the tail.
        assert!(moved >= 2 && moved + 2 >= list.frames.len(), "{moved} of {}", list.frames.len());
    }

    #[test]
    fn an_empty_list_has_nothing() {
        let list = PackedList::<u8>::default();
        assert!(list.is_empty() && list.iter().next().is_none() && list.frames() == 0);
    }
}

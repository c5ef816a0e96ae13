//! Event files, as TensorBoard reads them: scalars and images by step.
//!
//! A file is a row of records, each an `Event` in protocol buffers between its length and checksums (TFRecord: tensorflow's
//! core/lib/io/record_writer.h; the messages: tensorboard's compat/proto/event.proto and summary.proto). The published messages
//! are many; the five that are written here need a dozen fields.
//!
//! A run that is resumed starts a new file. Its first event says from which step on it counts, and TensorBoard drops what older
//! files of the folder say of that step and later ones: steps that were made, lost with the process and made again show once.
//! (Its quick loader passes over that event and drops the old values of a name when the first new one comes: the same in the end.)

use anyhow::{Context, Result};
use std::{
    fs::{self, File},
    io::Write,
    path::{Path, PathBuf},
    time::{SystemTime, UNIX_EPOCH},
};

/// Beginning of every event file's name; the time in seconds follows, by which TensorBoard sorts them.
const NAME_START: &str = "events.out.tfevents.";
/// What the first record of a file says of its format.
const FILE_VERSION: &[u8] = b"brain.Event:2";
/// `SessionLog.SessionStatus.START`.
const SESSION_START: u64 = 1;
/// `Summary.Image.colorspace`: channels, red, green and blue.
const RGB: u64 = 3;
/// Added to a checksum after its rotation, so that a record that holds checksums does not look like one.
const CHECKSUM_MASK: u32 = 0xa282_ead8;

/// An event file of one process. Records gather in memory until [`Self::flush`] writes them at once, so that a process that is
/// killed leaves whole records.
#[derive(Debug)]
pub(crate) struct EventFile {
    path: PathBuf,
    file: File,
    pending: Vec<u8>,
}

impl EventFile {
    /// Starts a new file in `folder`, which is made if need be, for a run that has made `from_step` steps. What older files
    /// there say of later steps is void; of a run that starts at 0, all of it.
    ///
    /// # Errors
    /// When the file cannot be made or written.
    pub(crate) fn create(folder: &Path, from_step: i64) -> Result<Self> {
        fs::create_dir_all(folder).with_context(|| format!("{} cannot be made", folder.display()))?;
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs_f64();
        let path = folder.join(name_after(folder, now as u64)?);
        let file = File::create_new(&path).with_context(|| format!("{} cannot be made", path.display()))?;
        let mut events = Self { path, file, pending: Vec::new() };
        let first_step = if from_step > 0 { from_step + 1 } else { 0 };
        let session = Message::default().number(event::SESSION_STATUS, SESSION_START);
        events.record(event(now, 0).bytes(event::FILE_VERSION, FILE_VERSION));
        events.record(event(now, first_step).message(event::SESSION_LOG, session));
        events.flush()?;
        Ok(events)
    }

    /// Notes the values of a step. `wall_time` is in seconds since 1970; values are kept in float32.
    pub(crate) fn scalars(&mut self, step: i64, wall_time: f64, values: &[(&str, f64)]) {
        let summary = values.iter().fold(Message::default(), |summary, &(tag, value)| {
            let value =
                Message::default().bytes(summary::TAG, tag.as_bytes()).float(summary::SIMPLE_VALUE, value as f32);
            summary.message(summary::VALUE, value)
        });
        self.record(event(wall_time, step).message(event::SUMMARY, summary));
    }

    /// Notes an RGB image of a step, encoded as PNG.
    pub(crate) fn image(&mut self, step: i64, wall_time: f64, tag: &str, png: &[u8], width: u32, height: u32) {
        let image = Message::default()
            .number(summary::IMAGE_HEIGHT, height.into())
            .number(summary::IMAGE_WIDTH, width.into())
            .number(summary::IMAGE_COLORSPACE, RGB)
            .bytes(summary::IMAGE_ENCODED, png);
        let value = Message::default().bytes(summary::TAG, tag.as_bytes()).message(summary::IMAGE, image);
        let summary = Message::default().message(summary::VALUE, value);
        self.record(event(wall_time, step).message(event::SUMMARY, summary));
    }

    /// Hands all records so far to the system; they outlive the process then.
    ///
    /// # Errors
    /// When the file cannot be written.
    pub(crate) fn flush(&mut self) -> Result<()> {
        self.file.write_all(&self.pending).with_context(|| format!("{} cannot be written", self.path.display()))?;
        self.pending.clear();
        Ok(())
    }

    fn record(&mut self, event: Message) {
        let length = (event.0.len() as u64).to_le_bytes();
        self.pending.extend_from_slice(&length);
        self.pending.extend_from_slice(&masked_checksum(&length).to_le_bytes());
        self.pending.extend_from_slice(&event.0);
        self.pending.extend_from_slice(&masked_checksum(&event.0).to_le_bytes());
    }
}

/// A name that sorts after those of all event files in `folder`, also when two are started within a second or the clock was
/// set back: TensorBoard reads files in the order of their names.
fn name_after(folder: &Path, now: u64) -> Result<String> {
    let mut seconds = now;
    let entries = fs::read_dir(folder).with_context(|| format!("{} cannot be read", folder.display()))?;
    for entry in entries {
        let name = entry.with_context(|| format!("{} cannot be read", folder.display()))?.file_name();
        let time = name.to_str().and_then(|name| name.strip_prefix(NAME_START)?.split('.').next()?.parse::<u64>().ok());
        seconds = seconds.max(time.map_or(0, |time| time + 1));
    }
    Ok(format!("{NAME_START}{seconds:010}.restok"))
}

fn masked_checksum(bytes: &[u8]) -> u32 {
    crc_fast::crc32_iscsi(bytes).rotate_right(15).wrapping_add(CHECKSUM_MASK)
}

fn event(wall_time: f64, step: i64) -> Message {
    // Negative numbers would be their two's complement, as protocol buffers have it.
    Message::default().double(event::WALL_TIME, wall_time).number(event::STEP, step as u64)
}

/// Field numbers of `Event`, and of the `SessionLog` in it.
mod event {
    pub(super) const WALL_TIME: u32 = 1;
    pub(super) const STEP: u32 = 2;
    pub(super) const FILE_VERSION: u32 = 3;
    pub(super) const SUMMARY: u32 = 5;
    pub(super) const SESSION_LOG: u32 = 7;
    pub(super) const SESSION_STATUS: u32 = 1;
}

/// Field numbers of `Summary`, of its `Value`, and of the `Image` in that.
mod summary {
    pub(super) const VALUE: u32 = 1;
    pub(super) const TAG: u32 = 1;
    pub(super) const SIMPLE_VALUE: u32 = 2;
    pub(super) const IMAGE: u32 = 4;
    pub(super) const IMAGE_HEIGHT: u32 = 1;
    pub(super) const IMAGE_WIDTH: u32 = 2;
    pub(super) const IMAGE_COLORSPACE: u32 = 3;
    pub(super) const IMAGE_ENCODED: u32 = 4;
}

/// A protocol buffer in the making: fields one after the other, each behind its number and wire type.
#[derive(Debug, Default)]
struct Message(Vec<u8>);

impl Message {
    const VARINT: u32 = 0;
    const EIGHT_BYTES: u32 = 1;
    const LENGTH_DELIMITED: u32 = 2;
    const FOUR_BYTES: u32 = 5;

    fn number(mut self, field: u32, value: u64) -> Self {
        self.key(field, Self::VARINT);
        self.varint(value);
        self
    }

    fn double(mut self, field: u32, value: f64) -> Self {
        self.key(field, Self::EIGHT_BYTES);
        self.0.extend_from_slice(&value.to_le_bytes());
        self
    }

    fn float(mut self, field: u32, value: f32) -> Self {
        self.key(field, Self::FOUR_BYTES);
        self.0.extend_from_slice(&value.to_le_bytes());
        self
    }

    fn bytes(mut self, field: u32, value: &[u8]) -> Self {
        self.key(field, Self::LENGTH_DELIMITED);
        self.varint(value.len() as u64);
        self.0.extend_from_slice(value);
        self
    }

    fn message(self, field: u32, value: Self) -> Self {
        self.bytes(field, &value.0)
    }

    fn key(&mut self, field: u32, wire_type: u32) {
        self.varint(u64::from(field << 3 | wire_type));
    }

    /// Seven bits a byte, the lowest first; the eighth says that more follow.
    fn varint(&mut self, mut value: u64) {
        while value >= 0x80 {
            self.0.push(value as u8 | 0x80);
            value >>= 7;
        }
        self.0.push(value as u8);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeMap;

    /// The value of a field as it lies in a message.
    #[derive(Debug, PartialEq)]
    enum Field {
        Number(u64),
        Eight([u8; 8]),
        Bytes(Vec<u8>),
        Four([u8; 4]),
    }

    fn take<'a>(bytes: &mut &'a [u8], count: usize) -> &'a [u8] {
        let (taken, rest) = bytes.split_at(count);
        *bytes = rest;
        taken
    }

    fn varint(bytes: &mut &[u8]) -> u64 {
        let length = bytes.iter().position(|byte| byte & 0x80 == 0).expect("an end") + 1;
        take(bytes, length).iter().rev().fold(0, |value, byte| value << 7 | u64::from(byte & 0x7f))
    }

    /// The fields of a message by number, in order.
    fn fields(mut bytes: &[u8]) -> BTreeMap<u32, Vec<Field>> {
        let mut fields = BTreeMap::<_, Vec<_>>::new();
        while !bytes.is_empty() {
            let key = varint(&mut bytes) as u32;
            let field = match key & 7 {
                Message::VARINT => Field::Number(varint(&mut bytes)),
                Message::EIGHT_BYTES => Field::Eight(take(&mut bytes, 8).try_into().expect("eight")),
                Message::LENGTH_DELIMITED => {
                    let length = varint(&mut bytes) as usize;
                    Field::Bytes(take(&mut bytes, length).to_vec())
                }
                Message::FOUR_BYTES => Field::Four(take(&mut bytes, 4).try_into().expect("four")),
                other => panic!("wire type {other}"),
            };
            fields.entry(key >> 3).or_default().push(field);
        }
        fields
    }

    fn message(field: &Field) -> BTreeMap<u32, Vec<Field>> {
        match field {
            Field::Bytes(bytes) => fields(bytes),
            other => panic!("no message: {other:?}"),
        }
    }

    /// Takes the mask off again, as readers do.
    fn checks(stored: &[u8], bytes: &[u8]) -> bool {
        let masked = u32::from_le_bytes(stored.try_into().expect("four bytes"));
        masked.wrapping_sub(CHECKSUM_MASK).rotate_left(15) == crc_fast::crc32_iscsi(bytes)
    }

    /// The events of a file, every checksum compared.
    fn events(path: &Path) -> Vec<BTreeMap<u32, Vec<Field>>> {
        let content = fs::read(path).expect("an event file");
        let mut rest = content.as_slice();
        let mut events = Vec::new();
        while !rest.is_empty() {
            let length = take(&mut rest, 8);
            assert!(checks(take(&mut rest, 4), length), "checksum of a length");
            let event = take(&mut rest, u64::from_le_bytes(length.try_into().expect("eight bytes")) as usize);
            assert!(checks(take(&mut rest, 4), event), "checksum of an event");
            events.push(fields(event));
        }
        events
    }

    #[test]
    fn scalars_and_images_read_back() {
        let folder = tempfile::tempdir().expect("a folder");
        let mut file = EventFile::create(&folder.path().join("run/events"), 0).expect("made");
        file.scalars(300, 1234.5, &[("loss/total", 0.25), ("rate", f64::NAN)]);
        file.image(301, 1235.5, "sheet", &[7; 300], 640, 480);
        assert_eq!(events(&file.path).len(), 2, "records wait for a flush");
        file.flush().expect("written");

        let events = events(&file.path);
        assert_eq!(events[0][&event::FILE_VERSION], [Field::Bytes(FILE_VERSION.to_vec())]);
        assert_eq!(events[2][&event::WALL_TIME], [Field::Eight(1234.5_f64.to_le_bytes())]);
        assert_eq!(events[2][&event::STEP], [Field::Number(300)]);
        let values = &message(&events[2][&event::SUMMARY][0])[&summary::VALUE];
        let values: Vec<_> = values.iter().map(message).collect();
        assert_eq!(values[0][&summary::TAG], [Field::Bytes(b"loss/total".to_vec())]);
        assert_eq!(values[0][&summary::SIMPLE_VALUE], [Field::Four(0.25_f32.to_le_bytes())]);
        assert_eq!(values[1][&summary::TAG], [Field::Bytes(b"rate".to_vec())]);
        let Field::Four(rate) = values[1][&summary::SIMPLE_VALUE][0] else { panic!("no float") };
        assert!(f32::from_le_bytes(rate).is_nan());

        let value = message(&message(&events[3][&event::SUMMARY][0])[&summary::VALUE][0]);
        let image = message(&value[&summary::IMAGE][0]);
        assert_eq!(image[&summary::IMAGE_HEIGHT], [Field::Number(480)]);
        assert_eq!(image[&summary::IMAGE_WIDTH], [Field::Number(640)]);
        assert_eq!(image[&summary::IMAGE_COLORSPACE], [Field::Number(RGB)]);
        assert_eq!(image[&summary::IMAGE_ENCODED], [Field::Bytes(vec![7; 300])]);
        assert_eq!(events.len(), 4);
    }

    #[test]
    fn a_resumed_run_voids_the_steps_that_it_makes_again() {
        let folder = tempfile::tempdir().expect("a folder");
        // From a clock that was ahead.
        fs::write(folder.path().join(format!("{NAME_START}4000000000.restok")), "").expect("written");
        let files = [0, 500].map(|from_step| EventFile::create(folder.path(), from_step).expect("made"));
        for (file, first_step) in files.iter().zip([0, 501]) {
            let event = &events(&file.path)[1];
            assert_eq!(event[&event::STEP], [Field::Number(first_step)]);
            let session = message(&event[&event::SESSION_LOG][0]);
            assert_eq!(session[&event::SESSION_STATUS], [Field::Number(SESSION_START)]);
        }
        for (file, time) in files.iter().zip(["4000000001", "4000000002"]) {
            assert_eq!(file.path, folder.path().join(format!("{NAME_START}{time}.restok")));
        }
    }

    #[test]
    fn numbers_that_are_long_or_negative_are_encoded_as_protocol_buffers_have_them() {
        assert_eq!(Message::default().number(1, 300).0, [0x08, 0xac, 0x02]);
        assert_eq!(Message::default().number(16, 0).0, [0x80, 0x01, 0x00]);
        assert_eq!(Message::default().number(2, -1_i64 as u64).0.len(), 11);
        // A checksum that the format's description gives: of 32 zeros, 0x8a9136aa before its mask.
        assert_eq!(crc_fast::crc32_iscsi(&[0; 32]), 0x8a91_36aa);
    }
}

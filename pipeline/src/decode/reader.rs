//! The fields of a file, from front to back.

use super::DecodeFailure;

/// A file that is read field by field; a field that it does not hold is a [`schemas::RejectReason::Truncated`].
#[derive(Clone, Debug)]
pub(super) struct Reader<'bytes> {
    bytes: &'bytes [u8],
    position: usize,
}

impl<'bytes> Reader<'bytes> {
    /// Begins at `position`, which may lie beyond the end.
    pub(super) fn at(bytes: &'bytes [u8], position: usize) -> Self {
        Self { bytes, position }
    }

    /// Bytes in front of the next field.
    pub(super) fn position(&self) -> usize {
        self.position
    }

    /// Everything from the next field on.
    pub(super) fn rest(&self) -> &'bytes [u8] {
        self.bytes.get(self.position..).unwrap_or_default()
    }

    /// The next `length` bytes, which are `what`.
    pub(super) fn take(&mut self, length: usize, what: &str) -> Result<&'bytes [u8], DecodeFailure> {
        let end = self.position.saturating_add(length);
        let found = self.bytes.get(self.position..end).ok_or_else(|| {
            DecodeFailure::truncated(format!("{what} is {length} bytes, but only {} are left", self.rest().len()))
        })?;
        self.position = end;
        Ok(found)
    }

    /// The next bytes as an array, for `from_le_bytes` and the like.
    pub(super) fn array<const LENGTH: usize>(&mut self, what: &str) -> Result<[u8; LENGTH], DecodeFailure> {
        let mut array = [0; LENGTH];
        array.copy_from_slice(self.take(LENGTH, what)?);
        Ok(array)
    }

    pub(super) fn u8(&mut self, what: &str) -> Result<u8, DecodeFailure> {
        self.array(what).map(u8::from_le_bytes)
    }

    /// Little-endian.
    pub(super) fn u16(&mut self, what: &str) -> Result<u16, DecodeFailure> {
        self.array(what).map(u16::from_le_bytes)
    }

    /// Little-endian.
    pub(super) fn u32(&mut self, what: &str) -> Result<u32, DecodeFailure> {
        self.array(what).map(u32::from_le_bytes)
    }
}

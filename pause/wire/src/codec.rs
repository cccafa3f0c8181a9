//! Bounded reading and writing of little-endian fields.

use crate::Id;

/// Writes fields one after the other; once something did not fit, nothing more is written.
pub(crate) struct Writer<'a> {
    buffer: &'a mut [u8],
    at: usize,
    fits: bool,
}

/// Reads fields one after the other; `None` once the bytes end.
pub(crate) struct Reader<'a> {
    rest: &'a [u8],
}

// === impl Writer ===

impl<'a> Writer<'a> {
    pub(crate) fn new(buffer: &'a mut [u8]) -> Self {
        Self { buffer, at: 0, fits: true }
    }

    pub(crate) fn bytes(&mut self, bytes: &[u8]) -> &mut Self {
        let end = self.at.saturating_add(bytes.len());
        match self.buffer.get_mut(self.at..end) {
            Some(place) if self.fits => {
                // Not copy_from_slice: its length check could panic as far as the compiler knows.
                for (to, from) in place.iter_mut().zip(bytes) {
                    *to = *from;
                }
                self.at = end;
            }
            _ => self.fits = false,
        }
        self
    }

    pub(crate) fn u8(&mut self, value: u8) -> &mut Self {
        self.bytes(&[value])
    }

    pub(crate) fn u16(&mut self, value: u16) -> &mut Self {
        self.bytes(&value.to_le_bytes())
    }

    pub(crate) fn u32(&mut self, value: u32) -> &mut Self {
        self.bytes(&value.to_le_bytes())
    }

    pub(crate) fn i32(&mut self, value: i32) -> &mut Self {
        self.bytes(&value.to_le_bytes())
    }

    pub(crate) fn u64(&mut self, value: u64) -> &mut Self {
        self.bytes(&value.to_le_bytes())
    }

    /// How many bytes were written; `None` when they did not fit.
    pub(crate) fn finish(&self) -> Option<usize> {
        self.fits.then_some(self.at)
    }
}

// === impl Reader ===

impl<'a> Reader<'a> {
    pub(crate) fn new(bytes: &'a [u8]) -> Self {
        Self { rest: bytes }
    }

    fn array<const N: usize>(&mut self) -> Option<[u8; N]> {
        let (field, rest) = self.rest.split_first_chunk::<N>()?;
        self.rest = rest;
        Some(*field)
    }

    pub(crate) fn u8(&mut self) -> Option<u8> {
        self.array().map(u8::from_le_bytes)
    }

    pub(crate) fn u16(&mut self) -> Option<u16> {
        self.array().map(u16::from_le_bytes)
    }

    pub(crate) fn u32(&mut self) -> Option<u32> {
        self.array().map(u32::from_le_bytes)
    }

    pub(crate) fn i32(&mut self) -> Option<i32> {
        self.array().map(i32::from_le_bytes)
    }

    pub(crate) fn u64(&mut self) -> Option<u64> {
        self.array().map(u64::from_le_bytes)
    }

    pub(crate) fn id(&mut self) -> Option<Id> {
        self.array()
    }

    pub(crate) fn rest(&self) -> &'a [u8] {
        self.rest
    }
}

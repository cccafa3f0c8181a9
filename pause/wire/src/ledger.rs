//! Records of the exit ledger.

use crate::codec::{Reader, Writer};
use crate::entry::{read_failed, write_failed};
use crate::{Code, Exit, Id};

/// Bytes of a [`LedgerRecord`].
///
/// `u32` magic, `u32` pid, `[u8; 32]` container, `u64` nanoseconds, `i32` status, `u16` failed step, `u16`
/// its errno, `u8` code, 3 bytes zero, `u32` CRC-32 of the bytes before it.
pub const LEDGER_RECORD_SIZE: usize = 64;

/// "CxL1": the record's layout, too.
const MAGIC: u32 = u32::from_le_bytes(*b"CxL1");

const CHECKED: usize = LEDGER_RECORD_SIZE - 4;

/// The end of one container.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LedgerRecord {
    /// The container.
    pub id: Id,
    /// The pid it had.
    pub pid: u32,
    /// How and when it ended.
    pub exit: Exit,
}

impl LedgerRecord {
    /// The record's bytes.
    pub fn encode(&self) -> [u8; LEDGER_RECORD_SIZE] {
        let mut bytes = [0; LEDGER_RECORD_SIZE];
        let mut to = Writer::new(&mut bytes);
        to.u32(MAGIC).u32(self.pid).bytes(&self.id).u64(self.exit.time_ns).i32(self.exit.status);
        write_failed(self.exit.failed, &mut to);
        to.u8(self.exit.code.to_wire()).bytes(&[0; 3]);
        let (checked, sum) = bytes.split_at_mut(CHECKED);
        let mut to = Writer::new(sum);
        to.u32(crc32(checked));
        bytes
    }

    /// The record; `None` when the bytes are not one, as after a torn write.
    pub fn decode(bytes: &[u8; LEDGER_RECORD_SIZE]) -> Option<Self> {
        let (checked, sum) = bytes.split_at_checked(CHECKED)?;
        if Reader::new(sum).u32()? != crc32(checked) {
            return None;
        }
        let mut from = Reader::new(checked);
        if from.u32()? != MAGIC {
            return None;
        }
        let pid = from.u32()?;
        let id = from.id()?;
        let time_ns = from.u64()?;
        let status = from.i32()?;
        let failed = read_failed(&mut from)?;
        let code = Code::from_wire(from.u8()?)?;
        Some(Self { id, pid, exit: Exit { code, status, time_ns, failed } })
    }
}

/// CRC-32 as in zlib, bit by bit: a record is written per container that ends, and pause has no room for
/// a table.
fn crc32(bytes: &[u8]) -> u32 {
    let mut crc = u32::MAX;
    for byte in bytes {
        crc ^= u32::from(*byte);
        for _ in 0..8 {
            crc = (crc >> 1) ^ (0xedb8_8320 & (crc & 1).wrapping_neg());
        }
    }
    !crc
}

#[cfg(test)]
mod tests {
    use super::crc32;

    #[test]
    fn the_checksum_is_the_usual_crc32() {
        assert_eq!(crc32(b"123456789"), 0xcbf4_3926);
    }
}

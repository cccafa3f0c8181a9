//! Reading the exit ledger.

use std::fs::File;
use std::io::Read;
use std::os::fd::BorrowedFd;

use coracle_model::ContainerId;
use coracle_pause_wire::{LEDGER_RECORD_SIZE, LedgerRecord, launch};
use rustix::fs::{Mode, OFlags, openat};

use super::{Exit, PauseError};

/// What a ledger says.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Ledger {
    /// The ends of containers, in the order pause learned of them.
    pub exits: Vec<LedgerExit>,
    /// Bytes that are no record: a write was torn, as by a full file system.
    pub unreadable: usize,
}

/// The end of a container.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LedgerExit {
    /// The container.
    pub container: ContainerId,
    /// The pid it had.
    pub pid: u32,
    /// How and when it ended.
    pub exit: Exit,
}

/// Reads the ledger in a pod's directory. Works whether or not pause lives.
///
/// # Errors
/// When it is not there or cannot be read.
pub fn read_ledger(directory: BorrowedFd<'_>) -> Result<Ledger, PauseError> {
    let flags = OFlags::RDONLY | OFlags::CLOEXEC | OFlags::NOFOLLOW;
    let file = openat(directory, launch::LEDGER_NAME, flags, Mode::empty())
        .map_err(PauseError::at("open the exit ledger"))?;
    let mut bytes = Vec::new();
    File::from(file).read_to_end(&mut bytes).map_err(PauseError::at_io("read the exit ledger"))?;
    Ok(parse(&bytes))
}

/// Takes every whole record, also behind torn ones.
fn parse(mut bytes: &[u8]) -> Ledger {
    let mut ledger = Ledger::default();
    while let Some(first) = bytes.first_chunk::<LEDGER_RECORD_SIZE>() {
        let skip = match LedgerRecord::decode(first) {
            Some(record) => {
                ledger.exits.push(record.into());
                LEDGER_RECORD_SIZE
            }
            None => {
                ledger.unreadable += 1;
                1
            }
        };
        bytes = bytes.get(skip..).unwrap_or_default();
    }
    ledger.unreadable += bytes.len();
    ledger
}

impl From<LedgerRecord> for LedgerExit {
    fn from(record: LedgerRecord) -> Self {
        Self { container: ContainerId::from_bytes(record.id), pid: record.pid, exit: record.exit.into() }
    }
}

#[cfg(test)]
mod tests {
    use coracle_pause_wire::{Code, Exit};

    use super::*;

    fn record(n: u8) -> [u8; LEDGER_RECORD_SIZE] {
        let exit = Exit { code: Code::Exited, status: i32::from(n), time_ns: 1, failed: None };
        LedgerRecord { id: [n; 32], pid: u32::from(n), exit }.encode()
    }

    fn pids(ledger: &Ledger) -> Vec<u32> {
        ledger.exits.iter().map(|exit| exit.pid).collect()
    }

    #[test]
    fn a_torn_tail_is_left_out() {
        for length in 0..LEDGER_RECORD_SIZE {
            let ledger = parse(&[&record(1)[..], &record(2)[..length]].concat());
            assert_eq!((pids(&ledger), ledger.unreadable), (vec![1], length));
        }
    }

    #[test]
    fn records_behind_a_torn_one_are_found() {
        let ledger = parse(&[&record(1)[..], &record(2)[..20], &record(3)[..], &record(4)[..]].concat());
        assert_eq!((pids(&ledger), ledger.unreadable), (vec![1, 3, 4], 20));
    }
}

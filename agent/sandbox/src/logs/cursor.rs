//! The cursor: what a pump is about to do to its log file, kept where the next agent finds it.
//!
//! One record of fixed size in a file of the run directory, overwritten in place. One `pwrite` within
//! one page of a tmpfs either happened or did not, also when the process is killed; it need not
//! survive the machine, because the pipes it speaks of do not.

use std::fs::File;
use std::io;
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use super::cri::Stream;

/// A chunk being moved from a stream to the log.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Chunk {
    pub(super) stream: Stream,
    /// Bytes taken from the stream.
    pub(super) taken: u64,
    /// Length of the log file before.
    pub(super) before: u64,
    /// Bytes to be appended to it.
    pub(super) appended: u64,
}

const MAGIC: [u8; 7] = *b"crlog1\n";
const SIZE: usize = 32;

/// The file that holds the cursor. It is opened, and made, when it is first needed, and again until it could be.
#[derive(Debug)]
pub(super) struct Cursor {
    path: PathBuf,
    file: Option<File>,
}

// === impl Cursor ===

impl Cursor {
    /// The cursor at `path`.
    pub(super) fn new(path: PathBuf) -> Self {
        Self { path, file: None }
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// Notes the chunk that is about to be moved.
    pub(super) fn write(&mut self, chunk: &Chunk) -> io::Result<()> {
        self.file()?.write_all_at(&encode(chunk), 0)
    }

    /// The chunk noted last, if any was.
    pub(super) fn read(&mut self) -> io::Result<Option<Chunk>> {
        let mut bytes = [0; SIZE];
        match self.file()?.read_exact_at(&mut bytes, 0) {
            Ok(()) => Ok(decode(&bytes)),
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => Ok(None),
            Err(error) => Err(error),
        }
    }

    fn file(&mut self) -> io::Result<&File> {
        let file = match self.file.take() {
            Some(file) => file,
            None => File::options()
                .read(true)
                .write(true)
                .create(true)
                .truncate(false)
                .mode(0o600)
                .open(&self.path)?,
        };
        Ok(self.file.insert(file))
    }
}

fn encode(chunk: &Chunk) -> [u8; SIZE] {
    let mut bytes = [0; SIZE];
    bytes[..7].copy_from_slice(&MAGIC);
    bytes[7] = chunk.stream.index();
    bytes[8..16].copy_from_slice(&chunk.taken.to_le_bytes());
    bytes[16..24].copy_from_slice(&chunk.before.to_le_bytes());
    bytes[24..].copy_from_slice(&chunk.appended.to_le_bytes());
    bytes
}

fn decode(bytes: &[u8; SIZE]) -> Option<Chunk> {
    let number = |at: usize| bytes[at..at + 8].try_into().ok().map(u64::from_le_bytes);
    if bytes[..7] != MAGIC {
        return None;
    }
    Some(Chunk {
        stream: Stream::from_index(bytes[7])?,
        taken: number(8)?,
        before: number(16)?,
        appended: number(24)?,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cursor_round_trips() {
        let dir = tempfile::tempdir().unwrap();
        let mut cursor = Cursor::new(dir.path().join("cursor"));
        assert_eq!(cursor.read().unwrap(), None);
        let chunk = Chunk { stream: Stream::Stderr, taken: 7, before: u64::MAX, appended: 99 };
        cursor.write(&chunk).unwrap();
        assert_eq!(cursor.read().unwrap(), Some(chunk));
    }
}

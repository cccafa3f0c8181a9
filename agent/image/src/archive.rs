//! Tar archives that are no layers: what a container sends of its files, say.
//!
//! Reads as layers are read, with the same bounds: an extended header of more than 1 MiB is refused, and
//! nothing else of an archive is held in memory.

use std::io::{self, BufRead, Read};

use crate::unpack::{Fault, Kind, TarReader};

/// Entries of an archive that nobody vouches for, one after another.
pub struct Archive<R>(TarReader<R>);

/// What an archive says about one path.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ArchiveEntry {
    /// As in the archive: it may be absolute, hold `..` and end in `/`.
    pub path: Vec<u8>,
    /// What is there.
    pub kind: ArchiveKind,
}

/// What an entry is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ArchiveKind {
    /// A regular file.
    File {
        /// Its length, holes included.
        size: u64,
        /// Where its data goes: offset and length, ascending and apart. The entry's data is that of all
        /// segments, one after another.
        segments: Vec<(u64, u64)>,
    },
    /// A directory.
    Directory,
    /// A symbolic link, and where it points.
    Symlink(Vec<u8>),
    /// Another name of the file with this path in the archive.
    HardLink(Vec<u8>),
    /// A device or a pipe.
    Special,
}

// === impl Archive ===

impl<R: BufRead> Archive<R> {
    /// The archive that `input` gives.
    pub fn new(input: R) -> Self {
        Self(TarReader::new(input))
    }

    /// The next entry; the data of a file is then read from `self`. What was left unread of the entry before
    /// is skipped. `None` at the archive's end.
    ///
    /// # Errors
    /// When the input cannot be read; of kind [`io::ErrorKind::InvalidData`] when it is no archive.
    pub fn next_entry(&mut self) -> io::Result<Option<ArchiveEntry>> {
        let Some(entry) = self.0.next_entry().map_err(error)? else { return Ok(None) };
        let kind = match entry.kind {
            Kind::File(data) => ArchiveKind::File { size: data.size, segments: data.segments },
            Kind::Directory => ArchiveKind::Directory,
            Kind::Symlink(target) => ArchiveKind::Symlink(target),
            Kind::HardLink(path) => ArchiveKind::HardLink(path),
            Kind::Char(..) | Kind::Block(..) | Kind::Fifo => ArchiveKind::Special,
        };
        Ok(Some(ArchiveEntry { path: entry.path, kind }))
    }
}

impl<R: BufRead> Read for Archive<R> {
    fn read(&mut self, out: &mut [u8]) -> io::Result<usize> {
        self.0.read(out)
    }
}

fn error(fault: Fault) -> io::Error {
    match fault {
        Fault::Read(error) | Fault::Write { source: error, .. } => error,
        Fault::Malformed(problem) => io::Error::new(io::ErrorKind::InvalidData, problem),
        Fault::DiskFull { .. } => io::ErrorKind::StorageFull.into(),
        Fault::Aborted => io::ErrorKind::Interrupted.into(),
    }
}

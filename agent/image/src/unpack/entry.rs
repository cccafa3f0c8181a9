//! One entry of a layer, whatever it is read from.

use std::io;

/// What a layer says about one path.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Entry {
    /// As in the archive: it may be absolute, hold `..` and end in `/`.
    pub(crate) path: Vec<u8>,
    pub(crate) kind: Kind,
    /// Permissions and the setuid, setgid and sticky bits.
    pub(crate) mode: u32,
    pub(crate) uid: u32,
    pub(crate) gid: u32,
    /// Seconds since the epoch, and nanoseconds.
    pub(crate) mtime: (i64, u32),
    /// Full names (`user.x`) and values.
    pub(crate) xattrs: Xattrs,
}

/// Names and values of extended attributes.
pub(crate) type Xattrs = Vec<(Vec<u8>, Vec<u8>)>;

#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    File(FileData),
    Directory,
    Symlink(Vec<u8>),
    /// A path within the layer, as `Entry::path`.
    HardLink(Vec<u8>),
    Char(u32, u32),
    Block(u32, u32),
    Fifo,
}

/// Where a file's bytes go: the segments stand one after another in the entry's data.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct FileData {
    /// The file's length, holes included.
    pub(crate) size: u64,
    /// Offset and length, ascending and apart; nothing else of the file holds data.
    pub(crate) segments: Vec<(u64, u64)>,
}

/// Why a layer cannot be unpacked.
#[derive(Debug)]
pub(crate) enum Fault {
    /// The archive could not be read.
    Read(io::Error),
    /// The archive is malformed, or asks for what is refused.
    Malformed(String),
    /// An entry could not be written.
    Write { step: &'static str, entry: String, source: io::Error },
    /// A layer below, which this one must know, is not going to be made.
    Aborted,
    /// The file system would be full.
    DiskFull { needed: u64, available: u64, reserve: u64 },
}

impl FileData {
    /// A file without holes.
    pub(crate) fn dense(size: u64) -> Self {
        Self { size, segments: if size == 0 { vec![] } else { vec![(0, size)] } }
    }

    /// Bytes of data.
    pub(crate) fn stored(&self) -> u64 {
        self.segments.iter().map(|(_, length)| length).sum()
    }

    /// Checks segments that came from an archive.
    pub(crate) fn sparse(size: u64, segments: Vec<(u64, u64)>) -> Option<Self> {
        let mut end = 0u64;
        for (offset, length) in &segments {
            if *offset < end {
                return None;
            }
            end = offset.checked_add(*length)?;
        }
        let segments = segments.into_iter().filter(|(_, length)| *length > 0).collect();
        (end <= size && size <= i64::MAX as u64).then_some(Self { size, segments })
    }
}

impl From<io::Error> for Fault {
    /// A layer's own notes cannot be read or written.
    fn from(error: io::Error) -> Self {
        Self::write("go on with", b".")(error)
    }
}

impl Fault {
    /// Whether it lies in what the layer is, not in where it goes.
    pub(crate) fn is_of_the_layer(&self) -> bool {
        matches!(self, Self::Read(_) | Self::Malformed(_))
    }

    pub(crate) fn write<E: Into<io::Error>>(step: &'static str, path: &[u8]) -> impl FnOnce(E) -> Self {
        // What is shown of the path is made only when it is: this is passed with every system call.
        move |source| Self::Write { step, entry: printable(path), source: source.into() }
    }

    pub(crate) fn malformed(path: &[u8], problem: &str) -> Self {
        Self::Malformed(format!("entry {:?} {problem}", printable(path)))
    }
}

/// A path for a message: not longer than a terminal can bear.
pub(crate) fn printable(path: &[u8]) -> String {
    let text = String::from_utf8_lossy(path);
    match text.char_indices().nth(200) {
        Some((at, _)) => format!("{}...", &text[..at]),
        None => text.into_owned(),
    }
}

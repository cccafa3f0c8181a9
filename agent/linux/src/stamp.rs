//! By what a file is known not to have changed.

use std::fs::Metadata;
use std::os::unix::fs::MetadataExt;

/// What changes with the content of a file or a directory, or with what is in its place.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stamp {
    device: u64,
    inode: u64,
    size: u64,
    /// Seconds and nanoseconds, as is the next.
    modified: (i64, i64),
    changed: (i64, i64),
}

impl Stamp {
    /// That of what this tells of.
    pub fn of(metadata: &Metadata) -> Self {
        Self {
            device: metadata.dev(),
            inode: metadata.ino(),
            size: metadata.size(),
            modified: (metadata.mtime(), metadata.mtime_nsec()),
            changed: (metadata.ctime(), metadata.ctime_nsec()),
        }
    }
}

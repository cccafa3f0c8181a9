//! Bringing what was made to the disk.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::PathBuf;

use rustix::fs::syncfs;

use crate::store::open_directory;
use crate::{ImageError, Store};

/// The store's file system, opened before anything is written that it is to flush.
///
/// The kernel tells of data that it could not write to every file that was open then, but of those that are opened
/// later only to the first (`errseq_t`): whoever opened the file system to flush it could miss what somebody else was told.
#[derive(Debug)]
pub(crate) struct Disk {
    root: OwnedFd,
    path: PathBuf,
}

// === impl Disk ===

impl Disk {
    pub(crate) fn of(store: &Store) -> Result<Self, ImageError> {
        Ok(Self { root: open_directory(store.root())?, path: store.root().to_owned() })
    }

    pub(super) fn as_fd(&self) -> BorrowedFd<'_> {
        self.root.as_fd()
    }

    /// One flush for however many files.
    pub(super) fn flush(&self) -> Result<(), ImageError> {
        syncfs(&self.root).map_err(|error| ImageError::store("flush", &self.path)(error.into()))
    }
}

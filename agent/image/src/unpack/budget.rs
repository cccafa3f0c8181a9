//! What one import may use of the disk.

use std::io;
use std::os::fd::BorrowedFd;

use rustix::fs::fstatvfs;

use super::entry::Fault;

/// Bounds of an import. The defaults fit any honest image and any disk.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// The most bytes one layer's archive may have when decompressed; `None`: what is free on disk.
    pub max_layer_bytes: Option<u64>,
    /// The most entries one layer may have.
    pub max_entries: u64,
    /// Bytes that stay free on the store's file system; `None`: a twentieth of it, at most 1 GiB.
    pub keep_free: Option<u64>,
}

impl Default for Limits {
    fn default() -> Self {
        Self { max_layer_bytes: None, max_entries: 10_000_000, keep_free: None }
    }
}

/// Free space is looked at again after this many bytes, because others write too.
const BYTES_BETWEEN_LOOKS: u64 = 64 << 20;
const ENTRIES_BETWEEN_LOOKS: u64 = 4096;
/// A twentieth of a large disk is more than anyone wants kept free.
const MOST_KEPT_FREE: u64 = 1 << 30;
/// Archives hold more than what is written: headers, padding, files that a later entry replaces.
const ARCHIVE_OVERHEAD: u64 = 1 << 30;

/// What is left of the limits.
pub(crate) struct Budget<'a> {
    directory: BorrowedFd<'a>,
    limits: Limits,
    entries: u64,
    bytes_to_look: u64,
    entries_to_look: u64,
}

impl<'a> Budget<'a> {
    /// `directory` is on the file system that is written to.
    pub(crate) fn new(directory: BorrowedFd<'a>, limits: Limits) -> Self {
        Self { directory, limits, entries: 0, bytes_to_look: 0, entries_to_look: 0 }
    }

    /// The most bytes the layer's decompressed archive may have.
    pub(crate) fn max_archive(&self) -> Result<u64, Fault> {
        match self.limits.max_layer_bytes {
            Some(bytes) => Ok(bytes),
            None => Ok(self.look()?.0.saturating_add(ARCHIVE_OVERHEAD)),
        }
    }

    /// One more entry.
    pub(crate) fn entry(&mut self) -> Result<(), Fault> {
        self.entries += 1;
        if self.entries > self.limits.max_entries {
            return Err(Fault::Malformed(format!("it has more than {} entries", self.limits.max_entries)));
        }
        if self.entries_to_look == 0 {
            let stat = fstatvfs(self.directory).map_err(Fault::write("look at the disk of", b"."))?;
            // File systems without a fixed number of inodes report none at all.
            if stat.f_files > 0
                && stat.f_favail < (stat.f_files / 100).max(ENTRIES_BETWEEN_LOOKS.min(stat.f_files / 4))
            {
                let problem = format!(
                    "the store's file system has only {} of {} inodes left",
                    stat.f_favail, stat.f_files
                );
                let full = io::Error::new(io::ErrorKind::StorageFull, problem);
                return Err(Fault::write("make files below", b".")(full));
            }
            self.entries_to_look = ENTRIES_BETWEEN_LOOKS;
        }
        self.entries_to_look -= 1;
        Ok(())
    }

    /// `size` more bytes are about to be written.
    pub(crate) fn bytes(&mut self, size: u64) -> Result<(), Fault> {
        if size < self.bytes_to_look {
            self.bytes_to_look -= size;
            return Ok(());
        }
        let (free, available, reserve) = {
            let (available, reserve) = self.look()?;
            (available.saturating_sub(reserve), available, reserve)
        };
        if size > free {
            return Err(Fault::DiskFull { needed: size, available, reserve });
        }
        self.bytes_to_look = BYTES_BETWEEN_LOOKS.min((free - size) / 2);
        Ok(())
    }

    /// Bytes available, and how many of them stay free.
    fn look(&self) -> Result<(u64, u64), Fault> {
        let stat = fstatvfs(self.directory).map_err(Fault::write("look at the disk of", b"."))?;
        let total = stat.f_blocks.saturating_mul(stat.f_frsize);
        let reserve = self.limits.keep_free.unwrap_or(MOST_KEPT_FREE.min(total / 20));
        Ok((stat.f_bavail.saturating_mul(stat.f_frsize), reserve))
    }
}

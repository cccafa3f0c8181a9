//! What the layers below show at a path, as overlayfs would.

use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;

use rustix::fs::{AtFlags, FileType, Mode, OFlags, RawMode, Stat, fgetxattr, openat, readlinkat, statat};
use rustix::io::Errno;

use super::entry::Fault;

pub(crate) const OPAQUE: &str = "trusted.overlay.opaque";

/// The entry of the layers below at a path.
#[derive(Debug)]
pub(crate) enum Below {
    /// Nothing.
    Nothing,
    /// What a directory cannot be merged with.
    File,
    /// A directory: its attributes are what a new directory over it has to have.
    Directory(OwnedFd, Stat),
    /// A symbolic link: its target.
    Symlink(Vec<u8>, Stat),
}

/// The layers below, from the top. They may be in the making: whoever asks for one waits for it.
#[derive(Clone, Copy)]
pub(crate) struct Lowers<'a> {
    count: usize,
    get: &'a dyn Fn(usize) -> Result<Arc<OwnedFd>, Fault>,
}

impl<'a> Lowers<'a> {
    pub(crate) fn new(count: usize, get: &'a dyn Fn(usize) -> Result<Arc<OwnedFd>, Fault>) -> Self {
        Self { count, get }
    }

    /// Those of a lowest layer.
    pub(crate) fn none() -> Self {
        Self { count: 0, get: &|_| Err(Fault::Aborted) }
    }

    pub(crate) fn iter(self) -> impl Iterator<Item = Result<Arc<OwnedFd>, Fault>> + use<'a> {
        (0..self.count).map(self.get)
    }

    /// What they have at a path. Links on the way are not followed: the path is one that was resolved already.
    pub(crate) fn look_up(self, path: &[Vec<u8>], entry: &[u8]) -> Result<Below, Fault> {
        for lower in self.iter() {
            let found =
                look_up(&*lower?, path).map_err(Fault::write("look below for the directory of", entry))?;
            if let Some(found) = found {
                return Ok(found);
            }
        }
        Ok(Below::Nothing)
    }
}

/// What one layer says of a path; `None` when those below it decide.
fn look_up(lower: &OwnedFd, path: &[Vec<u8>]) -> Result<Option<Below>, Errno> {
    let Some((last, parents)) = path.split_last() else { return Ok(Some(Below::Nothing)) };
    let mut hides_lower = false;
    let mut directory: Option<OwnedFd> = None;
    let absent = |hides_lower| Ok(if hides_lower { Some(Below::Nothing) } else { None });
    for name in parents {
        match open_directory(directory.as_ref().unwrap_or(lower), name) {
            Ok(next) => {
                hides_lower |= is_opaque(&next);
                directory = Some(next);
            }
            Err(Errno::NOENT) => return absent(hides_lower),
            // A whiteout, a link or a file hides everything below it.
            Err(Errno::NOTDIR | Errno::LOOP) => return Ok(Some(Below::Nothing)),
            Err(error) => return Err(error),
        }
    }
    let at = directory.as_ref().unwrap_or(lower);
    match statat(at, last.as_slice(), AtFlags::SYMLINK_NOFOLLOW) {
        Ok(stat) => Ok(Some(match FileType::from_raw_mode(stat.st_mode) {
            FileType::Directory => Below::Directory(open_directory(at, last)?, stat),
            FileType::Symlink => {
                Below::Symlink(readlinkat(at, last.as_slice(), Vec::new())?.into_bytes(), stat)
            }
            _ if is_whiteout(stat.st_mode, stat.st_rdev) => Below::Nothing,
            _ => Below::File,
        })),
        Err(Errno::NOENT) => absent(hides_lower),
        Err(error) => Err(error),
    }
}

pub(crate) fn open_directory(at: impl AsFd, name: &[u8]) -> Result<OwnedFd, Errno> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    openat(at, name, flags, Mode::empty())
}

/// Whether a directory hides those of the layers below.
pub(crate) fn is_opaque(directory: &OwnedFd) -> bool {
    let mut value = [0; 8];
    matches!(fgetxattr(directory, OPAQUE, &mut value[..]), Ok(1)) && value[0] == b'y'
}

/// Whether a node is overlayfs' whiteout.
pub(crate) fn is_whiteout(mode: RawMode, device: u64) -> bool {
    FileType::from_raw_mode(mode) == FileType::CharacterDevice && device == 0
}

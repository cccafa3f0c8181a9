//! What the layers below show at a path, as overlayfs would.

use std::os::fd::{AsFd, OwnedFd};

use rustix::fs::{AtFlags, FileType, Mode, OFlags, RawMode, Stat, fgetxattr, openat, readlinkat, statat};
use rustix::io::Errno;

pub(crate) const OPAQUE: &str = "trusted.overlay.opaque";

/// The entry of the layers below at a path.
#[derive(Debug)]
pub(crate) enum Below {
    /// Nothing, or what a directory cannot be merged with.
    Nothing,
    /// A directory: its attributes are what a new directory over it has to have.
    Directory(OwnedFd, Stat),
    /// A symbolic link: its target.
    Symlink(Vec<u8>, Stat),
}

/// Looks the path up, `lowers` from the top. Links on the way are not followed: the path is one that
/// was resolved already.
pub(crate) fn look_up(lowers: &[OwnedFd], path: &[Vec<u8>]) -> Result<Below, Errno> {
    'layers: for lower in lowers {
        let mut hides_lower = false;
        let mut directory: Option<OwnedFd> = None;
        let (last, parents) = match path.split_last() {
            Some(split) => split,
            None => return Ok(Below::Nothing),
        };
        for name in parents {
            let at = directory.as_ref().unwrap_or(lower);
            match open_directory(at, name) {
                Ok(next) => {
                    hides_lower |= is_opaque(&next);
                    directory = Some(next);
                }
                Err(Errno::NOENT) if hides_lower => return Ok(Below::Nothing),
                Err(Errno::NOENT) => continue 'layers,
                // A whiteout, a link or a file hides everything below it.
                Err(Errno::NOTDIR | Errno::LOOP) => return Ok(Below::Nothing),
                Err(error) => return Err(error),
            }
        }
        let at = directory.as_ref().unwrap_or(lower);
        match statat(at, last.as_slice(), AtFlags::SYMLINK_NOFOLLOW) {
            Ok(stat) => {
                return match FileType::from_raw_mode(stat.st_mode) {
                    FileType::Directory => Ok(Below::Directory(open_directory(at, last)?, stat)),
                    FileType::Symlink => {
                        Ok(Below::Symlink(readlinkat(at, last.as_slice(), Vec::new())?.into_bytes(), stat))
                    }
                    _ => Ok(Below::Nothing),
                };
            }
            Err(Errno::NOENT) if hides_lower => return Ok(Below::Nothing),
            Err(Errno::NOENT) => {}
            Err(error) => return Err(error),
        }
    }
    Ok(Below::Nothing)
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

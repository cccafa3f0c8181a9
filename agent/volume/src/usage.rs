//! How much disk a volume takes.

use std::collections::HashSet;
use std::ffi::OsStr;
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use rustix::fs::{AtFlags, CWD, Dir, FileType, Mode, OFlags, fstat, openat, statat};
use rustix::io::Errno;

use crate::VolumeError;

/// Descriptors one measurement may hold. What lies deeper is measured after the rest, from its own root.
const MAX_DEPTH: usize = 256;

/// Bytes of the blocks allocated to what is in a directory, each file once. Follows no link and enters no
/// mount. The volume is in use: what vanishes meanwhile counts nothing.
pub(crate) fn usage(path: &Path) -> Result<u64, VolumeError> {
    let failed = |error: Errno| VolumeError::io("measure", path)(error);
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let volume = openat(CWD, path, flags, Mode::empty()).map_err(failed)?;
    let device = fstat(&volume).map_err(failed)?.st_dev;
    let mut usage = Usage { device, linked: HashSet::new(), bytes: 0, deeper: vec![PathBuf::new()] };
    while let Some(below) = usage.deeper.pop() {
        match descend(&volume, &below) {
            Ok(root) => usage.walk(root, below).map_err(failed)?,
            Err(error) if is_gone(error) => {}
            Err(error) => return Err(failed(error)),
        }
    }
    Ok(usage.bytes)
}

/// What was measured so far.
struct Usage {
    device: u64,
    /// Files with several names.
    linked: HashSet<u64>,
    bytes: u64,
    /// Directories that are still to be walked, as paths in the volume.
    deeper: Vec<PathBuf>,
}

// === impl Usage ===

impl Usage {
    /// Adds what is in a directory, which lies at `path`.
    fn walk(&mut self, root: OwnedFd, mut path: PathBuf) -> Result<(), Errno> {
        let mut open_directories = vec![Dir::new(root)?];
        loop {
            let depth = open_directories.len();
            let Some(directory) = open_directories.last_mut() else { return Ok(()) };
            let Some(entry) = directory.next() else {
                open_directories.pop();
                path.pop();
                continue;
            };
            let entry = entry?;
            let name = entry.file_name();
            if matches!(name.to_bytes(), b"." | b"..") {
                continue;
            }
            let at = directory.fd()?;
            let stat = match statat(at, name, AtFlags::SYMLINK_NOFOLLOW) {
                Ok(stat) => stat,
                Err(Errno::NOENT) => continue,
                Err(error) => return Err(error),
            };
            if stat.st_dev != self.device || (stat.st_nlink > 1 && !self.linked.insert(stat.st_ino)) {
                continue;
            }
            let blocks = u64::try_from(stat.st_blocks).unwrap_or(0);
            self.bytes = self.bytes.saturating_add(blocks.saturating_mul(512));
            if FileType::from_raw_mode(stat.st_mode) != FileType::Directory {
                continue;
            }
            let name = OsStr::from_bytes(name.to_bytes());
            if depth == MAX_DEPTH {
                self.deeper.push(path.join(name));
                continue;
            }
            match openat(at, name, DIRECTORY, Mode::empty()) {
                Ok(child) => open_directories.push(Dir::new(child)?),
                Err(error) if is_gone(error) => continue,
                Err(error) => return Err(error),
            }
            path.push(name);
        }
    }
}

const DIRECTORY: OFlags =
    OFlags::RDONLY.union(OFlags::DIRECTORY).union(OFlags::NOFOLLOW).union(OFlags::CLOEXEC);

/// Opens a directory of the volume, name by name: the whole may be longer than a path can be.
fn descend(volume: &OwnedFd, path: &Path) -> Result<OwnedFd, Errno> {
    let root = openat(volume, c".", DIRECTORY, Mode::empty());
    path.iter().fold(root, |at, name| openat(at?, name, DIRECTORY, Mode::empty()))
}

/// Whether a container has removed or replaced what was just there.
fn is_gone(error: Errno) -> bool {
    matches!(error, Errno::NOENT | Errno::NOTDIR | Errno::LOOP)
}

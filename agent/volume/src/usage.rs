//! How much disk a volume takes.

use std::collections::HashSet;
use std::os::fd::OwnedFd;
use std::path::Path;

use rustix::fs::{AtFlags, CWD, Dir, FileType, Mode, OFlags, fstat, openat, statat};
use rustix::io::Errno;

use crate::VolumeError;

/// Descriptors one measurement may hold. A volume nested deeper cannot be measured, which is an error: not
/// counting what lies deeper would let it grow without bound.
const MAX_DEPTH: usize = 256;

/// Bytes of the blocks allocated to what is in a directory, each file once. Follows no link and enters no
/// mount. The volume is in use: what vanishes meanwhile counts nothing.
pub(crate) fn usage(path: &Path) -> Result<u64, VolumeError> {
    let failed = |error: Errno| VolumeError::io("measure", path)(error);
    let root = open(
        &openat(CWD, path, OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())
            .map_err(failed)?,
        c".",
    )
    .map_err(failed)?;
    let device = fstat(&root).map_err(failed)?.st_dev;
    let mut linked = HashSet::new();
    let mut bytes = 0u64;
    let mut open_directories = vec![Dir::new(root).map_err(failed)?];
    loop {
        let depth = open_directories.len();
        let Some(directory) = open_directories.last_mut() else { break };
        let Some(entry) = directory.next() else {
            open_directories.pop();
            continue;
        };
        let entry = entry.map_err(failed)?;
        let name = entry.file_name();
        if matches!(name.to_bytes(), b"." | b"..") {
            continue;
        }
        let at = directory.fd().map_err(failed)?;
        let stat = match statat(at, name, AtFlags::SYMLINK_NOFOLLOW) {
            Ok(stat) => stat,
            Err(Errno::NOENT) => continue,
            Err(error) => return Err(failed(error)),
        };
        if stat.st_dev != device || (stat.st_nlink > 1 && !linked.insert(stat.st_ino)) {
            continue;
        }
        bytes = bytes.saturating_add(u64::try_from(stat.st_blocks).unwrap_or(0).saturating_mul(512));
        if FileType::from_raw_mode(stat.st_mode) == FileType::Directory {
            if depth == MAX_DEPTH {
                let problem = format!("its directories are nested more than {MAX_DEPTH} deep");
                return Err(VolumeError::io("measure", path)(std::io::Error::other(problem)));
            }
            let child = match openat(at, name, DIRECTORY, Mode::empty()) {
                Ok(child) => child,
                Err(Errno::NOENT | Errno::NOTDIR | Errno::LOOP) => continue,
                Err(error) => return Err(failed(error)),
            };
            open_directories.push(Dir::new(child).map_err(failed)?);
        }
    }
    Ok(bytes)
}

const DIRECTORY: OFlags =
    OFlags::RDONLY.union(OFlags::DIRECTORY).union(OFlags::NOFOLLOW).union(OFlags::CLOEXEC);

fn open(at: &OwnedFd, name: &std::ffi::CStr) -> Result<OwnedFd, Errno> {
    openat(at, name, DIRECTORY, Mode::empty())
}

//! The directories volumes lie in.

use std::os::fd::OwnedFd;
use std::path::Path;

use rustix::fs::{CWD, Mode, OFlags, ResolveFlags, mkdirat, openat, openat2};
use rustix::io::Errno;

use crate::VolumeError;

/// `pods/<uid>/volumes/<plugin>/<name>`: what of a volume's path is the volumes' to make.
pub(crate) const DEPTH: usize = 5;

/// The rights everything of a volume has beside what `fsGroup` adds: containers of any user write there.
pub(crate) const MODE: u32 = 0o777;

/// What `fsGroup` makes of a directory's mode: new files take on the group.
pub(crate) fn mode_for(group: Option<u32>) -> u32 {
    if group.is_some() { MODE | 0o2000 } else { MODE }
}

/// Makes the directory and its parents, following no link in the last `ours` components.
pub(crate) fn make_all(path: &Path, ours: usize) -> Result<OwnedFd, VolumeError> {
    let components: Vec<_> = path.iter().collect();
    let (state, ours) = components.split_at(components.len().saturating_sub(ours));
    let mut at_path: std::path::PathBuf = state.iter().collect();
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let mut at = openat(CWD, &at_path, flags, Mode::empty()).map_err(VolumeError::io("open", &at_path))?;
    for name in ours {
        at_path.push(name);
        match mkdirat(&at, *name, Mode::from_raw_mode(0o750)) {
            Ok(()) | Err(Errno::EXIST) => {}
            Err(error) => return Err(VolumeError::io("create", &at_path)(error)),
        }
        at = enter(&at, Path::new(name)).map_err(VolumeError::io("open", &at_path))?;
    }
    Ok(at)
}

/// Opens a directory in another one. Of what is mounted on it, its root is what counts.
pub(crate) fn enter(at: &OwnedFd, name: &Path) -> Result<OwnedFd, Errno> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    openat2(at, name, flags, Mode::empty(), ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS)
}

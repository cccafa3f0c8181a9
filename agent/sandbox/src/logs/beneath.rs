//! Directories of the log directory, reached without following a link.

use std::os::fd::OwnedFd;
use std::path::Path;

use rustix::fs::{Mode, OFlags, ResolveFlags, open, openat2};
use rustix::io::Errno;

/// Opens `path`, which is `base` or lies beneath it; `None` when it is not there.
pub(super) fn open_beneath(base: &Path, path: &Path) -> Result<Option<OwnedFd>, Errno> {
    let Ok(relative) = path.strip_prefix(base) else { return Err(Errno::XDEV) };
    let relative = if relative.as_os_str().is_empty() { Path::new(".") } else { relative };
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let opened = open(base, flags, Mode::empty()).and_then(|base| {
        let resolve = ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS;
        openat2(base, relative, flags, Mode::empty(), resolve)
    });
    match opened {
        Ok(dir) => Ok(Some(dir)),
        Err(Errno::NOENT) => Ok(None),
        Err(errno) => Err(errno),
    }
}

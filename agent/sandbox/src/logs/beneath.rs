//! Directories of the log directory, reached without following a link: a pod may have had it mounted.

use std::fs;
use std::io;
use std::os::fd::OwnedFd;
use std::path::Path;

use rustix::fs::{Mode, OFlags, ResolveFlags, mkdirat, open, openat2};
use rustix::io::Errno;

const DIRECTORY: OFlags = OFlags::RDONLY.union(OFlags::DIRECTORY).union(OFlags::CLOEXEC);
const RESOLVE: ResolveFlags = ResolveFlags::BENEATH.union(ResolveFlags::NO_SYMLINKS);

/// Opens `path`, which is `base` or lies beneath it; `None` when it is not there.
pub(super) fn open_beneath(base: &Path, path: &Path) -> Result<Option<OwnedFd>, Errno> {
    let Ok(relative) = path.strip_prefix(base) else { return Err(Errno::XDEV) };
    let relative = if relative.as_os_str().is_empty() { Path::new(".") } else { relative };
    let opened = open(base, DIRECTORY, Mode::empty())
        .and_then(|base| openat2(base, relative, DIRECTORY, Mode::empty(), RESOLVE));
    match opened {
        Ok(dir) => Ok(Some(dir)),
        Err(Errno::NOENT) => Ok(None),
        Err(errno) => Err(errno),
    }
}

/// As [`open_beneath`], and makes what is not there. `base` itself is the host's, and may be reached by links.
pub(super) fn make_beneath(base: &Path, path: &Path) -> io::Result<OwnedFd> {
    if let Some(dir) = open_beneath(base, path)? {
        return Ok(dir);
    }
    fs::create_dir_all(base)?;
    let relative = path.strip_prefix(base).map_err(|_| Errno::XDEV)?;
    let mut dir = open(base, DIRECTORY, Mode::empty())?;
    for name in relative {
        match mkdirat(&dir, name, Mode::from_raw_mode(0o777)) {
            Ok(()) | Err(Errno::EXIST) => {}
            Err(errno) => return Err(errno.into()),
        }
        dir = openat2(&dir, name, DIRECTORY, Mode::empty(), RESOLVE)?;
    }
    Ok(dir)
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;

    #[test]
    fn directories_are_made_beneath_and_nowhere_else() {
        let base = tempfile::tempdir().unwrap();
        let elsewhere = tempfile::tempdir().unwrap();
        let log_dir = base.path().join("log/pods");
        for _ in 0..2 {
            make_beneath(&log_dir, &log_dir.join("pod/c")).unwrap();
            assert!(log_dir.join("pod/c").is_dir());
        }
        make_beneath(&log_dir, &log_dir).unwrap();
        symlink(elsewhere.path(), log_dir.join("link")).unwrap();
        symlink(elsewhere.path(), log_dir.join("pod/link")).unwrap();
        for path in ["link", "link/c", "pod/link", "pod/link/c", "../beside", "pod/../../../beside"] {
            assert!(make_beneath(&log_dir, &log_dir.join(path)).is_err(), "{path}");
        }
        assert!(make_beneath(&log_dir, elsewhere.path()).is_err());
        assert_eq!(fs::read_dir(elsewhere.path()).unwrap().count(), 0);
        assert!(!base.path().join("log/beside").exists() && !base.path().join("beside").exists());
    }
}

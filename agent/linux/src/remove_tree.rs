//! Removal of a directory tree that a container could write to.
//!
//! Such a tree may hold symbolic links to anywhere and be nested deeper than there are descriptors.
//! Names are only ever used relative to the descriptor of their own directory, links are not followed,
//! and mount points are not entered.

use std::ffi::{CStr, CString, OsStr};
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;

use rustix::fs::{
    AtFlags, Dir, FileType, Mode, OFlags, RenameFlags, ResolveFlags, openat2, renameat_with, unlinkat,
};
use rustix::io::Errno;

/// Directories open at once. What lies deeper is moved up to the tree's root and removed from there.
const MAX_DEPTH: usize = 64;

/// Removes `name` in `parent`, with all that is below it; absent is done.
///
/// Goes on after a failure.
///
/// # Errors
///
/// The first failure: `EXDEV` where something is mounted inside the tree, `EPERM` for an immutable file.
pub fn remove_tree(parent: BorrowedFd<'_>, name: &OsStr) -> io::Result<()> {
    let name = CString::new(name.as_bytes())?;
    if name.to_bytes().contains(&b'/') || matches!(name.to_bytes(), b"" | b"." | b"..") {
        return Err(io::Error::from(io::ErrorKind::InvalidInput));
    }
    match unlinkat(parent, &name, AtFlags::empty()) {
        Err(Errno::ISDIR) => {}
        Ok(()) | Err(Errno::NOENT) => return Ok(()),
        Err(error) => return Err(error.into()),
    }
    let root = open_directory(parent, &name)?;
    empty(root.as_fd())?;
    match unlinkat(parent, &name, AtFlags::REMOVEDIR) {
        Ok(()) | Err(Errno::NOENT) => Ok(()),
        Err(error) => Err(error.into()),
    }
}

/// Removes everything in `directory`, which stays. See [`remove_tree`].
///
/// # Errors
///
/// As [`remove_tree`].
pub fn empty_directory(directory: BorrowedFd<'_>) -> io::Result<()> {
    // A descriptor of its own: the caller's may be O_PATH, and has an offset of its own.
    empty(open_directory(directory, c".")?.as_fd())
}

fn empty(root: BorrowedFd<'_>) -> io::Result<()> {
    let mut sweep = Sweep { root, moved: 0, removed: 0, failure: None };
    loop {
        sweep.removed = 0;
        sweep.failure = None;
        let left = sweep.directory(root, 0)?;
        // Entries moved up to the root during a pass may not have been seen by it.
        if left == 0 && sweep.removed == 0 {
            return sweep.failure.map_or(Ok(()), |errno| Err(errno.into()));
        }
        if sweep.removed == 0 {
            return Err(sweep.failure.unwrap_or(Errno::NOTEMPTY).into());
        }
    }
}

struct Sweep<'a> {
    root: BorrowedFd<'a>,
    moved: u64,
    removed: u64,
    failure: Option<Errno>,
}

impl Sweep<'_> {
    /// Removes what it can of a directory; how many entries it had to leave.
    fn directory(&mut self, directory: BorrowedFd<'_>, depth: usize) -> io::Result<u64> {
        let mut left = 0;
        for entry in Dir::read_from(directory)? {
            let entry = entry?;
            let name = entry.file_name();
            if matches!(name.to_bytes(), b"." | b"..") {
                continue;
            }
            match self.entry(directory, name, entry.file_type(), depth) {
                Ok(()) => self.removed += 1,
                Err(Errno::NOENT) => {}
                Err(errno) => {
                    left += 1;
                    self.failure.get_or_insert(errno);
                }
            }
        }
        Ok(left)
    }

    fn entry(
        &mut self,
        directory: BorrowedFd<'_>,
        name: &CStr,
        kind: FileType,
        depth: usize,
    ) -> Result<(), Errno> {
        if kind != FileType::Directory {
            match unlinkat(directory, name, AtFlags::empty()) {
                Err(Errno::ISDIR) => {}
                done => return done,
            }
        }
        match unlinkat(directory, name, AtFlags::REMOVEDIR) {
            Err(Errno::NOTEMPTY | Errno::EXIST) => {}
            done => return done,
        }
        if depth == MAX_DEPTH {
            return self.move_up(directory, name);
        }
        let child = open_directory(directory, name)?;
        // A failure below is kept; the directory itself then cannot go either.
        let _ = self.directory(child.as_fd(), depth + 1).map_err(|error| {
            self.failure.get_or_insert(Errno::from_io_error(&error).unwrap_or(Errno::IO));
        });
        unlinkat(directory, name, AtFlags::REMOVEDIR)
    }

    fn move_up(&mut self, directory: BorrowedFd<'_>, name: &CStr) -> Result<(), Errno> {
        loop {
            self.moved += 1;
            let target = format!(".removed-{}", self.moved);
            match renameat_with(directory, name, self.root, target, RenameFlags::NOREPLACE) {
                Err(Errno::EXIST) => {}
                done => return done,
            }
        }
    }
}

fn open_directory(parent: BorrowedFd<'_>, name: &CStr) -> Result<OwnedFd, Errno> {
    openat2(
        parent,
        name,
        OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC,
        Mode::empty(),
        ResolveFlags::BENEATH
            | ResolveFlags::NO_SYMLINKS
            | ResolveFlags::NO_MAGICLINKS
            | ResolveFlags::NO_XDEV,
    )
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::symlink;

    use rustix::fs::{CWD, mkdirat, openat};

    use super::*;

    fn temporary(name: &str) -> std::path::PathBuf {
        let path = std::env::temp_dir().join(format!("coracle-remove-{name}-{}", std::process::id()));
        fs::create_dir(&path).unwrap();
        path
    }

    fn open(path: &std::path::Path) -> OwnedFd {
        openat(CWD, path, OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty()).unwrap()
    }

    #[test]
    fn links_are_removed_not_followed() {
        let base = temporary("links");
        fs::create_dir_all(base.join("outside/kept")).unwrap();
        fs::create_dir_all(base.join("tree/a/b")).unwrap();
        fs::write(base.join("tree/a/b/file"), "x").unwrap();
        symlink(base.join("outside"), base.join("tree/a/link")).unwrap();
        symlink("../../outside", base.join("tree/link")).unwrap();
        remove_tree(open(&base).as_fd(), OsStr::new("tree")).unwrap();
        assert!(!base.join("tree").exists());
        assert!(base.join("outside/kept").exists());
        remove_tree(open(&base).as_fd(), OsStr::new("tree")).unwrap();
        for bad in ["..", ".", "", "a/b"] {
            assert!(remove_tree(open(&base).as_fd(), OsStr::new(bad)).is_err());
        }
        symlink("outside", base.join("only-a-link")).unwrap();
        remove_tree(open(&base).as_fd(), OsStr::new("only-a-link")).unwrap();
        assert!(base.join("outside/kept").exists());
        empty_directory(open(&base).as_fd()).unwrap();
        fs::remove_dir(base).unwrap();
    }

    #[test]
    fn a_tree_deeper_than_descriptors_and_paths() {
        let base = temporary("deep");
        let mut at = open(&base);
        for _ in 0..5000 {
            mkdirat(&at, "d", Mode::from_raw_mode(0o700)).unwrap();
            mkdirat(&at, "e", Mode::from_raw_mode(0)).unwrap();
            at = openat(&at, "d", OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty()).unwrap();
        }
        drop(at);
        remove_tree(open(&base).as_fd(), OsStr::new("d")).unwrap();
        assert!(!base.join("d").exists());
        empty_directory(open(&base).as_fd()).unwrap();
        fs::remove_dir(base).unwrap();
    }
}

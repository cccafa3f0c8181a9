//! Resolving paths beneath the container's root.
//!
//! Whatever the image or a volume put on the way, a path ends inside the root: the kernel resolves it
//! (`RESOLVE_IN_ROOT`), magic links of procfs are never followed, and what is missing is made one name at
//! a time in directories held by descriptor, so that swapping a directory for a link meanwhile leads
//! nowhere.

use std::ffi::{OsStr, OsString};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::{Component, Path};

use coracle_linux::open_beneath;
use rustix::fs::{FileType, Mode, OFlags, ResolveFlags, Stat, fstat, mkdirat, readlinkat};
use rustix::io::Errno;

/// As many symbolic links as the kernel follows in one path (`MAXSYMLINKS`).
const MAX_LINKS: u32 = 40;

/// How often a resolution that raced with a rename is tried again before it is given up.
const MAX_RACES: u32 = 128;

/// Whether symbolic links on the way are followed, beneath the root.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Links {
    Follow,
    Refuse,
}

/// What a missing mount point is made as.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    Directory,
    File,
}

/// A directory that is the root of every path given to it.
#[derive(Debug)]
pub(crate) struct Root {
    directory: OwnedFd,
    stat: Stat,
}

impl Root {
    pub(crate) fn new(directory: OwnedFd) -> Result<Self, Errno> {
        let stat = fstat(&directory)?;
        Ok(Self { directory, stat })
    }

    /// Whether this is the root itself.
    pub(crate) fn is(&self, stat: &Stat) -> bool {
        stat.st_dev == self.stat.st_dev && stat.st_ino == self.stat.st_ino
    }

    /// Opens what is there.
    pub(crate) fn open(&self, path: &Path, flags: OFlags, links: Links) -> Result<OwnedFd, Errno> {
        let resolve = ResolveFlags::IN_ROOT | ResolveFlags::NO_MAGICLINKS | refusal(links);
        open_beneath(self.directory.as_fd(), path.as_os_str(), flags, resolve)
    }

    /// Opens (`O_PATH`) what is there, or makes it and every directory missing on the way. A link to
    /// nothing is followed, and what it names is made, beneath the root.
    pub(crate) fn ensure(&self, path: &Path, kind: Kind, links: Links) -> Result<OwnedFd, Errno> {
        match self.open(path, OFlags::PATH, links) {
            Err(Errno::NOENT) => self.create(path, kind, links),
            result => result,
        }
    }

    fn create(&self, path: &Path, kind: Kind, links: Links) -> Result<OwnedFd, Errno> {
        let mut pending = components(path);
        let mut directories: Vec<OwnedFd> = Vec::new();
        let mut followed = 0;
        let mut raced = 0;
        while let Some(name) = pending.pop() {
            if name == ".." {
                directories.pop();
                continue;
            }
            let parent = directories.last().unwrap_or(&self.directory).as_fd();
            // One name, not followed: an absolute or upward step is not possible.
            let resolve = ResolveFlags::BENEATH | ResolveFlags::NO_MAGICLINKS;
            match open_beneath(parent, &name, OFlags::PATH | OFlags::NOFOLLOW, resolve) {
                Ok(found) => match FileType::from_raw_mode(fstat(&found)?.st_mode) {
                    FileType::Directory => directories.push(found),
                    FileType::Symlink => {
                        followed += 1;
                        if links == Links::Refuse || followed > MAX_LINKS {
                            return Err(Errno::LOOP);
                        }
                        let target = readlinkat(&found, "", Vec::new())?.into_bytes();
                        let target = OsString::from_vec(target);
                        if target.as_bytes().starts_with(b"/") {
                            directories.clear();
                        }
                        pending.extend(components(Path::new(&target)));
                    }
                    _ if pending.is_empty() => return Ok(found),
                    _ => return Err(Errno::NOTDIR),
                },
                Err(Errno::NOENT) => {
                    raced += 1;
                    if raced > MAX_RACES {
                        return Err(Errno::AGAIN);
                    }
                    let kind = if pending.is_empty() { kind } else { Kind::Directory };
                    match make(parent, &name, kind) {
                        // Opened on the next turn: what is there by then is looked at like anything else.
                        Ok(()) | Err(Errno::EXIST) => pending.push(name),
                        Err(errno) => return Err(errno),
                    }
                }
                Err(errno) => return Err(errno),
            }
        }
        match directories.pop() {
            Some(directory) => Ok(directory),
            None => self.directory.try_clone().map_err(|_| Errno::MFILE),
        }
    }
}

impl AsFd for Root {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.directory.as_fd()
    }
}

fn make(parent: BorrowedFd<'_>, name: &OsStr, kind: Kind) -> Result<(), Errno> {
    match kind {
        Kind::Directory => mkdirat(parent, name, Mode::from_raw_mode(0o755)),
        Kind::File => {
            let flags = OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::WRONLY | OFlags::CLOEXEC;
            rustix::fs::openat(parent, name, flags, Mode::from_raw_mode(0o644)).map(drop)
        }
    }
}

fn refusal(links: Links) -> ResolveFlags {
    match links {
        Links::Follow => ResolveFlags::empty(),
        Links::Refuse => ResolveFlags::NO_SYMLINKS,
    }
}

/// The names of a path, last first.
fn components(path: &Path) -> Vec<OsString> {
    path.components()
        .rev()
        .filter_map(|component| match component {
            Component::Normal(name) => Some(name.to_owned()),
            Component::ParentDir => Some(OsString::from("..")),
            Component::RootDir | Component::CurDir | Component::Prefix(_) => None,
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;
    use std::os::unix::fs::symlink;

    /// A root with a sibling that must stay as it is.
    fn root() -> (tempfile::TempDir, Root) {
        let directory = tempfile::tempdir().unwrap();
        fs::create_dir_all(directory.path().join("root/etc")).unwrap();
        fs::create_dir(directory.path().join("outside")).unwrap();
        let flags = OFlags::PATH | OFlags::DIRECTORY;
        let root = rustix::fs::open(directory.path().join("root"), flags, Mode::empty()).unwrap();
        (directory, Root::new(root).unwrap())
    }

    fn ensure(root: &Root, path: &str, kind: Kind) -> Result<OwnedFd, Errno> {
        root.ensure(Path::new(path), kind, Links::Follow)
    }

    #[test]
    fn missing_directories_and_files_are_made() {
        let (directory, root) = root();
        ensure(&root, "/a/b/c", Kind::Directory).unwrap();
        ensure(&root, "/a/b/f", Kind::File).unwrap();
        assert!(directory.path().join("root/a/b/c").is_dir());
        assert!(directory.path().join("root/a/b/f").is_file());
    }

    #[test]
    fn links_lead_nowhere_but_beneath_the_root() {
        let (directory, root) = root();
        let outside = directory.path().join("outside");
        symlink("../../../outside/x", directory.path().join("root/upward")).unwrap();
        symlink(&outside, directory.path().join("root/absolute")).unwrap();
        symlink("upward", directory.path().join("root/twice")).unwrap();
        for path in ["/upward", "/absolute/deep", "/twice/more", "/../../outside/y", "/etc/../../outside/z"] {
            ensure(&root, path, Kind::Directory).unwrap();
        }
        assert_eq!(fs::read_dir(&outside).unwrap().count(), 0);
        for made in ["outside/x/more", "outside/y", "outside/z"] {
            assert!(directory.path().join("root").join(made).is_dir(), "{made}");
        }
    }

    #[test]
    fn a_file_behind_a_dangling_link_is_made_where_it_points() {
        let (directory, root) = root();
        symlink("../run/resolve/stub.conf", directory.path().join("root/etc/resolv.conf")).unwrap();
        ensure(&root, "/etc/resolv.conf", Kind::File).unwrap();
        assert!(directory.path().join("root/run/resolve/stub.conf").is_file());
    }

    #[test]
    fn links_in_a_circle_end() {
        let (directory, root) = root();
        symlink("b", directory.path().join("root/a")).unwrap();
        symlink("a", directory.path().join("root/b")).unwrap();
        assert_eq!(ensure(&root, "/a/x", Kind::Directory).unwrap_err(), Errno::LOOP);
    }

    #[test]
    fn links_are_refused_where_they_are_not_wanted() {
        let (directory, root) = root();
        symlink("etc", directory.path().join("root/proc")).unwrap();
        symlink("nothing", directory.path().join("root/dangling")).unwrap();
        for path in ["/proc", "/proc/x", "/dangling", "/dangling/x"] {
            let result = root.ensure(Path::new(path), Kind::Directory, Links::Refuse);
            assert_eq!(result.unwrap_err(), Errno::LOOP, "{path}");
        }
        assert!(!directory.path().join("root/nothing").exists());
    }

    #[test]
    fn a_file_on_the_way_is_an_error() {
        let (directory, root) = root();
        fs::write(directory.path().join("root/file"), "").unwrap();
        assert_eq!(ensure(&root, "/file/x", Kind::Directory).unwrap_err(), Errno::NOTDIR);
    }

    #[test]
    fn the_root_itself_is_recognised() {
        let (_directory, root) = root();
        for path in ["/", "/..", "/etc/.."] {
            let found = ensure(&root, path, Kind::Directory).unwrap();
            assert!(root.is(&fstat(&found).unwrap()), "{path}");
        }
    }
}

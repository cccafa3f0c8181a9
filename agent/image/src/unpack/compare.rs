//! Whether a directory is what another is, in all but the content of files: names, kinds, owners, modes, sizes, times,
//! targets, devices, extended attributes, and which names are one file.

use std::collections::HashMap;
use std::os::fd::OwnedFd;

use rustix::fs::{
    AtFlags, Dir, FileType, Mode, OFlags, ResolveFlags, Stat, fstat, major, minor, openat2, readlinkat,
    statat,
};
use rustix::io::Errno;

use super::attributes::read_xattrs;
use super::entry::{Fault, Xattrs, printable};

/// No more differences than these are told of one directory: who mends them sees the next.
const MOST: usize = 20;

/// Compares `found` with `expected`; what is different, for people. Times that are not before `began` say when something
/// was made, and are not compared.
pub(crate) fn compare(found: &OwnedFd, expected: &OwnedFd, began: i64) -> Result<Vec<String>, Fault> {
    let mut compared = Compared { found, expected, began, links: HashMap::new(), problems: Vec::new() };
    let root = |root: &OwnedFd| fstat(root).map_err(Fault::write("look at", b"."));
    compared.entry(b".", &root(found)?, &root(expected)?)?;
    let mut pending = vec![Vec::new()];
    while let Some(directory) = pending.pop() {
        compared.directory(&directory, &mut pending)?;
    }
    Ok(compared.problems)
}

struct Compared<'a> {
    found: &'a OwnedFd,
    expected: &'a OwnedFd,
    began: i64,
    /// Files of several names: the one that is found, and the one that is expected.
    links: HashMap<u64, u64>,
    problems: Vec<String>,
}

// === impl Compared ===

impl Compared<'_> {
    /// Compares what a directory has; those in it that both have come to `pending`.
    fn directory(&mut self, path: &[u8], pending: &mut Vec<Vec<u8>>) -> Result<(), Fault> {
        let failed = |step| Fault::write::<Errno>(step, path);
        let open = |root: &OwnedFd| open(root, path, OFlags::RDONLY | OFlags::DIRECTORY);
        let found = open(self.found).map_err(failed("open"))?;
        let expected = open(self.expected).map_err(failed("open what was made again of"))?;
        let mut left = names(&found).map_err(failed("list"))?.into_iter().peekable();
        for name in names(&expected).map_err(failed("list what was made again of"))? {
            while let Some(more) = left.next_if(|more| *more < name) {
                self.problem(&join(path, &more), "was not there");
            }
            let at = join(path, &name);
            if left.next_if_eq(&name).is_none() {
                self.problem(&at, "is missing");
                continue;
            }
            let stat = |directory: &OwnedFd| {
                statat(directory, name.as_slice(), AtFlags::SYMLINK_NOFOLLOW)
                    .map_err(Fault::write("look at", &at))
            };
            if self.entry(&at, &stat(&found)?, &stat(&expected)?)? {
                pending.push(at);
            }
        }
        for more in left {
            self.problem(&join(path, &more), "was not there");
        }
        Ok(())
    }

    /// Compares one; whether both are directories.
    fn entry(&mut self, path: &[u8], found: &Stat, expected: &Stat) -> Result<bool, Fault> {
        let kind = FileType::from_raw_mode(expected.st_mode);
        if FileType::from_raw_mode(found.st_mode) != kind {
            self.problem(path, "is something else");
            return Ok(false);
        }
        let mode = |stat: &Stat| format!("{:04o}", stat.st_mode & 0o7777);
        let owner = |stat: &Stat| format!("{}:{}", stat.st_uid, stat.st_gid);
        let mut facts = vec![("mode", mode(found), mode(expected)), ("owner", owner(found), owner(expected))];
        if expected.st_mtime < self.began {
            let time = |stat: &Stat| format!("{}.{:09}", stat.st_mtime, stat.st_mtime_nsec);
            facts.push(("time", time(found), time(expected)));
        }
        match kind {
            FileType::Directory => {}
            FileType::CharacterDevice | FileType::BlockDevice => {
                let device = |stat: &Stat| format!("{}:{}", major(stat.st_rdev), minor(stat.st_rdev));
                facts.push(("device", device(found), device(expected)));
            }
            FileType::Symlink => {
                let target = |root| target(root, path).map_err(Fault::write("read the link", path));
                let shown = |root| target(root).map(|target| printable(&target));
                facts.push(("target", shown(self.found)?, shown(self.expected)?));
            }
            _ => facts.push(("size", found.st_size.to_string(), expected.st_size.to_string())),
        }
        if kind != FileType::Directory {
            facts.push(("names to the number of", found.st_nlink.to_string(), expected.st_nlink.to_string()));
        }
        for (what, found, expected) in facts.into_iter().filter(|(_, found, expected)| found != expected) {
            self.problem(path, &format!("has {what} {found}, and came with {expected}"));
        }
        if kind != FileType::Directory && found.st_nlink > 1 {
            let known = *self.links.entry(found.st_ino).or_insert(expected.st_ino);
            if known != expected.st_ino {
                self.problem(path, "is another name of a file than it was");
            }
        }
        if matches!(kind, FileType::Directory | FileType::RegularFile) {
            let xattrs = |root| {
                open(root, path, OFlags::RDONLY | OFlags::NONBLOCK)
                    .and_then(|file| read_xattrs(&file))
                    .map_err(Fault::write("read the extended attributes of", path))
            };
            let (found, expected) = (xattrs(self.found)?, xattrs(self.expected)?);
            if found != expected {
                let names = format!(
                    "has other extended attributes ({}) than it came with ({})",
                    listed(&found),
                    listed(&expected)
                );
                self.problem(path, &names);
            }
        }
        Ok(kind == FileType::Directory)
    }

    fn problem(&mut self, path: &[u8], what: &str) {
        if self.problems.len() < MOST {
            self.problems.push(format!("{:?} {what}", printable(path)));
        }
    }
}

/// What is at a path, which has no links.
fn open(root: &OwnedFd, path: &[u8], flags: OFlags) -> Result<OwnedFd, Errno> {
    let path = if path.is_empty() { b"." } else { path };
    let flags = flags | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let resolve = ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS | ResolveFlags::NO_XDEV;
    openat2(root, path, flags, Mode::empty(), resolve)
}

fn target(root: &OwnedFd, path: &[u8]) -> Result<Vec<u8>, Errno> {
    // Of a link itself only a descriptor of it is had.
    let resolve = ResolveFlags::BENEATH | ResolveFlags::NO_XDEV;
    let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let link = openat2(root, path, flags, Mode::empty(), resolve)?;
    readlinkat(&link, "", Vec::new()).map(std::ffi::CString::into_bytes)
}

fn names(directory: &OwnedFd) -> Result<Vec<Vec<u8>>, Errno> {
    let mut names = Vec::new();
    for item in Dir::read_from(directory)? {
        let item = item?;
        let name = item.file_name().to_bytes();
        if !matches!(name, b"." | b"..") {
            names.push(name.to_vec());
        }
    }
    names.sort();
    Ok(names)
}

fn join(directory: &[u8], name: &[u8]) -> Vec<u8> {
    if directory.is_empty() { name.to_vec() } else { [directory, b"/", name].concat() }
}

fn listed(xattrs: &Xattrs) -> String {
    let names: Vec<_> = xattrs.iter().map(|(name, _)| String::from_utf8_lossy(name)).collect();
    if names.is_empty() { "none".to_owned() } else { names.join(", ") }
}

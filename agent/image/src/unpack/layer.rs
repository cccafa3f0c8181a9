//! Writing a layer's entries into its directory.
//!
//! **Invariant:** nothing outside the layer's directory is created, changed or read. Every path of the
//! archive is resolved beneath the directory by `openat2(2)`, with links taken as within it; the last
//! component is never followed. No other process can write there meanwhile.

use std::io::BufRead;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::rc::Rc;

use rustix::fs::{
    AtFlags, FileType, Gid, Mode, OFlags, ResolveFlags, Timestamps, Uid, XattrFlags, chmodat, chownat,
    fchmod, fsetxattr, fstat, ftruncate, linkat, makedev, mkdirat, mknodat, openat, readlinkat, statat,
    symlinkat, unlinkat, utimensat,
};
use rustix::io::{Errno, pwrite};

use super::attributes::{bequeaths, copy_attributes, copy_owner, disinherit, disinherit_node, dress, times};
use super::budget::Budget;
use super::deferred::Deferred;
use super::entry::{Entry, Fault, FileData, Kind};
use super::lost::Lost;
use super::lower::{Below, Lowers, OPAQUE, is_opaque, is_whiteout, open_directory};

const MAX_LINKS: usize = 40;
const MAX_PATH: usize = 4096;
pub(super) const WHITEOUT: &[u8] = b".wh.";

/// A layer being written.
pub(crate) struct LayerWriter<'a> {
    pub(super) root: OwnedFd,
    /// The layers below, from the top.
    pub(super) lowers: Lowers<'a>,
    budget: Budget<'a>,
    /// The directory of the entry before: archives list a directory's entries together.
    parent: Option<Parent>,
    deferred: Deferred<'a>,
    /// Whiteouts, of which some may hide nothing.
    whiteouts: Deferred<'a>,
    pub(super) root_is_opaque: bool,
    /// Whether some directory has a default ACL: what is made inherits it, though its own entry decides what it has.
    bequeathed: bool,
    lost: Lost<'a>,
}

/// The directory of an entry.
#[derive(Clone)]
struct Parent {
    /// As the archive has it.
    path: Rc<[u8]>,
    /// Without links.
    real: Rc<[u8]>,
    fd: Rc<OwnedFd>,
}

/// A file's content was written.
pub(crate) struct Written {
    /// Where, from the layer's root, without links: those may be others later.
    pub(crate) path: Vec<u8>,
    pub(crate) inode: u64,
}

impl<'a> LayerWriter<'a> {
    /// `root` is the layer's own, empty directory, in the directory `layer`; `lowers` are the layers below, from the top.
    pub(crate) fn new(root: OwnedFd, layer: BorrowedFd<'a>, lowers: Lowers<'a>, budget: Budget<'a>) -> Self {
        Self {
            root,
            lowers,
            budget,
            parent: None,
            deferred: Deferred::new(layer),
            whiteouts: Deferred::new(layer),
            root_is_opaque: false,
            bequeathed: false,
            lost: Lost::new(layer),
        }
    }

    /// Writes one entry; `data` gives a file's bytes. Answers with a file whose bytes were taken.
    pub(crate) fn apply(&mut self, entry: &Entry, data: &mut dyn BufRead) -> Result<Option<Written>, Fault> {
        self.budget.entry()?;
        if entry.path.len() > MAX_PATH || entry.path.contains(&0) {
            return Err(Fault::malformed(&entry.path, "has a name that no file can have"));
        }
        let components = clean(&entry.path);
        let Some((&name, parents)) = components.split_last() else {
            if entry.kind != Kind::Directory {
                return Err(Fault::malformed(&entry.path, "would replace the layer's root"));
            }
            let root = self.root.try_clone().map_err(Fault::write("open", b"/"))?;
            return self.dress_directory(&root, entry, b"").map(|()| None);
        };
        let parent_path = parents.join(&b'/');
        let Parent { fd: parent, real, .. } = self.parent(&parent_path, &entry.path)?;
        if let Some(hidden) = name.strip_prefix(WHITEOUT) {
            self.whiteout(&parent, parents.is_empty(), name, hidden, &entry.path)?;
            self.whiteouts.push(&join(&real, hidden), &times(0, 0))?;
            return Ok(None);
        }
        match &entry.kind {
            Kind::File(file) => {
                let path = join(&real, name);
                if path.len() >= MAX_PATH {
                    return Err(Fault::malformed(&entry.path, "lies deeper than anybody can name"));
                }
                let inode = self.file(&parent, name, entry, file, data)?;
                let has_content = !file.segments.is_empty();
                return Ok(has_content.then_some(Written { path, inode }));
            }
            Kind::Directory => self.directory(&parent, name, entry, components.join(&b'/')),
            Kind::Symlink(target) => {
                if target.is_empty() || target.len() >= MAX_PATH || target.contains(&0) {
                    return Err(Fault::malformed(&entry.path, "has a target that no link can have"));
                }
                self.create(&parent, name, entry, |parent| symlinkat(target.as_slice(), parent, name))?;
                self.dress_node(&parent, name, entry)
            }
            Kind::HardLink(target) => self.hard_link(&parent, name, entry, target),
            Kind::Char(0, 0) => {
                Err(Fault::malformed(&entry.path, "is character device 0:0, which is overlayfs' own mark"))
            }
            Kind::Char(major, minor) => {
                self.node(&parent, name, entry, FileType::CharacterDevice, (*major, *minor))
            }
            Kind::Block(major, minor) => {
                self.node(&parent, name, entry, FileType::BlockDevice, (*major, *minor))
            }
            Kind::Fifo => self.node(&parent, name, entry, FileType::Fifo, (0, 0)),
        }
        .map(|()| None)
    }

    /// Writes what had to wait for the last entry.
    pub(crate) fn finish(mut self) -> Result<(), Fault> {
        if self.root_is_opaque {
            self.hide_lower_roots()?;
        }
        self.parent = None;
        let mut whiteouts = std::mem::replace(&mut self.whiteouts, Deferred::new(self.lost.layer()));
        whiteouts.drain(|path, _| self.drop_idle(path))?;
        self.set_deferred_times()
    }

    // --- one kind of entry each ---

    fn file(
        &mut self,
        parent: &OwnedFd,
        name: &[u8],
        entry: &Entry,
        data: &FileData,
        input: &mut dyn BufRead,
    ) -> Result<u64, Fault> {
        // Before the first byte is written: an entry may claim any size.
        self.budget.bytes(data.stored())?;
        let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let mode = Mode::from_raw_mode(entry.mode & 0o777);
        let file = self.create(parent, name, entry, |parent| openat(parent, name, flags, mode))?;
        let failed = |step| Fault::write::<Errno>(step, &entry.path);
        let mut end = 0;
        for &(offset, length) in &data.segments {
            let mut at = offset;
            end = offset + length;
            while at < end {
                let buffer = input.fill_buf().map_err(Fault::Read)?;
                if buffer.is_empty() {
                    return Err(Fault::malformed(&entry.path, "is shorter than its header says"));
                }
                let most = usize::try_from(end - at).unwrap_or(usize::MAX);
                let written =
                    pwrite(&file, &buffer[..buffer.len().min(most)], at).map_err(failed("write"))?;
                input.consume(written);
                at += written as u64;
            }
        }
        if end < data.size {
            ftruncate(&file, data.size).map_err(failed("extend"))?;
        }
        let stat = fstat(&file).map_err(failed("look at"))?;
        dress(&file, &stat, entry)?;
        Ok(stat.st_ino)
    }

    fn directory(
        &mut self,
        parent: &OwnedFd,
        name: &[u8],
        entry: &Entry,
        path: Vec<u8>,
    ) -> Result<(), Fault> {
        let failed = |step| Fault::write::<Errno>(step, &entry.path);
        let mut opaque = false;
        let made = match mkdirat(parent, name, Mode::from_raw_mode(0o700)) {
            Err(Errno::EXIST) => match open_directory(parent, name) {
                // An entry met before, or a directory made for one: this entry says how it looks.
                Ok(known) => Some(known),
                Err(Errno::NOTDIR | Errno::LOOP) => {
                    opaque = self.remove(parent, name, &entry.path)?;
                    mkdirat(parent, name, Mode::from_raw_mode(0o700)).map_err(failed("create"))?;
                    None
                }
                Err(error) => return Err(failed("open")(error)),
            },
            result => {
                result.map_err(failed("create"))?;
                None
            }
        };
        let directory = match made {
            Some(known) => known,
            None => {
                let new = open_directory(parent, name).map_err(failed("open"))?;
                if self.bequeathed {
                    disinherit(&new).map_err(failed("set the ACL of"))?;
                }
                new
            }
        };
        if opaque {
            fsetxattr(&directory, OPAQUE, b"y", XattrFlags::empty()).map_err(failed("mark as opaque"))?;
        }
        self.dress_directory(&directory, entry, &path)
    }

    fn hard_link(
        &mut self,
        parent: &OwnedFd,
        name: &[u8],
        entry: &Entry,
        target: &[u8],
    ) -> Result<(), Fault> {
        let failed = |step| Fault::write::<Errno>(step, &entry.path);
        let no_target = || {
            let problem = format!(
                "is a hard link to {:?}, which this layer does not have",
                super::entry::printable(target)
            );
            Fault::malformed(&entry.path, &problem)
        };
        if target.len() > MAX_PATH || target.contains(&0) {
            return Err(no_target());
        }
        let components = clean(target);
        let Some((&target_name, target_parents)) = components.split_last() else { return Err(no_target()) };
        let target_parent = match open_beneath(&self.root, &target_parents.join(&b'/')) {
            Ok(fd) => fd,
            Err(Errno::NOENT | Errno::NOTDIR | Errno::LOOP) => return Err(no_target()),
            Err(error) => return Err(failed("open the target's directory of")(error)),
        };
        let stat = match statat(&target_parent, target_name, AtFlags::SYMLINK_NOFOLLOW) {
            Ok(stat) if is_whiteout(stat.st_mode, stat.st_rdev) => return Err(no_target()),
            Ok(stat) => stat,
            Err(Errno::NOENT) => return Err(no_target()),
            Err(error) => return Err(failed("look at the target of")(error)),
        };
        if FileType::from_raw_mode(stat.st_mode) == FileType::Directory {
            return Err(Fault::malformed(&entry.path, "is a hard link to a directory"));
        }
        if statat(parent, name, AtFlags::SYMLINK_NOFOLLOW)
            .is_ok_and(|own| (own.st_dev, own.st_ino) == (stat.st_dev, stat.st_ino))
        {
            return Ok(());
        }
        self.create(parent, name, entry, |parent| {
            // Without AT_SYMLINK_FOLLOW the link itself is linked.
            linkat(&target_parent, target_name, parent, name, AtFlags::empty())
        })
        .map_err(|fault| match fault {
            // Making room for the link may have removed its target's directory.
            Fault::Write { source, .. } if source.kind() == std::io::ErrorKind::NotFound => no_target(),
            fault => fault,
        })
    }

    fn node(
        &mut self,
        parent: &OwnedFd,
        name: &[u8],
        entry: &Entry,
        kind: FileType,
        (major, minor): (u32, u32),
    ) -> Result<(), Fault> {
        self.create(parent, name, entry, |parent| {
            mknodat(parent, name, kind, Mode::from_raw_mode(0o600), makedev(major, minor))
        })?;
        self.dress_node(parent, name, entry)?;
        // The node was just made and nobody else writes here: it is no link.
        chmodat(parent, name, Mode::from_raw_mode(entry.mode), AtFlags::empty())
            .map_err(Fault::write("set the mode of", &entry.path))
    }

    // --- paths ---

    /// The directory an entry is in; made, as the layers below have it, where it is missing.
    fn parent(&mut self, path: &[u8], entry: &[u8]) -> Result<Parent, Fault> {
        if let Some(known) = &self.parent
            && *known.path == *path
        {
            return Ok(known.clone());
        }
        // Mostly there is no link on the way, and the path is the real one.
        let (fd, real) = match open_with(&self.root, path, ResolveFlags::NO_SYMLINKS) {
            Ok(fd) => (fd, path.to_vec()),
            Err(_) => {
                let fd = match open_beneath(&self.root, path) {
                    Ok(fd) => fd,
                    Err(Errno::NOENT | Errno::NOTDIR) => self.make_parents(path, entry)?,
                    Err(error) => return Err(Fault::write("open the directory of", entry)(error)),
                };
                let real = self.place(&fd).map_err(Fault::write("find the directory of", entry))?;
                (fd, real.join(&b'/'))
            }
        };
        let parent = Parent { path: path.into(), real: real.into(), fd: Rc::new(fd) };
        self.parent = Some(parent.clone());
        Ok(parent)
    }

    /// Walks to a directory, making what is missing. What the layers below have at a missing place
    /// decides: a directory's attributes are copied, for the new one will be seen instead of it; a link
    /// is repeated and followed, for a directory over it would hide it.
    fn make_parents(&mut self, path: &[u8], entry: &[u8]) -> Result<OwnedFd, Fault> {
        let failed = |step| Fault::write::<Errno>(step, entry);
        let top = || open_directory(&self.root, b".").map_err(failed("open the root for"));
        let mut pending: Vec<Vec<u8>> = path.split(|b| *b == b'/').rev().map(<[u8]>::to_vec).collect();
        // The directories walked through, with whether they still show what is below them.
        let mut walked: Vec<(OwnedFd, Vec<u8>, bool)> = vec![(top()?, Vec::new(), true)];
        let mut links = 0;
        while let Some(name) = pending.pop() {
            match name.as_slice() {
                b"" | b"." => continue,
                b".." => {
                    walked.truncate((walked.len() - 1).max(1));
                    continue;
                }
                _ => {}
            }
            self.budget.entry()?;
            let Some((directory, _, shows_lower)) = walked.last() else { break };
            let shows_lower = *shows_lower;
            let stat = match statat(directory, name.as_slice(), AtFlags::SYMLINK_NOFOLLOW) {
                Ok(stat) => Some(stat),
                Err(Errno::NOENT) => None,
                Err(error) => return Err(failed("look at the directory of")(error)),
            };
            match stat.map(|stat| (FileType::from_raw_mode(stat.st_mode), stat)) {
                Some((FileType::Directory, _)) => {
                    let next = open_directory(directory, &name).map_err(failed("open the directory of"))?;
                    let shows = shows_lower && !is_opaque(&next);
                    walked.push((next, name, shows));
                }
                Some((FileType::Symlink, _)) => {
                    links += 1;
                    if links > MAX_LINKS {
                        return Err(failed("open the directory of")(Errno::LOOP));
                    }
                    let target = readlinkat(directory, name.as_slice(), Vec::new())
                        .map_err(failed("read the link to the directory of"))?
                        .into_bytes();
                    if target.starts_with(b"/") {
                        walked.truncate(1);
                    }
                    pending.extend(target.split(|b| *b == b'/').rev().map(<[u8]>::to_vec));
                }
                Some((_, stat)) if !is_whiteout(stat.st_mode, stat.st_rdev) => {
                    return Err(failed("open the directory of")(Errno::NOTDIR));
                }
                hidden => {
                    let is_hidden = hidden.is_some();
                    if is_hidden {
                        unlinkat(directory, name.as_slice(), AtFlags::empty())
                            .map_err(failed("replace a whiteout for"))?;
                    }
                    let mut at: Vec<Vec<u8>> = walked[1..].iter().map(|(_, name, _)| name.clone()).collect();
                    at.push(name.clone());
                    let below = if shows_lower && !is_hidden {
                        self.lowers.look_up(&at, entry)?
                    } else {
                        Below::Nothing
                    };
                    if let Below::Symlink(target, stat) = below {
                        symlinkat(target.as_slice(), directory, name.as_slice())
                            .and_then(|()| copy_owner(directory, &name, &stat))
                            .map_err(failed("repeat a link of the layer below for"))?;
                        pending.push(name);
                        continue;
                    }
                    mkdirat(directory, name.as_slice(), Mode::from_raw_mode(0o755))
                        .map_err(failed("create the directory of"))?;
                    let next = open_directory(directory, &name).map_err(failed("open the directory of"))?;
                    if self.bequeathed {
                        disinherit(&next).map_err(failed("set the ACL of the directory of"))?;
                    }
                    // umask does not count.
                    fchmod(&next, Mode::from_raw_mode(0o755)).map_err(failed("create the directory of"))?;
                    if is_hidden {
                        fsetxattr(&next, OPAQUE, b"y", XattrFlags::empty())
                            .map_err(failed("mark as opaque the directory of"))?;
                    }
                    if let Below::Directory(lower, stat) = below {
                        self.bequeathed |= copy_attributes(&lower, &next, &stat)
                            .map_err(failed("copy the attributes of the directory of"))?;
                        self.defer(&at.join(&b'/'), times(stat.st_mtime, stat.st_mtime_nsec as u32))?;
                    }
                    walked.push((next, name, shows_lower && !is_hidden));
                }
            }
        }
        walked.pop().map(|(fd, _, _)| fd).ok_or_else(|| failed("open the directory of")(Errno::NOENT))
    }

    /// Creates a node; what an earlier entry put there gives way.
    fn create<T>(
        &mut self,
        parent: &OwnedFd,
        name: &[u8],
        entry: &Entry,
        make: impl Fn(BorrowedFd<'_>) -> Result<T, Errno>,
    ) -> Result<T, Fault> {
        let made = match make(parent.as_fd()) {
            Err(Errno::EXIST) => {
                self.remove(parent, name, &entry.path)?;
                make(parent.as_fd())
            }
            made => made,
        };
        let made = made.map_err(Fault::write("create", &entry.path))?;
        // A further name has what the file has.
        if self.bequeathed && !matches!(entry.kind, Kind::HardLink(_) | Kind::Symlink(_)) {
            disinherit_node(parent.as_fd(), name).map_err(Fault::write("set the ACL of", &entry.path))?;
        }
        Ok(made)
    }

    /// Removes what an earlier entry made; whether that was a whiteout.
    fn remove(&mut self, parent: &OwnedFd, name: &[u8], path: &[u8]) -> Result<bool, Fault> {
        // The directory held may be one of those that go.
        self.parent = None;
        let stat = statat(parent, name, AtFlags::SYMLINK_NOFOLLOW).map_err(Fault::write("look at", path))?;
        self.lost.take(parent.as_fd(), name, &stat).map_err(Fault::write("replace", path))?;
        Ok(is_whiteout(stat.st_mode, stat.st_rdev))
    }

    // --- attributes ---

    fn dress_directory(&mut self, directory: &OwnedFd, entry: &Entry, path: &[u8]) -> Result<(), Fault> {
        let stat = fstat(directory).map_err(Fault::write("look at", &entry.path))?;
        dress(directory, &stat, entry)?;
        self.bequeathed |= bequeaths(entry);
        self.defer(path, times(entry.mtime.0, entry.mtime.1))
    }

    /// A node that cannot, or must not, be opened.
    fn dress_node(&mut self, parent: &OwnedFd, name: &[u8], entry: &Entry) -> Result<(), Fault> {
        let failed = |step| Fault::write::<Errno>(step, &entry.path);
        let (uid, gid) = (Uid::from_raw(entry.uid), Gid::from_raw(entry.gid));
        chownat(parent, name, Some(uid), Some(gid), AtFlags::SYMLINK_NOFOLLOW)
            .map_err(failed("set the owner of"))?;
        utimensat(parent, name, &times(entry.mtime.0, entry.mtime.1), AtFlags::SYMLINK_NOFOLLOW)
            .map_err(failed("set the time of"))
    }

    /// Entries written later change their directory's time, so it is set at the end.
    fn defer(&mut self, path: &[u8], times: Timestamps) -> Result<(), Fault> {
        self.deferred.push(path, &times).map_err(Fault::write("note the time of", path))
    }

    fn set_deferred_times(&mut self) -> Result<(), Fault> {
        let root = &self.root;
        self.deferred.drain(|path, times| match open_beneath(root, path) {
            Ok(fd) => {
                utimensat(&fd, "", &times, AtFlags::EMPTY_PATH).map_err(Fault::write("set the time of", path))
            }
            // A later entry put something else there.
            Err(Errno::NOENT | Errno::NOTDIR | Errno::LOOP) => Ok(()),
            Err(error) => Err(Fault::write("open", path)(error)),
        })
    }

    /// Waits until every layer below is there.
    pub(super) fn wait_for_lowers(&self) -> Result<(), Fault> {
        self.lowers.iter().try_for_each(|lower| lower.map(drop))
    }
}

/// A directory of the layer, for use as the start of further lookups.
pub(super) fn open_beneath(root: &OwnedFd, path: &[u8]) -> Result<OwnedFd, Errno> {
    open_with(root, path, ResolveFlags::empty())
}

fn open_with(root: &OwnedFd, path: &[u8], resolve: ResolveFlags) -> Result<OwnedFd, Errno> {
    let path = if path.is_empty() { b"." } else { path };
    let always = ResolveFlags::IN_ROOT | ResolveFlags::NO_MAGICLINKS | ResolveFlags::NO_XDEV;
    coracle_linux::open_beneath(root, path, OFlags::PATH | OFlags::DIRECTORY, always | resolve)
}

fn join(directory: &[u8], name: &[u8]) -> Vec<u8> {
    if directory.is_empty() { name.to_vec() } else { [directory, b"/", name].concat() }
}

/// The components of a path taken as within the root: `..` at the top stays there.
fn clean(path: &[u8]) -> Vec<&[u8]> {
    let mut components = Vec::new();
    for component in path.split(|b| *b == b'/') {
        match component {
            b"" | b"." => {}
            b".." => {
                components.pop();
            }
            name => components.push(name),
        }
    }
    components
}

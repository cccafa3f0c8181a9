//! Files that change together, as Kubernetes' atomic writer has them:
//!
//! ```text
//! ..2026_05_07_10_15_30.123456789/   the content
//! ..data -> ..2026_05_07_10_15_30.123456789
//! app.conf -> ..data/app.conf
//! conf.d   -> ..data/conf.d
//! ```
//!
//! New content is written into a directory of its own, and `..data` is renamed over: whoever opened the
//! directory through `..data` sees all of the old content or all of the new. Containers have the volume
//! read-only; even so nothing here follows a link, and every path is resolved beneath the volume.

use std::collections::BTreeSet;
use std::ffi::{CStr, OsStr};
use std::fs::File;
use std::io::{Read, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use coracle_linux::remove_tree;
use jiff::Timestamp;
use rustix::fs::{
    AtFlags, Dir, FileType, Gid, Mode, OFlags, ResolveFlags, fchmod, fchown, fstat, mkdirat, openat2,
    readlinkat, renameat, symlinkat, unlinkat,
};
use rustix::io::Errno;

use crate::VolumeError;
use crate::directory::enter;
use crate::memory::make_room;
use crate::payload::{Payload, PayloadFile};

const DATA: &str = "..data";
const NEW_DATA: &str = "..data_tmp";
/// Room beside the content: for directories that subPaths make, and what the kernel rounds up.
const SPARE_BYTES: u64 = 256 << 10;
const SPARE_INODES: u64 = 256;
/// Two directories of one name would have to be made within a nanosecond.
const MAX_TRIES: usize = 16;

/// Writes files into a volume.
pub(crate) struct AtomicWriter<'a> {
    /// The volume's root, on a tmpfs.
    pub(crate) volume: &'a OwnedFd,
    /// Where it is, for messages.
    pub(crate) path: &'a Path,
    /// The pod's `fsGroup`.
    pub(crate) group: Option<u32>,
}

/// Whether something was written into the volume.
pub(crate) fn is_written(volume: &OwnedFd) -> bool {
    current(volume).is_some()
}

impl AtomicWriter<'_> {
    /// Makes the volume hold these files and no others. Whether they were not there before; what an
    /// interrupted call has left is put in order in any case.
    pub(crate) fn write(&self, payload: &Payload) -> Result<bool, VolumeError> {
        let found = match current(self.volume) {
            Some(name) => self.holds(&name, payload)?.then_some(name),
            None => None,
        };
        if let Some(name) = found {
            self.tidy(payload, &name)?;
            return Ok(false);
        }
        self.remove_unfinished()?;
        self.reserve(payload)?;
        let name = self.make_directory()?;
        let written = self.fill(&name, payload).and_then(|()| self.swap(&name));
        if written.is_err() {
            // What cannot be removed now is when there is something to write again.
            let _ = remove_tree(self.volume.as_fd(), name.as_ref());
        }
        written?;
        self.tidy(payload, &name)?;
        Ok(true)
    }

    /// Whether a directory has exactly these files.
    fn holds(&self, name: &str, payload: &Payload) -> Result<bool, VolumeError> {
        let failed = self.failed("compare");
        let Ok(directory) = enter(self.volume, name.as_ref()) else { return Ok(false) };
        let mut paths = BTreeSet::new();
        let mut pending = vec![PathBuf::new()];
        while let Some(path) = pending.pop() {
            let below = if path.as_os_str().is_empty() { Path::new(".") } else { &path };
            for (name, kind) in self.list(&enter(&directory, below).map_err(&failed)?)? {
                let path = path.join(OsStr::from_bytes(name.as_bytes()));
                match kind {
                    FileType::Directory => pending.push(path),
                    _ => drop(paths.insert(path)),
                }
            }
        }
        if !paths.iter().map(PathBuf::as_path).eq(payload_paths(payload)) {
            return Ok(false);
        }
        for (path, wanted) in payload.files() {
            if !self.is_same(&directory, path, wanted).map_err(&failed)? {
                return Ok(false);
            }
        }
        Ok(true)
    }

    fn is_same(&self, directory: &OwnedFd, path: &str, wanted: &PayloadFile) -> Result<bool, Errno> {
        let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
        let file = openat2(directory, path, flags, Mode::empty(), BENEATH)?;
        let stat = fstat(&file)?;
        if FileType::from_raw_mode(stat.st_mode) != FileType::RegularFile
            || stat.st_mode & 0o7777 != self.file_mode(wanted)
            || u64::try_from(stat.st_size) != Ok(wanted.content.len() as u64)
        {
            return Ok(false);
        }
        let mut content = Vec::with_capacity(wanted.content.len());
        File::from(file).read_to_end(&mut content).map_err(|error| errno(&error))?;
        Ok(*content == *wanted.content)
    }

    /// Sets the limits of the tmpfs to what it holds and what is to come.
    fn reserve(&self, payload: &Payload) -> Result<(), VolumeError> {
        let page = rustix::param::page_size() as u64;
        let pages = payload.files().map(|(_, file)| (file.content.len() as u64).div_ceil(page));
        let bytes = pages.sum::<u64>().saturating_mul(page).saturating_add(SPARE_BYTES);
        let inodes = (payload.len() + payload.directories().len() + payload.visible().len()) as u64;
        make_room(self.volume, bytes, inodes + SPARE_INODES).map_err(self.failed("make room in"))
    }

    fn make_directory(&self) -> Result<String, VolumeError> {
        let mut tries = 0;
        loop {
            let now = Timestamp::now();
            let name = format!(
                "..{}.{:09}",
                now.strftime("%Y_%m_%d_%H_%M_%S"),
                now.subsec_nanosecond().unsigned_abs()
            );
            match mkdirat(self.volume, &name, Mode::from_raw_mode(0o700)) {
                Ok(()) => return Ok(name),
                Err(Errno::EXIST) if tries < MAX_TRIES => tries += 1,
                Err(error) => return Err(self.failed("create a directory in")(error)),
            }
        }
    }

    fn fill(&self, name: &str, payload: &Payload) -> Result<(), VolumeError> {
        let failed = self.failed("write to");
        let root = enter(self.volume, name.as_ref()).map_err(&failed)?;
        for path in payload.directories() {
            let (parent, name) = self.parent(&root, path).map_err(&failed)?;
            mkdirat(&parent, name, Mode::from_raw_mode(0o700)).map_err(&failed)?;
            let directory = enter(&parent, Path::new(name)).map_err(&failed)?;
            self.own(&directory, self.directory_mode()).map_err(&failed)?;
        }
        for (path, wanted) in payload.files() {
            let (parent, name) = self.parent(&root, path).map_err(&failed)?;
            let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
            let file = openat2(&parent, name, flags, Mode::from_raw_mode(0o600), BENEATH).map_err(&failed)?;
            let mut file = File::from(file);
            file.write_all(&wanted.content).map_err(|error| failed(errno(&error)))?;
            self.own(&file.into(), self.file_mode(wanted)).map_err(&failed)?;
        }
        // Nobody looks into it before it is complete.
        self.own(&root, self.directory_mode()).map_err(&failed)
    }

    /// Puts the new directory in the place of the old one.
    fn swap(&self, name: &str) -> Result<(), VolumeError> {
        let failed = self.failed("update");
        symlinkat(name, self.volume, NEW_DATA).map_err(&failed)?;
        renameat(self.volume, NEW_DATA, self.volume, DATA).map_err(&failed)
    }

    /// Makes the links that containers see, and removes those of what is gone, with the old content.
    fn tidy(&self, payload: &Payload, name: &str) -> Result<(), VolumeError> {
        let visible = payload.visible();
        for name in &visible {
            self.link(name).map_err(self.failed("make a link in"))?;
        }
        let mut kept: BTreeSet<String> = visible.into_iter().map(str::to_owned).collect();
        kept.extend([DATA.to_owned(), name.to_owned()]);
        self.remove_all_but(&kept)
    }

    fn link(&self, name: &str) -> Result<(), Errno> {
        let target = format!("{DATA}/{name}");
        match readlinkat(self.volume, name, Vec::new()) {
            Ok(found) if found.to_bytes() == target.as_bytes() => return Ok(()),
            Ok(_) => unlinkat(self.volume, name, AtFlags::empty())?,
            Err(Errno::NOENT) => {}
            // A directory that a subPath has made while there was no such file; the container keeps it.
            Err(Errno::INVAL) => {
                remove_tree(self.volume.as_fd(), name.as_ref()).map_err(|error| errno(&error))?
            }
            Err(error) => return Err(error),
        }
        symlinkat(&target, self.volume, name)
    }

    /// Removes what an interrupted call has left. What containers see stays as it is: they read it while the next
    /// content is being written.
    fn remove_unfinished(&self) -> Result<(), VolumeError> {
        let current = current(self.volume);
        self.remove(|name, _| name.starts_with("..") && name != DATA && Some(name) != current.as_deref())
    }

    /// Removes links and old content. Directories that subPaths have made stay: they are in use.
    fn remove_all_but(&self, kept: &BTreeSet<String>) -> Result<(), VolumeError> {
        self.remove(|name, kind| {
            (kind == FileType::Symlink || name.starts_with("..")) && !kept.contains(name)
        })
    }

    fn remove(&self, goes: impl Fn(&str, FileType) -> bool) -> Result<(), VolumeError> {
        for (name, kind) in self.list(self.volume)? {
            if goes(&name, kind) {
                remove_tree(self.volume.as_fd(), name.as_ref())
                    .map_err(|error| self.failed("remove old content from")(errno(&error)))?;
            }
        }
        Ok(())
    }

    fn list(&self, directory: &OwnedFd) -> Result<Vec<(String, FileType)>, VolumeError> {
        let failed = self.failed("list");
        let mut found = Vec::new();
        for entry in Dir::read_from(directory).map_err(&failed)? {
            let entry = entry.map_err(&failed)?;
            let name = utf8(entry.file_name());
            if !matches!(name.as_str(), "." | "..") {
                found.push((name, entry.file_type()));
            }
        }
        Ok(found)
    }

    fn parent<'p>(&self, root: &OwnedFd, path: &'p str) -> Result<(OwnedFd, &'p str), Errno> {
        let (parent, name) = path.rsplit_once('/').unwrap_or((".", path));
        Ok((enter(root, Path::new(parent))?, name))
    }

    /// Sets group and mode. The group first: a change of it takes bits off the mode.
    fn own(&self, file: &OwnedFd, mode: u32) -> Result<(), Errno> {
        if let Some(group) = self.group {
            fchown(file, None, Some(Gid::from_raw(group)))?;
        }
        fchmod(file, Mode::from_raw_mode(mode))
    }

    /// As the kubelet sets it on volumes that containers only read: the group may read.
    fn file_mode(&self, file: &PayloadFile) -> u32 {
        (file.mode & 0o777) | if self.group.is_some() { 0o440 } else { 0 }
    }

    fn directory_mode(&self) -> u32 {
        0o755 | if self.group.is_some() { 0o2000 } else { 0 }
    }

    fn failed(&self, step: &'static str) -> impl Fn(Errno) -> VolumeError {
        let path = self.path.to_owned();
        move |error| VolumeError::io(step, &path)(error)
    }
}

const BENEATH: ResolveFlags = ResolveFlags::BENEATH.union(ResolveFlags::NO_SYMLINKS);

/// The directory `..data` leads to, if it is one the writer made.
fn current(volume: &OwnedFd) -> Option<String> {
    let target = readlinkat(volume, DATA, Vec::new()).ok()?.into_string().ok()?;
    (target.starts_with("..") && target.len() > 2 && !target.contains('/')).then_some(target)
}

fn payload_paths(payload: &Payload) -> impl Iterator<Item = &Path> {
    // Paths sort by component, text does not.
    payload.files().map(|(path, _)| Path::new(path)).collect::<BTreeSet<_>>().into_iter()
}

fn utf8(name: &CStr) -> String {
    name.to_string_lossy().into_owned()
}

fn errno(error: &std::io::Error) -> Errno {
    Errno::from_io_error(error).unwrap_or(Errno::IO)
}

//! Replacing a file as a whole.
//!
//! It is written under another name beside the old one and renamed: whoever opens it has the one or the other, and a
//! writer that is killed has changed nothing. What it has left is in nobody's way, and goes with the next one.

use std::ffi::{OsStr, OsString};
use std::fs::{self, File};
use std::io::{self, Write};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use rustix::fs::{AtFlags, CWD, Mode, OFlags, fchmod, fsync, openat, renameat, unlinkat};
use rustix::io::Errno;

/// What a loss of power leaves of a file that was replaced shortly before.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PowerLoss {
    /// Perhaps a file that is torn: what it tells of does not outlast the machine either. No disk is waited for.
    MayTear,
    /// The old file or the new one, whole.
    OldOrNew,
    /// The new one, whole.
    New,
}

/// Why a file was not replaced.
#[derive(Debug, thiserror::Error)]
#[error("cannot {step} {}", path.display())]
pub struct ReplaceError {
    /// What failed.
    pub step: &'static str,
    /// On what: the file, the one beside it that is being written, or their directory.
    pub path: PathBuf,
    /// Why.
    pub source: io::Error,
}

/// A file that is being written and has not got its name yet. Dropped before [`NewFile::put_in_place`] it is removed.
#[derive(Debug)]
pub struct NewFile {
    /// As what it is written; `None` once it is in its place.
    temporary: Option<Name>,
    place: Name,
    file: File,
}

/// A name in a directory.
#[derive(Debug)]
struct Name {
    directory: OwnedFd,
    name: OsString,
    /// For people.
    path: PathBuf,
}

/// Replaces the file at `path`, or makes it, with exactly this mode whatever the umask. One writer at a time: two of
/// the same file take each other's away.
///
/// # Errors
/// [`ReplaceError`]; then the old file is there, or, where the directory could not be flushed, the new one.
pub fn replace_file(path: &Path, mode: u32, after: PowerLoss, content: &[u8]) -> Result<(), ReplaceError> {
    NewFile::create(path, mode)?.finish(content, after)
}

/// Whether this is the name of a file that was being written in place of another one by [`replace_file`]. Nobody needs it
/// once its writer is gone.
pub fn is_unfinished(name: &OsStr) -> bool {
    let name = name.as_bytes();
    name.len() > BEFORE.len() + AFTER.len() && name.starts_with(BEFORE) && name.ends_with(AFTER)
}

/// Removes a file. Whether it was there.
///
/// # Errors
/// It is there and cannot be removed.
pub fn remove_if_there(path: &Path) -> io::Result<bool> {
    match fs::remove_file(path) {
        Ok(()) => Ok(true),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
        Err(error) => Err(error),
    }
}

/// As [`remove_if_there`], and a loss of power does not bring it back.
///
/// # Errors
/// As [`remove_if_there`], or the directory cannot be flushed.
pub fn remove_durably(path: &Path) -> io::Result<bool> {
    let removed = remove_if_there(path)?;
    if removed {
        let name = Name::of(path)?;
        fsync(&name.directory)?;
    }
    Ok(removed)
}

/// How the name of a file begins that is being written, and how it ends: no reader of a directory takes it for one of its
/// own, by either.
const BEFORE: &[u8] = b".";
const AFTER: &[u8] = b".new";

// === impl NewFile ===

impl NewFile {
    /// One that will be at `path`, beside which it is written. See [`replace_file`].
    ///
    /// # Errors
    /// [`ReplaceError`].
    pub fn create(path: &Path, mode: u32) -> Result<Self, ReplaceError> {
        let place = Name::of(path).map_err(|source| failed("open the directory of", path, source))?;
        Self::beside(place, mode)
    }

    /// One that will be `name` in a directory, in which no path is looked up: neither name is followed if it is a link.
    /// The descriptor must be readable if the directory is to be flushed.
    ///
    /// # Errors
    /// [`ReplaceError`], whose path is the name.
    pub fn create_in(directory: BorrowedFd<'_>, name: &OsStr, mode: u32) -> Result<Self, ReplaceError> {
        let path = PathBuf::from(name);
        let directory = directory
            .try_clone_to_owned()
            .map_err(|source| failed("open the directory of", &path, source))?;
        match file_name(&path) {
            Ok(found) if found == name => {}
            Ok(_) => return Err(failed("write", &path, no_name())),
            Err(source) => return Err(failed("write", &path, source)),
        }
        Self::beside(Name { directory, name: name.to_owned(), path }, mode)
    }

    /// One that will be at `path` and is written at `temporary`, on the same file system.
    ///
    /// # Errors
    /// [`ReplaceError`].
    pub fn create_as(temporary: &Path, path: &Path, mode: u32) -> Result<Self, ReplaceError> {
        let named = |path| Name::of(path).map_err(|source| failed("open the directory of", path, source));
        Self::new(named(temporary)?, named(path)?, mode)
    }

    fn beside(place: Name, mode: u32) -> Result<Self, ReplaceError> {
        let name = [BEFORE, place.name.as_bytes(), AFTER].concat();
        let name = OsStr::from_bytes(&name).to_owned();
        let path = place.path.with_file_name(&name);
        let directory = place.directory.try_clone().map_err(|source| failed("create", &path, source))?;
        Self::new(Name { directory, name, path }, place, mode)
    }

    fn new(temporary: Name, place: Name, mode: u32) -> Result<Self, ReplaceError> {
        let file = temporary.create(mode).map_err(|errno| temporary.failed("create", errno))?;
        // From here on it is removed if anything fails.
        let new = Self { temporary: Some(temporary), place, file };
        match fchmod(&new.file, Mode::from_raw_mode(mode)) {
            Ok(()) => Ok(new),
            Err(errno) => Err(new.failed("set the mode of", errno.into())),
        }
    }

    /// What is written to.
    pub fn file(&mut self) -> &mut File {
        &mut self.file
    }

    /// Writes this and gives it its name. See [`NewFile::put_in_place`].
    ///
    /// # Errors
    /// [`ReplaceError`].
    pub fn finish(mut self, content: &[u8], after: PowerLoss) -> Result<(), ReplaceError> {
        self.write_all(content).map_err(|source| self.failed("write", source))?;
        self.put_in_place(after)
    }

    /// Gives it its name, in place of whatever file had it.
    ///
    /// # Errors
    /// [`ReplaceError`].
    pub fn put_in_place(mut self, after: PowerLoss) -> Result<(), ReplaceError> {
        if after != PowerLoss::MayTear {
            fsync(&self.file).map_err(|errno| self.failed("flush", errno.into()))?;
        }
        let Some(temporary) = self.temporary.take() else { return Ok(()) };
        let Name { directory, name, .. } = &self.place;
        if let Err(errno) = renameat(&temporary.directory, &temporary.name, directory, name) {
            self.temporary = Some(temporary);
            return Err(self.place.failed("rename the new file to", errno));
        }
        if after == PowerLoss::New {
            fsync(directory).map_err(|errno| self.place.failed("flush the directory of", errno))?;
        }
        Ok(())
    }

    fn failed(&self, step: &'static str, source: io::Error) -> ReplaceError {
        failed(step, &self.temporary.as_ref().unwrap_or(&self.place).path, source)
    }
}

impl Write for NewFile {
    fn write(&mut self, content: &[u8]) -> io::Result<usize> {
        self.file.write(content)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.file.flush()
    }
}

impl Drop for NewFile {
    fn drop(&mut self) {
        if let Some(Name { directory, name, .. }) = &self.temporary {
            // It may fill a disk up that has no room for it. One that stays is replaced by the next.
            let _ = unlinkat(directory, name, AtFlags::empty());
        }
    }
}

// === impl Name ===

impl Name {
    fn of(path: &Path) -> io::Result<Self> {
        let name = file_name(path)?.to_owned();
        let parent = path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let directory = openat(CWD, parent, flags, Mode::empty())?;
        Ok(Self { directory, name, path: path.to_owned() })
    }

    /// Makes it anew: one that is there is of a writer that was killed, may be open elsewhere, and has a mode of its own.
    fn create(&self, mode: u32) -> Result<File, Errno> {
        let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let create = || openat(self.directory.as_fd(), &self.name, flags, Mode::from_raw_mode(mode));
        let created = match create() {
            Err(Errno::EXIST) => {
                unlinkat(&self.directory, &self.name, AtFlags::empty())?;
                create()
            }
            created => created,
        };
        created.map(File::from)
    }

    fn failed(&self, step: &'static str, errno: Errno) -> ReplaceError {
        failed(step, &self.path, errno.into())
    }
}

/// The last name of a path that can be a file's.
fn file_name(path: &Path) -> io::Result<&OsStr> {
    path.file_name().ok_or_else(no_name)
}

fn no_name() -> io::Error {
    io::Error::new(io::ErrorKind::InvalidInput, "this is no name of a file")
}

fn failed(step: &'static str, path: &Path, source: io::Error) -> ReplaceError {
    ReplaceError { step, path: path.to_owned(), source }
}

// === impl ReplaceError ===

impl From<ReplaceError> for io::Error {
    /// One of the same kind that says it all in one line: for whoever has a place for an [`io::Error`].
    fn from(error: ReplaceError) -> Self {
        let ReplaceError { step, path, source } = &error;
        Self::new(source.kind(), format!("cannot {step} {}: {source}", path.display()))
    }
}

#[cfg(test)]
mod tests;

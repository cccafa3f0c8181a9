//! Directories to work in, and what dead processes left of theirs.

use std::ffi::OsStr;
use std::fs::File;
use std::io;
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};

use coracle_linux::{empty_directory, remove_tree};
use rustix::fs::{FlockOperation, flock};

use super::remove::Deleted;
use super::usage::disk_usage;
use super::{Store, file_names, make_directory, open_directory, retry_flock};
use crate::ImageError;
use crate::incoming::{is_at, may_be_taken_up};

impl Store {
    /// A directory to work in. What dead processes left is removed on the way.
    pub(crate) fn temporary(&self) -> Result<Temporary, ImageError> {
        let parent = self.root.join("tmp");
        self.remove_abandoned()?;
        let path = parent.join(uuid::Uuid::new_v4().simple().to_string());
        // Under the lock, so that nobody takes it for abandoned before it is locked.
        let _lock = self.lock(FlockOperation::LockShared)?;
        make_directory(&path, 0o700)?;
        let held = File::open(&path).map_err(ImageError::store("open", &path))?;
        retry_flock(held.as_fd(), FlockOperation::LockExclusive).map_err(ImageError::store("lock", &path))?;
        Ok(Temporary { path, held: Some(held) })
    }

    /// Removes what dead processes left, and finished layers that nobody went on with for a day.
    pub(crate) fn remove_abandoned(&self) -> Result<(), ImageError> {
        self.sweep(|path| !may_be_taken_up(path)).map(drop)
    }

    /// As [`Store::remove_abandoned`]; which finished layers are to go, `is_stale` says.
    pub(crate) fn sweep(&self, is_stale: impl Fn(&Path) -> bool) -> Result<Deleted, ImageError> {
        let parent = &self.root.join("tmp");
        let at = open_directory(parent)?;
        // Nobody makes a directory, or writes a record, between its creation and its lock meanwhile. If
        // somebody is at it, the next import cleans up.
        let path = self.root.join("lock");
        let Ok(lock) = File::open(&path) else { return Ok(Deleted::default()) };
        if flock(&lock, FlockOperation::NonBlockingLockExclusive).is_err() {
            return Ok(Deleted::default());
        }
        let mut abandoned = Vec::new();
        for name in file_names(parent)? {
            let entry = parent.join(&name);
            let Ok(file) = File::open(&entry) else { continue };
            if name.starts_with("file-") {
                // A record in the making is not locked, and takes no hour.
                let age = file.metadata().and_then(|data| data.modified()).map(|time| time.elapsed());
                if matches!(age, Ok(Ok(age)) if age.as_secs() > 3600) {
                    abandoned.push((name, file));
                }
            } else if flock(&file, FlockOperation::NonBlockingLockExclusive).is_ok()
                // Else somebody has removed it while it was looked at, and what has its name now is in use.
                && is_at(&file, &entry)?
                && (!name.starts_with("layer-") || is_stale(&entry))
            {
                abandoned.push((name, file));
            }
        }
        // The lock of each is held while it goes, and that of the store is not.
        drop(lock);
        let mut deleted = Deleted::default();
        for (name, _held) in abandoned {
            // That it cannot be measured keeps nobody from removing it.
            deleted.bytes += disk_usage(&parent.join(&name)).unwrap_or(0);
            deleted.count += 1;
            if let Err(error) = remove_tree(at.as_fd(), OsStr::new(&name)) {
                tracing::warn!(name, %error, "an abandoned directory of the image store cannot be removed");
            }
        }
        Ok(deleted)
    }
}

/// A directory in `tmp`, held by this process.
pub(crate) struct Temporary {
    pub(crate) path: PathBuf,
    /// `None` when it is somebody else's.
    held: Option<File>,
}

impl Temporary {
    /// Removes it now, and says what failed.
    pub(crate) fn remove(self) -> Result<(), ImageError> {
        self.clear().map_err(ImageError::store("remove", &self.path))
    }

    /// Removes what is in it.
    pub(crate) fn clear_now(&self) -> Result<(), ImageError> {
        let directory = open_directory(&self.path)?;
        empty_directory(directory.as_fd()).map_err(ImageError::store("empty", &self.path))
    }

    /// Gives it away, with its lock: it is not removed here.
    pub(crate) fn give_away(mut self) -> (PathBuf, Option<File>) {
        (self.path.clone(), self.held.take())
    }

    fn clear(&self) -> io::Result<()> {
        if self.held.is_none() {
            return Ok(());
        }
        let (Some(parent), Some(name)) = (self.path.parent(), self.path.file_name()) else { return Ok(()) };
        remove_tree(File::open(parent)?.as_fd(), name)
    }
}

impl Drop for Temporary {
    fn drop(&mut self) {
        if let Err(error) = self.clear() {
            // The next import finds and removes it.
            tracing::debug!(path = %self.path.display(), %error, "a temporary directory stays");
        }
    }
}

//! Layers' directories under a lock.

use std::fs::{self, DirBuilder, File};
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::{DirBuilderExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use coracle_linux::{empty_directory, remove_tree};
use rustix::fs::{FlockOperation, flock};
use rustix::io::Errno;
use serde::{Deserialize, Serialize};

use super::make::Making;
use crate::store::{Layer, Temporary, boot_id, open_directory, read_record, retry_flock};
use crate::{Digest, ImageError, Store};

/// What nobody goes on with is of no use to anybody after this long.
pub(crate) const STALE: Duration = Duration::from_secs(24 * 3600);

/// A finished layer that nobody removes as long as this lives.
#[derive(Debug)]
pub(crate) struct HeldLayer {
    pub(crate) layer: Layer,
    pub(crate) diff: Arc<OwnedFd>,
    /// Where it was when it was taken: in the store, or in `tmp`.
    pub(crate) path: PathBuf,
    pub(crate) stored: bool,
    /// Whether it survives a loss of power where it is.
    pub(crate) flushed: bool,
    /// Its directory, under our lock.
    pub(super) lock: File,
}

/// `layer.json` of a layer that is finished, but not in the store yet.
#[derive(Serialize, Deserialize)]
pub(super) struct Finished {
    #[serde(flatten)]
    pub(super) layer: Layer,
    /// The boot it was finished in: until it is flushed, another has not seen all of it.
    pub(super) boot: String,
    pub(super) flushed: bool,
}

/// A layer that was wanted.
pub(crate) enum Acquired {
    Have(HeldLayer),
    Ours(Making),
}

impl Store {
    /// A layer of the store.
    pub(crate) fn hold_stored(&self, chain: &Digest) -> Result<Option<HeldLayer>, ImageError> {
        let path = self.layer_path(chain);
        let Some(lock) = open_locked(&path, FlockOperation::NonBlockingLockShared)? else { return Ok(None) };
        let layer = match read_record::<Layer>(&path.join("layer.json")) {
            Ok(Some(layer)) => layer,
            // It is made again, as one that is not there.
            Ok(None) | Err(ImageError::Record { .. }) => return Ok(None),
            Err(error) => return Err(error),
        };
        match open_directory(&path.join("diff")) {
            Ok(diff) => {
                Ok(Some(HeldLayer { layer, diff: Arc::new(diff), path, stored: true, flushed: true, lock }))
            }
            Err(ImageError::Store { source, .. }) if source.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// A layer that somebody has finished, and that is not in the store.
    pub(crate) fn hold_finished(&self, chain: &Digest) -> Result<Option<HeldLayer>, ImageError> {
        let path = self.making_path(chain);
        match open_locked(&path, FlockOperation::NonBlockingLockShared)? {
            Some(lock) => finished(&path, lock),
            None => Ok(None),
        }
    }

    /// Takes a layer that is there, or its place to make it; `None` while somebody else does.
    pub(crate) fn acquire(&self, chain: &Digest) -> Result<Option<Acquired>, ImageError> {
        if let Some(held) = self.hold_stored(chain)? {
            return Ok(Some(Acquired::Have(held)));
        }
        let path = self.making_path(chain);
        let lock = {
            // Nobody takes it for abandoned between its creation and its lock.
            let _lock = self.lock(FlockOperation::LockShared)?;
            match DirBuilder::new().mode(0o700).create(&path) {
                // Whoever has made that one may remove it at any time, which is looked at next.
                Err(error) if error.kind() != io::ErrorKind::AlreadyExists => {
                    return Err(ImageError::store("create", &path)(error));
                }
                _ => {}
            }
            open_locked(&path, FlockOperation::NonBlockingLockExclusive)?
        };
        let Some(lock) = lock else {
            return Ok(self.hold_finished(chain)?.map(Acquired::Have));
        };
        // Between the look at the store and the lock it may have been committed: a committed layer leaves `tmp`.
        if let Some(held) = self.hold_stored(chain)? {
            remove(&path)?;
            return Ok(Some(Acquired::Have(held)));
        }
        let again = lock.try_clone().map_err(ImageError::store("open", &path))?;
        if let Some(held) = finished(&path, again)? {
            return Ok(if held.share()? { Some(Acquired::Have(held)) } else { None });
        }
        // What one that was killed has left.
        empty_directory(lock.as_fd()).map_err(ImageError::store("empty", &path))?;
        Ok(Some(Acquired::Ours(Making { path, lock, chain: Some(*chain) })))
    }

    pub(crate) fn making_path(&self, chain: &Digest) -> PathBuf {
        self.root().join("tmp").join(format!("layer-{}", chain.hex()))
    }
}

// === impl HeldLayer ===

impl HeldLayer {
    /// A layer that was made in a directory of its maker's.
    pub(super) fn made_in(work: Temporary, layer: Layer) -> Result<Self, ImageError> {
        let record = work.path.join("layer.json");
        let json = serde_json::to_vec(&layer)
            .map_err(|error| ImageError::Record { path: record.clone(), problem: error.to_string() })?;
        fs::write(&record, json).map_err(ImageError::store("write", &record))?;
        let diff = Arc::new(open_directory(&work.path.join("diff"))?);
        let (path, lock) = work.give_away();
        let lock = match lock {
            Some(lock) => lock,
            None => File::open(&path).map_err(ImageError::store("open", &path))?,
        };
        Ok(Self { layer, diff, path, stored: false, flushed: false, lock })
    }

    /// From the lock of whoever makes it to that of many who count on it; whether it is still there.
    pub(super) fn share(&self) -> Result<bool, ImageError> {
        // The kernel gives up one before it gives the other, and another may come between; but whoever that is finds the
        // layer finished, and shares it as well.
        retry_flock(&self.lock, FlockOperation::LockShared).map_err(ImageError::store("lock", &self.path))?;
        is_at(&self.lock, &self.path)
    }

    /// Removes it, unless it is in the store or others count on it.
    pub(super) fn discard(&self) -> Result<(), ImageError> {
        if self.stored || flock(&self.lock, FlockOperation::NonBlockingLockExclusive).is_err() {
            return Ok(());
        }
        if is_at(&self.lock, &self.path)? { remove(&self.path) } else { Ok(()) }
    }
}

/// The layer in a directory, if it is whole.
fn finished(path: &Path, lock: File) -> Result<Option<HeldLayer>, ImageError> {
    let Some(Finished { layer, boot, flushed }) = finished_record(path) else { return Ok(None) };
    if !flushed && boot != boot_id()? {
        return Ok(None);
    }
    let diff = match open_directory(&path.join("diff")) {
        Ok(diff) => Arc::new(diff),
        // Whoever counts on it with us has committed it since its record was read.
        Err(ImageError::Store { source, .. }) if source.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(error),
    };
    Ok(Some(HeldLayer { layer, diff, path: path.to_owned(), stored: false, flushed, lock }))
}

/// Whether a directory in `tmp` has a layer that somebody may still go on with.
pub(crate) fn may_be_taken_up(path: &Path) -> bool {
    let Some(Finished { boot, flushed, .. }) = finished_record(path) else { return false };
    let age =
        fs::metadata(path.join("layer.json")).and_then(|data| data.modified()).map(|time| time.elapsed());
    // A time in the future is that of a clock that was set: it counts as now.
    let is_stale = matches!(age, Ok(Ok(age)) if age > STALE);
    !is_stale && (flushed || boot_id().is_ok_and(|now| now == boot))
}

/// Whether a finished layer in `tmp` is known to be on the disk.
pub(crate) fn is_flushed(path: &Path) -> bool {
    finished_record(path).is_some_and(|finished| finished.flushed)
}

/// After a loss of power it may be anything: what cannot be read was not finished.
fn finished_record(path: &Path) -> Option<Finished> {
    read_record(&path.join("layer.json")).ok().flatten()
}

/// A directory under a lock, if it is there and nobody has a lock that excludes ours.
pub(crate) fn open_locked(path: &Path, operation: FlockOperation) -> Result<Option<File>, ImageError> {
    let file = match File::open(path) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(ImageError::store("open", path)(error)),
    };
    match flock(&file, operation) {
        Ok(()) => Ok(is_at(&file, path)?.then_some(file)),
        Err(Errno::WOULDBLOCK | Errno::INTR) => Ok(None),
        Err(error) => Err(ImageError::store("lock", path)(error.into())),
    }
}

/// Whether an open directory is still the one at its path.
pub(crate) fn is_at(file: &File, path: &Path) -> Result<bool, ImageError> {
    let failed = ImageError::store("look at", path);
    match (file.metadata(), fs::symlink_metadata(path)) {
        (Ok(held), Ok(now)) => Ok((held.dev(), held.ino()) == (now.dev(), now.ino())),
        (Ok(_), Err(error)) if error.kind() == io::ErrorKind::NotFound => Ok(false),
        (Err(error), _) | (_, Err(error)) => Err(failed(error)),
    }
}

/// Removes a directory of `tmp`.
pub(super) fn remove(path: &Path) -> Result<(), ImageError> {
    let (Some(parent), Some(name)) = (path.parent(), path.file_name()) else { return Ok(()) };
    remove_tree(open_directory(parent)?.as_fd(), name).map_err(ImageError::store("remove", path))
}

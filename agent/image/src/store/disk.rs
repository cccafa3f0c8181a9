//! Records, locks and directories on disk.

use std::fs::{self, DirBuilder, File};
use std::io::{self, Read};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::{DirBuilderExt, MetadataExt};
use std::path::Path;

use coracle_linux::{NewFile, PowerLoss, remove_if_there};
use rustix::fs::{CWD, FlockOperation, Mode, OFlags, flock, openat};
use serde::Serialize;
use serde::de::DeserializeOwned;

use super::{MAX_DOCUMENT, Store};
use crate::ImageError;

impl Store {
    pub(crate) fn write_record<T: Serialize>(&self, path: &Path, record: &T) -> Result<(), ImageError> {
        let json = serde_json::to_vec(record)
            .map_err(|error| ImageError::Record { path: path.to_owned(), problem: error.to_string() })?;
        self.write_durably(path, &json)
    }

    /// Replaces an image's record, but not the time that says when it was last used.
    pub(super) fn rewrite_record<T: Serialize>(&self, path: &Path, record: &T) -> Result<(), ImageError> {
        let used = fs::metadata(path).and_then(|data| data.modified());
        self.write_record(path, record)?;
        used.and_then(|time| File::options().write(true).open(path)?.set_modified(time))
            .map_err(ImageError::store("set the time of", path))
    }

    /// Replaces a file: whoever reads it, after a crash too, sees the old content or the new.
    pub(crate) fn write_durably(&self, path: &Path, content: &[u8]) -> Result<(), ImageError> {
        let temporary = self.root.join("tmp").join(format!("file-{}", uuid::Uuid::new_v4().simple()));
        NewFile::create_as(&temporary, path, 0o600)
            .and_then(|new| new.finish(content, PowerLoss::New))
            .map_err(|error| ImageError::store("write", path)(error.into()))
    }

    pub(crate) fn unlink(&self, path: &Path) -> Result<(), ImageError> {
        remove_if_there(path).map(drop).map_err(ImageError::store("remove", path))
    }
}

pub(crate) fn retry_flock(file: impl AsFd, operation: FlockOperation) -> io::Result<()> {
    loop {
        match flock(&file, operation) {
            Err(rustix::io::Errno::INTR) => {}
            done => return done.map_err(io::Error::from),
        }
    }
}

pub(crate) fn make_directory(path: &Path, mode: u32) -> Result<(), ImageError> {
    match DirBuilder::new().recursive(true).mode(mode).create(path) {
        Ok(()) => Ok(()),
        Err(error) => Err(ImageError::store("create", path)(error)),
    }
}

pub(crate) fn open_directory(path: &Path) -> Result<OwnedFd, ImageError> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    openat(CWD, path, flags, Mode::empty()).map_err(|error| ImageError::store("open", path)(error.into()))
}

pub(crate) fn sync_directory(path: &Path) -> io::Result<()> {
    File::open(path)?.sync_all()
}

pub(crate) fn file_names(directory: &Path) -> Result<Vec<String>, ImageError> {
    let failed = |error| ImageError::store("list", directory)(error);
    let mut names = Vec::new();
    for entry in fs::read_dir(directory).map_err(failed)? {
        // Every name the store gives is ASCII; others are not its own.
        if let Ok(name) = entry.map_err(failed)?.file_name().into_string() {
            names.push(name);
        }
    }
    Ok(names)
}

/// A JSON document; `None` when there is none.
pub(crate) fn read_record<T: DeserializeOwned>(path: &Path) -> Result<Option<T>, ImageError> {
    let damaged = |problem: String| ImageError::Record { path: path.to_owned(), problem };
    let file = match File::open(path) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(ImageError::store("open", path)(error)),
    };
    let size = file.metadata().map_err(ImageError::store("look at", path))?.size();
    if size > MAX_DOCUMENT {
        return Err(damaged(format!("it has {size} bytes, at most {MAX_DOCUMENT} are possible")));
    }
    // One read takes it all: every record of the store is read while images are collected.
    let mut json = Vec::with_capacity(usize::try_from(size).unwrap_or_default());
    file.take(MAX_DOCUMENT).read_to_end(&mut json).map_err(ImageError::store("read", path))?;
    serde_json::from_slice(&json).map(Some).map_err(|error| damaged(error.to_string()))
}

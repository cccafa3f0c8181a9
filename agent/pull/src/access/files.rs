//! A directory of small JSON files, each whole or not there.

use std::fs::{self, DirBuilder};
use std::io;
use std::marker::PhantomData;
use std::os::unix::fs::{DirBuilderExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};

use coracle_linux::{PowerLoss, is_unfinished, remove_durably, replace_file};
use serde::Serialize;
use serde::de::DeserializeOwned;

use super::AccessError;

/// A directory of values of one type.
#[derive(Debug)]
pub(super) struct Directory<T> {
    path: PathBuf,
    of: PhantomData<fn() -> T>,
}

/// What is kept under a name.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Kept<T> {
    /// Nothing.
    Nothing,
    /// Something that cannot be understood.
    Torn,
    /// This.
    Whole(T),
}

// === impl Directory ===

impl<T: Serialize + DeserializeOwned> Directory<T> {
    /// Makes it if need be, for its owner alone, and removes what was not written to its end.
    pub(super) fn open(path: PathBuf) -> Result<Self, AccessError> {
        let this = Self { path, of: PhantomData };
        DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(&this.path)
            .and_then(|()| fs::set_permissions(&this.path, fs::Permissions::from_mode(0o700)))
            .map_err(|source| this.failed(source))?;
        for entry in fs::read_dir(&this.path).map_err(|source| this.failed(source))? {
            let entry = entry.map_err(|source| this.failed(source))?;
            if is_unfinished(&entry.file_name()) {
                let path = entry.path();
                fs::remove_file(&path).map_err(|source| AccessError::Write { path, source })?;
            }
        }
        Ok(this)
    }

    /// The names of the files.
    pub(super) fn list(&self) -> Result<Vec<String>, AccessError> {
        let entries = fs::read_dir(&self.path).map_err(|source| self.failed(source))?;
        let names = entries.map(|entry| entry.map(|entry| entry.file_name().into_string().ok()));
        // What is not text is not ours.
        let names: io::Result<Vec<_>> = names.collect();
        Ok(names.map_err(|source| self.failed(source))?.into_iter().flatten().collect())
    }

    /// Whether there is a file.
    pub(super) fn contains(&self, name: &str) -> Result<bool, AccessError> {
        let path = self.path.join(name);
        path.try_exists().map_err(|source| AccessError::Read { path, source })
    }

    /// What a file holds.
    pub(super) fn read(&self, name: &str) -> Result<Kept<T>, AccessError> {
        let path = self.path.join(name);
        match fs::read(&path) {
            Ok(bytes) => Ok(serde_json::from_slice(&bytes).map_or(Kept::Torn, Kept::Whole)),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Kept::Nothing),
            Err(source) => Err(AccessError::Read { path, source }),
        }
    }

    /// Has a file hold this, durably.
    pub(super) fn write(&self, name: &str, value: &T) -> Result<(), AccessError> {
        let path = self.path.join(name);
        let written = serde_json::to_vec(value).map_err(io::Error::from);
        written
            .and_then(|bytes| write_durably(&path, &bytes))
            .map_err(|source| AccessError::Write { path, source })
    }

    /// Removes a file, durably, if it is there.
    pub(super) fn remove(&self, name: &str) -> Result<(), AccessError> {
        let path = self.path.join(name);
        remove_durably(&path).map(drop).map_err(|source| AccessError::Write { path, source })
    }

    fn failed(&self, source: io::Error) -> AccessError {
        AccessError::Directory { path: self.path.clone(), source }
    }
}

/// Writes a file, durably, for its owner alone.
pub(super) fn write_durably(path: &Path, bytes: &[u8]) -> io::Result<()> {
    Ok(replace_file(path, 0o600, PowerLoss::New, bytes)?)
}

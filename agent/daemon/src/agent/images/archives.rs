//! The directory of archives: images that need no registry.
//!
//! What lies there when the agent starts is imported and pinned. What has not changed since it was imported is not read
//! again, which a file beside the store knows.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use coracle_image::{Digest, ImageError, ImportOptions, Pin, Store};
use coracle_linux::{PowerLoss, list_if_there, replace_file};
use serde::{Deserialize, Serialize};

/// The archives, and what was imported of them.
pub(crate) struct Archives {
    directory: PathBuf,
    record: PathBuf,
}

/// What cannot be imported, and why.
#[derive(Debug)]
pub(crate) struct Problem {
    pub(crate) path: PathBuf,
    pub(crate) problem: String,
}

/// What was imported, by path.
type Imported = BTreeMap<PathBuf, Archive>;

/// An archive that was imported, as it was then.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Archive {
    inode: u64,
    size: u64,
    modified: (i64, i64),
    images: BTreeSet<Digest>,
}

// === impl Archives ===

impl Archives {
    /// Those in `directory`; what was imported is noted in `record`.
    pub(crate) fn new(directory: PathBuf, record: PathBuf) -> Self {
        Self { directory, record }
    }

    /// Imports what is new, and takes the pins of what is gone. One that cannot be imported keeps none of the others
    /// from it. Blocks.
    ///
    /// # Errors
    /// The directory is there and cannot be read, or the store fails.
    pub(crate) fn import(&self, store: &Store) -> Result<Vec<Problem>, ImageError> {
        let known = self.read();
        let (mut imported, mut problems) = (Imported::new(), Vec::new());
        for path in self.paths()? {
            let found = match Archive::look_at(&path) {
                Ok(found) => found,
                Err(error) => {
                    problems.push(Problem { path, problem: error.to_string() });
                    continue;
                }
            };
            let archive = match known.get(&path).filter(|known| found.is_same(known)) {
                Some(known) if known.is_pinned(store, &path)? => known.clone(),
                _ => match found.import(store, &path) {
                    Ok(archive) => archive,
                    Err(error) => {
                        problems.push(Problem { path, problem: error.to_string() });
                        continue;
                    }
                },
            };
            imported.insert(path, archive);
        }
        unpin(store, |path, image| match imported.get(path) {
            Some(archive) => !archive.images.contains(&image),
            // One that is there and cannot be imported now keeps what was imported of it.
            None => is_gone(path),
        })?;
        if let Err(error) = self.write(&imported) {
            tracing::warn!(%error, "the archives of images are read again by the next agent");
        }
        Ok(problems)
    }

    fn paths(&self) -> Result<Vec<PathBuf>, ImageError> {
        let failed = |source| ImageError::Source { step: "list", path: self.directory.clone(), source };
        let entries = list_if_there(&self.directory).map_err(failed)?.into_iter();
        // What is being copied there has such a name.
        let hidden = |entry: &fs::DirEntry| entry.file_name().as_encoded_bytes().starts_with(b".");
        Ok(entries.filter(|entry| !hidden(entry)).map(|entry| entry.path()).collect())
    }

    fn read(&self) -> Imported {
        // Without it all is imported again, which finds every layer there.
        fs::read(&self.record).ok().and_then(|json| serde_json::from_slice(&json).ok()).unwrap_or_default()
    }

    fn write(&self, imported: &Imported) -> io::Result<()> {
        if imported.is_empty() && !self.record.exists() {
            return Ok(());
        }
        Ok(replace_file(&self.record, 0o600, PowerLoss::OldOrNew, &serde_json::to_vec(imported)?)?)
    }
}

/// Takes the pins of archives that are gone. Blocks.
pub(super) fn unpin_gone(store: &Store) -> Result<(), ImageError> {
    unpin(store, |path, _| is_gone(path))
}

fn unpin(store: &Store, is_over: impl Fn(&Path, Digest) -> bool) -> Result<(), ImageError> {
    for image in store.list()? {
        for pin in &image.pins {
            if let Pin::Archive(path) = pin
                && is_over(path, image.id)
            {
                store.unpin(&image.id, pin)?;
            }
        }
    }
    Ok(())
}

/// Whether it is not there, for all that can be told.
fn is_gone(path: &Path) -> bool {
    matches!(fs::symlink_metadata(path), Err(error) if error.kind() == io::ErrorKind::NotFound)
}

// === impl Archive ===

impl Archive {
    fn look_at(path: &Path) -> io::Result<Self> {
        let found = fs::metadata(path)?;
        let modified = (found.mtime(), found.mtime_nsec());
        Ok(Self { inode: found.ino(), size: found.size(), modified, images: BTreeSet::new() })
    }

    fn is_same(&self, known: &Self) -> bool {
        (self.inode, self.size, self.modified) == (known.inode, known.size, known.modified)
    }

    fn is_pinned(&self, store: &Store, path: &Path) -> Result<bool, ImageError> {
        for id in &self.images {
            let image = match store.get(id) {
                // What is damaged is imported again.
                Err(ImageError::Record { .. }) => None,
                found => found?,
            };
            let pinned = |pin: &Pin| matches!(pin, Pin::Archive(of) if of == path);
            if !image.is_some_and(|image| image.pins.iter().any(pinned)) {
                return Ok(false);
            }
        }
        // Of a directory nobody can tell whether it changed.
        Ok(!path.is_dir())
    }

    fn import(self, store: &Store, path: &Path) -> Result<Self, ImageError> {
        let options = ImportOptions { pin: Some(Pin::Archive(path.to_owned())), ..ImportOptions::default() };
        let images = store.import(path, &options)?;
        for image in &images {
            let names: Vec<_> = image.names.iter().map(ToString::to_string).collect();
            tracing::info!(archive = %path.display(), image = %image.image.id, names = names.join(" "), "imported an image");
        }
        Ok(Self { images: images.into_iter().map(|image| image.image.id).collect(), ..self })
    }
}

//! One import from its first layer to its record.

use std::fs::{self, DirBuilder, File, Permissions};
use std::io::{self, Write};
use std::os::fd::OwnedFd;
use std::os::unix::fs::{DirBuilderExt, MetadataExt, PermissionsExt};
use std::path::PathBuf;

use jiff::Timestamp;
use rustix::fs::{FlockOperation, syncfs};

use super::Imported;
use crate::store::{ImageRecord, Layer, Temporary, open_directory, sync_directory};
use crate::unpack::{Budget, Fault, LayerWriter, Limits};
use crate::{Digest, ImageError, ImageName, Store};

/// overlayfs stacks this many lower directories (`OVL_MAX_STACK`).
pub(crate) const MAX_LAYERS: usize = 500;

/// An import at work: layers are made in a directory of its own and appear in the store together.
pub(crate) struct Transaction<'a> {
    store: &'a Store,
    limits: Limits,
    work: Temporary,
    /// Lowest first, with whether it was made here.
    layers: Vec<(Layer, bool)>,
    /// Descriptors of the layers, the top-most first.
    directories: Vec<OwnedFd>,
}

/// What [`Transaction::commit`] found.
pub(crate) enum Committed {
    Done(Imported),
    /// A layer that was in the store is no more: another process removed its last image meanwhile.
    LayerGone,
}

impl<'a> Transaction<'a> {
    pub(crate) fn new(store: &'a Store, limits: Limits) -> Result<Self, ImageError> {
        let work = store.temporary()?;
        Ok(Self { store, limits, work, layers: Vec::new(), directories: Vec::new() })
    }

    fn below(&self) -> Option<Digest> {
        self.layers.last().map(|(layer, _)| layer.chain_id)
    }

    /// Adds the next layer if the store has it; whether it has.
    pub(crate) fn add_known(&mut self, diff_id: Digest) -> Result<bool, ImageError> {
        let chain_id = Digest::chain(self.below(), diff_id);
        let path = self.store.layer_path(&chain_id);
        let Ok(json) = fs::read(path.join("layer.json")) else { return Ok(false) };
        let record = path.join("layer.json");
        let layer: Layer = serde_json::from_slice(&json)
            .map_err(|error| ImageError::Record { path: record, problem: error.to_string() })?;
        let directory = match open_directory(&path.join("diff")) {
            Ok(directory) => directory,
            Err(ImageError::Store { source, .. }) if source.kind() == io::ErrorKind::NotFound => {
                return Ok(false);
            }
            Err(error) => return Err(error),
        };
        self.directories.insert(0, directory);
        self.layers.push((layer, false));
        Ok(true)
    }

    /// Makes the next layer. `unpack` is given a writer and the most bytes the archive may have, and
    /// answers with the DiffID and the archive's size.
    pub(crate) fn add_new(
        &mut self,
        name: &str,
        unpack: impl FnOnce(LayerWriter<'_>, u64) -> Result<(Digest, u64), LayerFailure>,
    ) -> Result<Digest, ImageError> {
        let path = self.work.path.join(self.layers.len().to_string());
        let diff = path.join("diff");
        // An archive without an entry for its root gives it the usual mode.
        DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(&path)
            .and_then(|()| DirBuilder::new().create(&diff))
            .and_then(|()| fs::set_permissions(&diff, Permissions::from_mode(0o755)))
            .map_err(ImageError::store("create", &diff))?;
        let directory = open_directory(&diff)?;
        let root = directory.try_clone().map_err(ImageError::store("open", &diff))?;
        let disk = open_directory(&path)?;
        let fail = |failure: LayerFailure| match failure {
            LayerFailure::Fault(fault) => explain(name, &diff, fault),
            LayerFailure::Image(error) => error,
        };
        use std::os::fd::AsFd;
        let budget = Budget::new(disk.as_fd(), self.limits);
        let max_archive = budget.max_archive().map_err(|fault| fail(fault.into()))?;
        let writer = LayerWriter::new(root, &self.directories, budget);
        let (diff_id, size) = unpack(writer, max_archive).map_err(fail)?;
        let layer = Layer { chain_id: Digest::chain(self.below(), diff_id), diff_id, size };
        let record = path.join("layer.json");
        let json = serde_json::to_vec(&layer)
            .map_err(|error| ImageError::Record { path: record.clone(), problem: error.to_string() })?;
        fs::write(&record, json).map_err(ImageError::store("write", &record))?;
        self.directories.insert(0, directory);
        self.layers.push((layer, true));
        Ok(diff_id)
    }

    pub(crate) fn work_path(&self, index: usize) -> PathBuf {
        self.work.path.join(index.to_string())
    }

    /// Makes the image and its names visible. Everything it refers to is on disk before.
    pub(crate) fn commit(
        self,
        config: &[u8],
        manifest: Option<&[u8]>,
        names: Vec<ImageName>,
    ) -> Result<Committed, ImageError> {
        let store = self.store;
        let id = Digest::of(config);
        let blobs: Vec<(Digest, &[u8])> =
            std::iter::once(config).chain(manifest).map(|b| (Digest::of(b), b)).collect();
        for (digest, content) in &blobs {
            let path = self.work.path.join(digest.hex());
            File::create_new(&path)
                .and_then(|mut file| file.write_all(content))
                .map_err(ImageError::store("write", &path))?;
        }
        // One flush for however many files; nothing has its final name before it.
        let root = open_directory(store.root())?;
        if self.layers.iter().any(|(_, new)| *new) || !store.image_path(&id).exists() {
            syncfs(&root).map_err(|error| ImageError::store("flush", store.root())(error.into()))?;
        }

        let _lock = store.lock(FlockOperation::LockExclusive)?;
        let (mut new_layers, mut known_layers) = (0, 0);
        for (index, (layer, new)) in self.layers.iter().enumerate() {
            let path = store.layer_path(&layer.chain_id);
            if !new {
                if !path.exists() {
                    return Ok(Committed::LayerGone);
                }
                known_layers += 1;
                continue;
            }
            match fs::rename(self.work_path(index), &path) {
                Ok(()) => new_layers += 1,
                // Another import was faster, with the same content.
                Err(error) if error.kind() == io::ErrorKind::DirectoryNotEmpty => known_layers += 1,
                Err(error) => return Err(ImageError::store("create", &path)(error)),
            }
        }
        for (digest, _) in &blobs {
            let path = store.blob_path(digest);
            fs::rename(self.work.path.join(digest.hex()), &path)
                .map_err(ImageError::store("create", &path))?;
        }
        for directory in ["layers", "blobs/sha256"].map(|name| store.root().join(name)) {
            sync_directory(&directory).map_err(ImageError::store("flush", &directory))?;
        }
        let record = ImageRecord {
            imported: Timestamp::now(),
            layers: self.layers.iter().map(|(layer, _)| layer.clone()).collect(),
            manifest: manifest.map(Digest::of),
            pinned: false,
        };
        store.write_record(&store.image_path(&id), &record)?;
        let mut all_names = store.names()?;
        all_names.extend(names.iter().map(|name| (name.key(), id)));
        store.write_names(&all_names)?;
        Ok(Committed::Done(Imported { id, names, new_layers, known_layers }))
    }

    /// What the source must not contain: the store itself.
    pub(crate) fn store_inode(&self) -> Result<(u64, u64), ImageError> {
        let metadata =
            fs::metadata(self.store.root()).map_err(ImageError::store("look at", self.store.root()))?;
        Ok((metadata.dev(), metadata.ino()))
    }
}

/// Why a layer could not be made.
pub(crate) enum LayerFailure {
    Fault(Fault),
    Image(ImageError),
}

impl From<Fault> for LayerFailure {
    fn from(fault: Fault) -> Self {
        Self::Fault(fault)
    }
}

impl From<ImageError> for LayerFailure {
    fn from(error: ImageError) -> Self {
        Self::Image(error)
    }
}

fn explain(layer: &str, path: &std::path::Path, fault: Fault) -> ImageError {
    let layer = layer.to_owned();
    match fault {
        Fault::Read(error) => ImageError::Layer { layer, problem: format!("it cannot be read: {error}") },
        Fault::Malformed(problem) => ImageError::Layer { layer, problem },
        Fault::Write { step, entry, source } => ImageError::Unpack { layer, step, entry, source },
        Fault::DiskFull { needed, available, reserve } => {
            ImageError::DiskFull { layer, path: path.to_owned(), needed, available, reserve }
        }
    }
}

/// Runs an import until no layer it counted on is taken away under it.
pub(crate) fn retrying(
    mut attempt: impl FnMut() -> Result<Committed, ImageError>,
) -> Result<Imported, ImageError> {
    for _ in 0..10 {
        if let Committed::Done(imported) = attempt()? {
            return Ok(imported);
        }
    }
    Err(ImageError::InUse {
        image: "store".to_owned(),
        user: "processes that keep removing its layers".to_owned(),
    })
}

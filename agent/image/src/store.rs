//! The store: layers, configurations and names on disk.
//!
//! ```text
//! format                      "1"
//! lock                        flock: shared to take a lease, exclusive to add or remove records
//! blobs/sha256/<digest>       image configurations and manifests, as they came
//! layers/<chain>/diff/        an unpacked layer, usable as an overlayfs lower directory
//! layers/<chain>/split        what else its archive holds
//! layers/<chain>/lost/        content of files that the layer itself replaces; mostly there is none
//! layers/<chain>/layer.json   its DiffID and size
//! layers/<chain>/usage        bytes of disk, once somebody asked
//! images/<digest>.json        an image: its layers, when it came, who pinned it; the time of the file: when it was last used
//! names.json                  the names, and the image each stands for
//! leases/<container>          an image in use, and the boot it is used in
//! empty/                      the lower directory of an image without layers
//! tmp/layer-<chain>/          a layer being made, under its maker's flock, or finished, for whoever wants it
//! tmp/<random>/               a directory somebody works in, under its own flock
//! ```
//!
//! Several processes may use one store. What is being made lies in `tmp` and is renamed into place when
//! it is whole and on disk; the kernel drops a dead process's flock, so the next import can tell an
//! abandoned directory from one at work. **Invariant:** whatever lies outside `tmp` is complete. **Invariant:** a layer's
//! directory is removed only under its exclusive flock, which whoever counts on it prevents.
//! **Invariant:** an image's record is written after, and removed before, what it refers to.

mod collect;
mod disk;
mod find;
mod lease;
mod names;
mod references;
mod remove;
mod temporary;
mod usage;
mod verify;

use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, Permissions};
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use jiff::Timestamp;
use rustix::fs::{CWD, FlockOperation, Mode, OFlags, fstatfs, openat};
use serde::{Deserialize, Serialize};

use crate::{Digest, ImageDocument, ImageError, ImageName};

pub use collect::{CollectPolicy, Collected, CollectedImage, HeldImage, Hold};
pub(crate) use disk::{file_names, make_directory, open_directory, read_record, retry_flock, sync_directory};
pub(crate) use lease::boot_id;
pub use names::Pin;
pub use remove::Removed;
pub(crate) use temporary::Temporary;
pub use usage::{ImageUsage, Usage};

const FORMAT: &str = "1";
pub(crate) const OVERLAYFS_MAGIC: u64 = 0x794c_7630;
/// The most a record or configuration may have.
pub(crate) const MAX_DOCUMENT: u64 = 4 << 20;

/// A store of images. Cheap to clone; every method may block on the disk.
#[derive(Clone, Debug)]
pub struct Store {
    root: PathBuf,
}

/// An image in the store.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Image {
    /// The digest of its configuration.
    pub id: Digest,
    /// Names with a tag, sorted.
    pub repo_tags: Vec<ImageName>,
    /// Names with a manifest's digest, sorted.
    pub repo_digests: Vec<ImageName>,
    /// Bytes of its unpacked layers' archives, shared ones included.
    pub size: u64,
    /// When it was built, by its own account.
    pub created: Option<Timestamp>,
    /// When it came into the store.
    pub imported: Timestamp,
    /// Its configuration.
    pub document: ImageDocument,
    /// Its layers, lowest first.
    pub layers: Vec<Layer>,
    /// The manifest it came with; `None` for a plain root file system.
    pub manifest: Option<Digest>,
    /// When it came, or a container last began or ended to use it, whichever is later.
    pub last_used: Timestamp,
    /// Why it is never removed for want of space, sorted; empty when nobody pinned it.
    pub pins: Vec<Pin>,
    lower_dirs: Vec<PathBuf>,
}

/// A layer of an image.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Layer {
    /// Identifies the layer together with all below it.
    pub chain_id: Digest,
    /// The digest of its uncompressed archive.
    pub diff_id: Digest,
    /// Bytes of its uncompressed archive.
    pub size: u64,
}

#[derive(Serialize, Deserialize)]
pub(crate) struct ImageRecord {
    pub(crate) imported: Timestamp,
    pub(crate) layers: Vec<Layer>,
    /// The manifest the image came with.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) manifest: Option<Digest>,
    /// Why it is never removed for want of space.
    #[serde(default, skip_serializing_if = "BTreeSet::is_empty")]
    pub(crate) pins: BTreeSet<Pin>,
}

/// The names, and the image each stands for.
pub(crate) type Names = BTreeMap<ImageName, Digest>;

// === impl Store ===

impl Store {
    /// Opens the store in `root`, and makes it where there is none. Only root can look inside.
    ///
    /// # Errors
    ///
    /// [`ImageError::StoreOnOverlay`] where layers could not be kept, [`ImageError::Version`] for a store of a later format,
    /// [`ImageError::Store`].
    pub fn open(root: impl Into<PathBuf>) -> Result<Self, ImageError> {
        let store = Self { root: root.into() };
        make_directory(&store.root, 0o700)?;
        let held = open_directory(&store.root)?;
        let stat = fstatfs(&held).map_err(|error| ImageError::store("look at", &store.root)(error.into()))?;
        if stat.f_type as u64 == OVERLAYFS_MAGIC {
            return Err(ImageError::StoreOnOverlay { path: store.root });
        }
        fs::set_permissions(&store.root, Permissions::from_mode(0o700))
            .map_err(ImageError::store("set the mode of", &store.root))?;
        for directory in ["blobs", "blobs/sha256", "layers", "images", "leases", "empty", "tmp"] {
            // The empty lower directory is what a container of an image without layers sees as its root.
            make_directory(&store.root.join(directory), if directory == "empty" { 0o755 } else { 0o700 })?;
        }
        let format = store.root.join("format");
        match fs::read_to_string(&format) {
            Ok(found) if found.trim() == FORMAT => {}
            Ok(found) => {
                let found = found.trim().chars().take(20).collect();
                return Err(ImageError::Version { path: store.root, found, known: FORMAT });
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                store.write_durably(&format, FORMAT.as_bytes())?;
            }
            Err(error) => return Err(ImageError::store("read", &format)(error)),
        }
        Ok(store)
    }

    /// The store's directory.
    pub fn root(&self) -> &Path {
        &self.root
    }

    // --- paths ---

    pub(crate) fn layer_path(&self, chain: &Digest) -> PathBuf {
        self.root.join("layers").join(chain.hex())
    }

    pub(crate) fn blob_path(&self, digest: &Digest) -> PathBuf {
        self.root.join("blobs/sha256").join(digest.hex())
    }

    pub(crate) fn image_path(&self, id: &Digest) -> PathBuf {
        self.root.join("images").join(format!("{}.json", id.hex()))
    }

    /// An empty directory, readable by all.
    pub(crate) fn empty_directory(&self) -> PathBuf {
        self.root.join("empty")
    }

    // --- parts ---

    pub(crate) fn lock(&self, operation: FlockOperation) -> Result<OwnedFd, ImageError> {
        let path = self.root.join("lock");
        let flags = OFlags::RDWR | OFlags::CREATE | OFlags::CLOEXEC;
        let file = openat(CWD, &path, flags, Mode::from_raw_mode(0o600))
            .map_err(|error| ImageError::store("open", &path)(error.into()))?;
        retry_flock(&file, operation).map_err(ImageError::store("lock", &path))?;
        Ok(file)
    }

    pub(crate) fn names(&self) -> Result<Names, ImageError> {
        Ok(read_record(&self.root.join("names.json"))?.unwrap_or_default())
    }

    /// Replaces the names; the caller holds the lock since it read them.
    pub(crate) fn write_names(&self, names: &Names) -> Result<(), ImageError> {
        self.write_record(&self.root.join("names.json"), names)
    }
}

// === impl Image ===

impl Image {
    /// The layers' directories, the top-most first, as overlayfs takes them.
    pub fn lower_dirs(&self) -> &[PathBuf] {
        &self.lower_dirs
    }
}

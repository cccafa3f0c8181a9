//! The store: layers, configurations and names on disk.
//!
//! ```text
//! format                      "1"
//! lock                        flock: shared to take a lease, exclusive to add or remove records
//! blobs/sha256/<digest>       image configurations and manifests, as they came
//! layers/<chain>/diff/        an unpacked layer, usable as an overlayfs lower directory
//! layers/<chain>/layer.json   its DiffID and size
//! images/<digest>.json        an image: its layers, and when it came
//! names.json                  the names, and the image each stands for
//! leases/<container>          an image in use, and the boot it is used in
//! empty/                      the lower directory of an image without layers
//! tmp/<random>/               an import at work, under its own flock
//! ```
//!
//! Several processes may use one store. What is being made lies in `tmp` and is renamed into place when
//! it is whole and on disk; the kernel drops a dead process's flock, so the next import can tell an
//! abandoned directory from one at work. **Invariant:** whatever lies outside `tmp` is complete.
//! **Invariant:** an image's record is written after, and removed before, what it refers to.

mod lease;

use std::collections::{BTreeMap, HashSet};
use std::ffi::OsStr;
use std::fs::{self, DirBuilder, File, OpenOptions, Permissions};
use std::io::{self, Read, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};

use coracle_linux::remove_tree;
use jiff::Timestamp;
use rustix::fs::{CWD, FlockOperation, Mode, OFlags, flock, openat};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use crate::{Digest, ImageDocument, ImageError, ImageName};

const FORMAT: &str = "1";
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
    /// Never removed for want of space.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub(crate) pinned: bool,
}

/// The names, and the image each stands for.
pub(crate) type Names = BTreeMap<ImageName, Digest>;

/// What [`Store::remove`] did.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Removed {
    /// A name went; the image has others.
    Untagged(ImageName),
    /// The image, its names, and the layers no other image has.
    Deleted {
        /// The image.
        id: Digest,
        /// Its names.
        names: Vec<ImageName>,
        /// Bytes of the layers' archives that went.
        freed: u64,
    },
}

// === impl Store ===

impl Store {
    /// Opens the store in `root`, and makes it where there is none. Only root can look inside.
    ///
    /// # Errors
    ///
    /// [`ImageError::Store`], or [`ImageError::Version`] for a store of a later format.
    pub fn open(root: impl Into<PathBuf>) -> Result<Self, ImageError> {
        let store = Self { root: root.into() };
        make_directory(&store.root, 0o700)?;
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

    /// The image a name stands for; `None` when it is not in the store.
    ///
    /// # Errors
    ///
    /// [`ImageError::Record`] when the store is damaged, [`ImageError::Store`].
    pub fn resolve(&self, name: &ImageName) -> Result<Option<Image>, ImageError> {
        let names = self.names()?;
        match names.get(&name.key()) {
            Some(id) => self.get_among(id, &names),
            None => Ok(None),
        }
    }

    /// The image of that identifier; `None` when it is not in the store.
    ///
    /// # Errors
    ///
    /// As [`Store::resolve`].
    pub fn get(&self, id: &Digest) -> Result<Option<Image>, ImageError> {
        self.get_among(id, &self.names()?)
    }

    fn get_among(&self, id: &Digest, names: &Names) -> Result<Option<Image>, ImageError> {
        match read_record::<ImageRecord>(&self.image_path(id))? {
            Some(record) => self.load(*id, record, names).map(Some),
            None => Ok(None),
        }
    }

    /// The image a person means: a name, an identifier with or without `sha256:`, or the beginning of one.
    ///
    /// # Errors
    ///
    /// [`ImageError::NotFound`], [`ImageError::Ambiguous`], and as [`Store::resolve`].
    pub fn find(&self, text: &str) -> Result<Image, ImageError> {
        if let Ok(name) = text.parse::<ImageName>()
            && let Some(image) = self.resolve(&name)?
        {
            return Ok(image);
        }
        let digits = text.strip_prefix("sha256:").unwrap_or(text);
        let is_id = !digits.is_empty() && digits.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'));
        let ids = if is_id { self.ids()? } else { Vec::new() };
        let matching: Vec<_> = ids.into_iter().filter(|id| id.hex().starts_with(digits)).collect();
        match matching.as_slice() {
            [id] => self.get(id)?.ok_or_else(|| ImageError::NotFound(text.to_owned())),
            [] => Err(ImageError::NotFound(text.to_owned())),
            several => Err(ImageError::Ambiguous { text: text.to_owned(), count: several.len() }),
        }
    }

    /// Every image, the latest import first.
    ///
    /// # Errors
    ///
    /// As [`Store::resolve`].
    pub fn list(&self) -> Result<Vec<Image>, ImageError> {
        let names = self.names()?;
        let mut images = Vec::new();
        for id in self.ids()? {
            // Another process may have removed it since.
            if let Some(record) = read_record::<ImageRecord>(&self.image_path(&id))? {
                images.push(self.load(id, record, &names)?);
            }
        }
        images.sort_by(|a, b| b.imported.cmp(&a.imported).then(a.id.cmp(&b.id)));
        Ok(images)
    }

    /// Removes a name, or with its last name or by its identifier the image. Layers of other images stay.
    ///
    /// `in_use` says who of the caller's own uses the image; containers of every process that hold a
    /// lease count besides.
    ///
    /// # Errors
    ///
    /// [`ImageError::InUse`], and as [`Store::find`].
    pub fn remove(
        &self,
        text: &str,
        in_use: impl Fn(&Digest) -> Option<String>,
    ) -> Result<Removed, ImageError> {
        let trash = self.temporary()?;
        let lock = self.lock(FlockOperation::LockExclusive)?;
        let image = self.find(text)?;
        let mut all_names = self.names()?;
        let names: Vec<ImageName> = image.repo_tags.iter().chain(&image.repo_digests).cloned().collect();
        // Found by name, unless the text is (also) the beginning of its identifier.
        let by_name = text.parse::<ImageName>().ok().map(|name| name.key()).filter(|key| names.contains(key));
        if let Some(name) = by_name
            && image.repo_tags.iter().any(|other| *other != name)
        {
            all_names.remove(&name);
            self.write_names(&all_names)?;
            return Ok(Removed::Untagged(name));
        }
        if let Some(user) = in_use(&image.id).or(self.leased(&image.id)?) {
            return Err(ImageError::InUse { image: text.to_owned(), user });
        }
        all_names.retain(|_, id| *id != image.id);
        self.write_names(&all_names)?;
        self.unlink(&self.image_path(&image.id))?;
        for blob in std::iter::once(image.id).chain(image.manifest) {
            self.unlink(&self.blob_path(&blob))?;
        }
        let mut kept = HashSet::new();
        for id in self.ids()? {
            if let Some(record) = read_record::<ImageRecord>(&self.image_path(&id))? {
                kept.extend(record.layers.into_iter().map(|layer| layer.chain_id));
            }
        }
        let mut freed = 0;
        for layer in image.layers.iter().filter(|layer| !kept.contains(&layer.chain_id)) {
            let path = self.layer_path(&layer.chain_id);
            match fs::rename(&path, trash.path.join(layer.chain_id.hex())) {
                Ok(()) => freed += layer.size,
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                Err(error) => return Err(ImageError::store("remove", &path)(error)),
            }
        }
        drop(lock);
        trash.remove()?;
        Ok(Removed::Deleted { id: image.id, names, freed })
    }

    /// Checks that every name, image and layer is whole; what is wrong, for people.
    ///
    /// # Errors
    ///
    /// [`ImageError::Store`] when the store cannot be read at all.
    pub fn verify(&self) -> Result<Vec<String>, ImageError> {
        let mut problems = Vec::new();
        for id in self.ids()? {
            match self.get(&id) {
                Ok(Some(image)) => {
                    for layer in &image.layers {
                        let path = self.layer_path(&layer.chain_id);
                        match read_record::<Layer>(&path.join("layer.json")) {
                            Ok(Some(found)) if found == *layer && path.join("diff").is_dir() => {}
                            _ => problems.push(format!("image {id} lacks layer {}", layer.chain_id)),
                        }
                    }
                    let blob = fs::read(self.blob_path(&id)).unwrap_or_default();
                    if Digest::of(&blob) != id {
                        problems.push(format!("the configuration of image {id} is damaged"));
                    }
                }
                Ok(None) => {}
                Err(error) => problems.push(error.to_string()),
            }
        }
        for (name, image) in self.names()? {
            if !self.image_path(&image).exists() {
                problems.push(format!("{name} stands for {image}, which is not in the store"));
            }
        }
        Ok(problems)
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

    fn ids(&self) -> Result<Vec<Digest>, ImageError> {
        let names = file_names(&self.root.join("images"))?;
        Ok(names
            .iter()
            .filter_map(|name| format!("sha256:{}", name.strip_suffix(".json")?).parse().ok())
            .collect())
    }

    pub(crate) fn names(&self) -> Result<Names, ImageError> {
        Ok(read_record(&self.root.join("names.json"))?.unwrap_or_default())
    }

    /// Replaces the names; the caller holds the lock since it read them.
    pub(crate) fn write_names(&self, names: &Names) -> Result<(), ImageError> {
        self.write_record(&self.root.join("names.json"), names)
    }

    fn load(&self, id: Digest, record: ImageRecord, names: &Names) -> Result<Image, ImageError> {
        let blob = self.blob_path(&id);
        let document = read_record::<ImageDocument>(&blob)?
            .ok_or_else(|| ImageError::Record { path: blob, problem: "it is missing".to_owned() })?;
        let (repo_digests, repo_tags) = names
            .iter()
            .filter(|(_, image)| **image == id)
            .map(|(name, _)| name.clone())
            .partition(|name| name.digest().is_some());
        Ok(Image {
            id,
            repo_tags,
            repo_digests,
            size: record.layers.iter().map(|layer| layer.size).sum(),
            created: document.created.as_deref().and_then(|time| time.parse().ok()),
            imported: record.imported,
            document,
            lower_dirs: record
                .layers
                .iter()
                .rev()
                .map(|layer| self.layer_path(&layer.chain_id).join("diff"))
                .collect(),
            layers: record.layers,
            manifest: record.manifest,
        })
    }

    pub(crate) fn write_record<T: Serialize>(&self, path: &Path, record: &T) -> Result<(), ImageError> {
        let json = serde_json::to_vec(record)
            .map_err(|error| ImageError::Record { path: path.to_owned(), problem: error.to_string() })?;
        self.write_durably(path, &json)
    }

    /// Replaces a file: whoever reads it, after a crash too, sees the old content or the new.
    pub(crate) fn write_durably(&self, path: &Path, content: &[u8]) -> Result<(), ImageError> {
        let temporary = self.root.join("tmp").join(format!("file-{}", uuid::Uuid::new_v4().simple()));
        let written = (|| {
            let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&temporary)?;
            file.write_all(content)?;
            file.sync_all()?;
            fs::rename(&temporary, path)?;
            sync_directory(path.parent().unwrap_or(&self.root))
        })();
        written.map_err(|error| {
            let _ = fs::remove_file(&temporary);
            ImageError::store("write", path)(error)
        })
    }

    fn unlink(&self, path: &Path) -> Result<(), ImageError> {
        match fs::remove_file(path) {
            Ok(()) => Ok(()),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
            Err(error) => Err(ImageError::store("remove", path)(error)),
        }
    }

    /// A directory to work in. What dead processes left is removed on the way.
    pub(crate) fn temporary(&self) -> Result<Temporary, ImageError> {
        let parent = self.root.join("tmp");
        self.remove_abandoned(&parent)?;
        let path = parent.join(uuid::Uuid::new_v4().simple().to_string());
        // Under the lock, so that nobody takes it for abandoned before it is locked.
        let _lock = self.lock(FlockOperation::LockShared)?;
        make_directory(&path, 0o700)?;
        let held = File::open(&path).map_err(ImageError::store("open", &path))?;
        retry_flock(held.as_fd(), FlockOperation::LockExclusive).map_err(ImageError::store("lock", &path))?;
        Ok(Temporary { path, _held: held })
    }

    fn remove_abandoned(&self, parent: &Path) -> Result<(), ImageError> {
        let at = open_directory(parent)?;
        // Nobody makes a directory, or writes a record, between its creation and its lock meanwhile. If
        // somebody is at it, the next import cleans up.
        let path = self.root.join("lock");
        let Ok(lock) = File::open(&path) else { return Ok(()) };
        if flock(&lock, FlockOperation::NonBlockingLockExclusive).is_err() {
            return Ok(());
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
            } else if flock(&file, FlockOperation::NonBlockingLockExclusive).is_ok() {
                abandoned.push((name, file));
            }
        }
        // The lock of each is held while it goes, and that of the store is not.
        drop(lock);
        for (name, _held) in abandoned {
            if let Err(error) = remove_tree(at.as_fd(), OsStr::new(&name)) {
                tracing::warn!(name, %error, "an abandoned directory of the image store cannot be removed");
            }
        }
        Ok(())
    }
}

/// A directory in `tmp`, held by this process.
pub(crate) struct Temporary {
    pub(crate) path: PathBuf,
    _held: File,
}

impl Temporary {
    /// Removes it now, and says what failed.
    pub(crate) fn remove(self) -> Result<(), ImageError> {
        self.clear().map_err(ImageError::store("remove", &self.path))
    }

    fn clear(&self) -> io::Result<()> {
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

// === impl Image ===

impl Image {
    /// The layers' directories, the top-most first, as overlayfs takes them.
    pub fn lower_dirs(&self) -> &[PathBuf] {
        &self.lower_dirs
    }
}

fn retry_flock(file: impl AsFd, operation: FlockOperation) -> io::Result<()> {
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

fn file_names(directory: &Path) -> Result<Vec<String>, ImageError> {
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
fn read_record<T: DeserializeOwned>(path: &Path) -> Result<Option<T>, ImageError> {
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
    let mut json = Vec::new();
    file.take(MAX_DOCUMENT).read_to_end(&mut json).map_err(ImageError::store("read", path))?;
    serde_json::from_slice(&json).map(Some).map_err(|error| damaged(error.to_string()))
}

//! Removal of names and images.

use std::fs;
use std::io;

use rustix::fs::FlockOperation;

use super::{Image, Store, Temporary, file_names};
use crate::incoming::open_locked;
use crate::{Digest, ImageError, ImageName};

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
        /// Bytes of disk that went.
        freed: u64,
    },
}

impl Store {
    /// Removes a name, or with its last name or by its identifier the image. Layers of other images stay.
    ///
    /// `in_use` says who of the caller's own uses the image; containers of every process that hold a
    /// lease count besides.
    ///
    /// # Errors
    ///
    /// [`ImageError::InUse`], [`ImageError::Pinned`] for the last name of a pinned image, and as [`Store::find`].
    pub fn remove(
        &self,
        text: &str,
        in_use: impl Fn(&Digest) -> Option<String>,
    ) -> Result<Removed, ImageError> {
        let trash = self.temporary()?;
        let lock = self.lock(FlockOperation::LockExclusive)?;
        let image = match self.find(text) {
            Err(ImageError::Record { path, problem }) => {
                return self
                    .remove_damaged(text, in_use, &trash)?
                    .ok_or(ImageError::Record { path, problem });
            }
            found => found?,
        };
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
        if !image.pins.is_empty() {
            return Err(ImageError::Pinned { image: text.to_owned(), pins: image.pins });
        }
        let freed = self.delete(&image, &trash)?;
        drop(lock);
        trash.remove()?;
        Ok(Removed::Deleted { id: image.id, names, freed })
    }

    /// Removes an image whose documents cannot be read; `None` when it is another's that cannot.
    fn remove_damaged(
        &self,
        text: &str,
        in_use: impl Fn(&Digest) -> Option<String>,
        trash: &Temporary,
    ) -> Result<Option<Removed>, ImageError> {
        let mut names = self.names()?;
        let by_name = text.parse::<ImageName>().ok().and_then(|name| names.get(&name.key()).copied());
        let digits = text.strip_prefix("sha256:").unwrap_or(text);
        let mut by_id = self.ids()?.into_iter().filter(|id| id.hex().starts_with(digits));
        let Some(id) = by_name.or_else(|| by_id.next().filter(|_| by_id.next().is_none())) else {
            return Ok(None);
        };
        if let Some(user) = in_use(&id).or(self.leased(&id)?) {
            return Err(ImageError::InUse { image: text.to_owned(), user });
        }
        let gone = names.iter().filter(|(_, of)| **of == id).map(|(name, _)| name.clone()).collect();
        names.retain(|_, of| *of != id);
        self.write_names(&names)?;
        self.unlink(&self.image_path(&id))?;
        self.unlink(&self.blob_path(&id))?;
        let freed = self.delete_unreferenced(trash)?.bytes;
        Ok(Some(Removed::Deleted { id, names: gone, freed }))
    }

    /// Takes an image out of the store, with what only it has; how many bytes of disk that is. The caller holds the
    /// lock, and clears `trash` when it does not any more.
    pub(super) fn delete(&self, image: &Image, trash: &Temporary) -> Result<u64, ImageError> {
        let mut names = self.names()?;
        names.retain(|_, id| *id != image.id);
        self.write_names(&names)?;
        self.unlink(&self.image_path(&image.id))?;
        for blob in std::iter::once(image.id).chain(image.manifest) {
            self.unlink(&self.blob_path(&blob))?;
        }
        Ok(self.delete_unreferenced(trash)?.bytes)
    }

    /// Takes out what no image refers to: layers of an attempt that was killed while it removed them, or that somebody
    /// counted on then, and documents. What is counted on now stays, and so does what an image may have whose record is
    /// damaged.
    pub(super) fn delete_unreferenced(&self, trash: &Temporary) -> Result<Deleted, ImageError> {
        let references = self.references()?;
        for name in file_names(&self.root.join("blobs/sha256"))? {
            if !references.may_have_blob(&name) {
                self.unlink(&self.root.join("blobs/sha256").join(name))?;
            }
        }
        let mut deleted = Deleted::default();
        let layers = file_names(&self.root.join("layers"))?;
        for name in layers.iter().filter(|name| !references.may_have_layer(name)) {
            let path = self.root.join("layers").join(name);
            let Some(_lock) = open_locked(&path, FlockOperation::NonBlockingLockExclusive)? else { continue };
            // That it cannot be measured keeps nobody from removing it.
            deleted.bytes += self.layer_usage(&path).unwrap_or(0);
            deleted.count += 1;
            match fs::rename(&path, trash.path.join(name)) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => {
                    return Err(ImageError::store("remove", &path)(error));
                }
                _ => {}
            }
        }
        Ok(deleted)
    }
}

/// Directories that went.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Deleted {
    pub(crate) count: usize,
    /// Of disk.
    pub(crate) bytes: u64,
}

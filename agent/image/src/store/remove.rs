//! Removal of names and images.

use std::collections::HashSet;
use std::fs;
use std::io;

use rustix::fs::FlockOperation;

use super::{ImageRecord, Store, read_record};
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
        /// Bytes of the layers' archives that went.
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
            // An image on its way may count on it.
            if open_locked(&path, FlockOperation::NonBlockingLockExclusive)?.is_none() {
                continue;
            }
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
}

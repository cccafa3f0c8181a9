//! What people say of images: further names, and which are to stay.

use std::path::PathBuf;

use rustix::fs::FlockOperation;
use serde::{Deserialize, Serialize};

use super::{ImageRecord, Store, read_record};
use crate::{Digest, Image, ImageError, ImageName};

/// Why an image is never removed for want of space.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Pin {
    /// A person said so.
    Hand,
    /// The archive it came from lies in the directory of archives.
    Archive(PathBuf),
}

impl Store {
    /// Gives the image that `source` means (as in [`Store::find`]) one more name; the name moves, if another image has
    /// it.
    ///
    /// # Errors
    ///
    /// [`ImageError::TagWithDigest`] for a name with a digest, and as [`Store::find`].
    pub fn tag(&self, source: &str, name: &ImageName) -> Result<Image, ImageError> {
        if name.digest().is_some() {
            return Err(ImageError::TagWithDigest(name.clone()));
        }
        let _lock = self.lock(FlockOperation::LockExclusive)?;
        let image = self.find(source)?;
        let mut names = self.names()?;
        names.insert(name.clone(), image.id);
        self.write_names(&names)?;
        self.get(&image.id)?.ok_or_else(|| ImageError::NotFound(source.to_owned()))
    }

    /// Keeps an image from being removed for want of space; it may have several reasons.
    ///
    /// # Errors
    ///
    /// [`ImageError::NotFound`], [`ImageError::Record`], [`ImageError::Store`].
    pub fn pin(&self, image: &Digest, pin: Pin) -> Result<(), ImageError> {
        self.change_pins(image, |record| record.pins.insert(pin))
    }

    /// Takes back one reason; one it never had is done.
    ///
    /// # Errors
    ///
    /// As [`Store::pin`].
    pub fn unpin(&self, image: &Digest, pin: &Pin) -> Result<(), ImageError> {
        self.change_pins(image, |record| record.pins.remove(pin))
    }

    fn change_pins(
        &self,
        image: &Digest,
        change: impl FnOnce(&mut ImageRecord) -> bool,
    ) -> Result<(), ImageError> {
        let _lock = self.lock(FlockOperation::LockExclusive)?;
        let path = self.image_path(image);
        let mut record: ImageRecord =
            read_record(&path)?.ok_or_else(|| ImageError::NotFound(image.to_string()))?;
        if change(&mut record) { self.rewrite_record(&path, &record) } else { Ok(()) }
    }
}

impl std::fmt::Display for Pin {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Hand => f.write_str("pinned by hand"),
            Self::Archive(path) => {
                write!(f, "pinned by {}, until the agent starts without it", path.display())
            }
        }
    }
}

//! What images refer to, those included whose records are damaged.

use std::collections::HashSet;
use std::fs;

use super::{ImageRecord, Store, read_record};
use crate::{Digest, ImageDocument, ImageError};

/// What the images of a store have. What nobody knows not to be referred to is.
#[derive(Debug, Default)]
pub(super) struct References {
    layers: HashSet<Digest>,
    blobs: HashSet<Digest>,
    /// An image's record cannot be read, which says which manifest it has.
    unknown_blobs: bool,
    /// Its configuration cannot either, which says which layers.
    unknown_layers: bool,
}

// === impl References ===

impl References {
    /// Whether an image may have the layer in the directory of this name.
    pub(super) fn may_have_layer(&self, name: &str) -> bool {
        self.unknown_layers || digest(name).is_some_and(|chain| self.layers.contains(&chain))
    }

    /// Whether an image may have the document of this name.
    pub(super) fn may_have_blob(&self, name: &str) -> bool {
        self.unknown_blobs || digest(name).is_some_and(|blob| self.blobs.contains(&blob))
    }

    /// Whether there is an image of which nobody knows which layers it has: then none may go.
    pub(super) fn has_unknown_layers(&self) -> bool {
        self.unknown_layers
    }
}

impl Store {
    /// What the images refer to. The caller holds the lock, or bears that others change it meanwhile.
    pub(super) fn references(&self) -> Result<References, ImageError> {
        let mut references = References::default();
        for id in self.ids()? {
            match read_record::<ImageRecord>(&self.image_path(&id)) {
                Ok(Some(record)) => {
                    references.layers.extend(record.layers.into_iter().map(|layer| layer.chain_id));
                    references.blobs.extend(std::iter::once(id).chain(record.manifest));
                }
                // Another process has removed it since.
                Ok(None) => {}
                Err(error) => {
                    tracing::debug!(image = %id, %error, "nothing of an image whose record is damaged is removed");
                    references.unknown_blobs = true;
                    match self.configured_layers(&id) {
                        Some(layers) => references.layers.extend(layers),
                        None => references.unknown_layers = true,
                    }
                }
            }
        }
        Ok(references)
    }

    /// Who uses an image that has this layer, in words for people.
    pub(crate) fn user_of_layer(&self, chain: &Digest) -> Result<Option<String>, ImageError> {
        for (user, image) in self.users()? {
            let layers = match read_record::<ImageRecord>(&self.image_path(&image)) {
                Ok(Some(record)) => Some(record.layers.iter().map(|layer| layer.chain_id).collect()),
                Ok(None) => Some(Vec::new()),
                Err(_) => self.configured_layers(&image),
            };
            // One of which nobody knows may have it.
            if layers.is_none_or(|layers| layers.contains(chain)) {
                return Ok(Some(user));
            }
        }
        Ok(None)
    }

    /// The layers of an image by its configuration; `None` where that is not what its digest says.
    fn configured_layers(&self, id: &Digest) -> Option<Vec<Digest>> {
        let json = fs::read(self.blob_path(id)).ok().filter(|json| Digest::of(json) == *id)?;
        let document: ImageDocument = serde_json::from_slice(&json).ok()?;
        let mut below = None;
        let mut chains = Vec::new();
        for diff_id in document.rootfs.diff_ids {
            let chain = Digest::chain(below, diff_id);
            below = Some(chain);
            chains.push(chain);
        }
        Some(chains)
    }
}

/// The digest that a file of the store is named by.
fn digest(name: &str) -> Option<Digest> {
    format!("sha256:{name}").parse().ok()
}

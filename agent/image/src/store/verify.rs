//! Whether the store is whole.

use std::fs;

use rustix::fs::FlockOperation;

use super::{Layer, Store, read_record};
use crate::{Digest, ImageError};

impl Store {
    /// Checks that all is there that names, images and layers need, without reading layers; what is wrong, for people.
    ///
    /// # Errors
    ///
    /// [`ImageError::Store`] when the store cannot be read at all.
    pub fn verify(&self) -> Result<Vec<String>, ImageError> {
        // Nobody removes what an image has between a look at it and a look at what it has.
        let _lock = self.lock(FlockOperation::LockShared)?;
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
}

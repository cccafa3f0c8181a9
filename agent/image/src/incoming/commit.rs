//! The moment an image appears in the store.

use std::fs::{self, File};
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use jiff::Timestamp;
use rustix::fs::FlockOperation;

use super::{Incoming, Slot, State};
use crate::import::Imported;
use crate::store::{ImageRecord, Pin, Temporary, read_record, sync_directory};
use crate::{Digest, ImageError, ImageName};

impl Incoming {
    /// Makes the image visible, under these names and with this pin, all at once. Everything it refers to is on disk
    /// before. A name moves to the latest image that is given it. The image in the answer is as nobody else can have changed it
    /// yet: it may be removed the moment after.
    ///
    /// # Errors
    ///
    /// [`ImageError::Incomplete`] when a layer is missing, [`ImageError::Store`]. What was finished stays finished.
    pub fn commit(&self, names: &[ImageName], pin: Option<Pin>) -> Result<Imported, ImageError> {
        let mut state = self.state();
        if state.doubtful {
            let source = io::Error::other("what was written before could not be brought to the disk");
            return Err(ImageError::store("flush", self.store.root())(source));
        }
        let layers = state
            .slots
            .iter()
            .zip(&self.layers)
            .map(|(slot, layer)| match slot {
                Slot::Have(held) => Ok(held.layer.clone()),
                _ => Err(ImageError::Incomplete { id: self.id, layer: layer.diff_id }),
            })
            .collect::<Result<Vec<_>, _>>()?;
        let store = &self.store;
        let record_path = store.image_path(&self.id);
        let work = store.temporary()?;
        let blobs = self.write_blobs(&work)?;
        let is_new = |slot: &Slot| matches!(slot, Slot::Have(held) if !held.stored);
        let is_flushed = state.slots.iter().any(is_new) || !record_path.exists();
        if is_flushed {
            self.disk.flush().inspect_err(|_| state.doubtful = true)?;
        }

        let lock = store.lock(FlockOperation::LockExclusive)?;
        let (new_layers, known_layers) = self.place_layers(&mut state, &work)?;
        for (digest, path) in &blobs {
            let place = store.blob_path(digest);
            // What is there is on the disk, which the new one need not be.
            if fs::read(&place).is_ok_and(|content| Digest::of(&content) == *digest) {
                continue;
            }
            if !is_flushed {
                File::open(path)
                    .and_then(|file| file.sync_all())
                    .map_err(ImageError::store("flush", path))?;
            }
            fs::rename(path, &place).map_err(ImageError::store("create", &place))?;
        }
        for directory in ["layers", "blobs/sha256"].map(|name| store.root().join(name)) {
            sync_directory(&directory).map_err(ImageError::store("flush", &directory))?;
        }
        // A damaged record is one more reason to write it.
        let known = read_record::<ImageRecord>(&record_path).ok().flatten();
        let (mut pins, before) = known.map_or_else(Default::default, |known| (known.pins, known.manifest));
        pins.extend(pin);
        let manifest = self.manifest.as_deref().map(Digest::of).or(before);
        store.write_record(
            &record_path,
            &ImageRecord { imported: Timestamp::now(), layers, manifest, pins },
        )?;
        let mut all_names = store.names()?;
        all_names.extend(names.iter().map(|name| (name.key(), self.id)));
        store.write_names(&all_names)?;
        if let Some(before) = before.filter(|before| manifest != Some(*before)) {
            // A manifest names one configuration, so no other image came with it.
            store.unlink(&store.blob_path(&before))?;
        }
        let image = store.get(&self.id)?.ok_or_else(|| ImageError::NotFound(self.id.to_string()))?;
        drop(lock);
        work.remove()?;
        Ok(Imported { image, names: names.to_vec(), new_layers, known_layers })
    }

    /// Configuration and manifest, where nobody sees them yet.
    fn write_blobs(&self, work: &Temporary) -> Result<Vec<(Digest, PathBuf)>, ImageError> {
        let contents = std::iter::once(&self.config).chain(&self.manifest);
        contents
            .map(|content| {
                let digest = Digest::of(content);
                let path = work.path.join(digest.hex());
                write_new(&path, content).map_err(ImageError::store("write", &path))?;
                Ok((digest, path))
            })
            .collect()
    }

    /// Moves the layers to where the store has them. How many were new, and how many were there.
    fn place_layers(&self, state: &mut State, work: &Temporary) -> Result<(usize, usize), ImageError> {
        let (mut new, mut known) = (0, 0);
        for slot in &mut state.slots {
            let Slot::Have(held) = slot else { continue };
            let place = self.store.layer_path(&held.layer.chain_id);
            if held.stored || self.store.hold_stored(&held.layer.chain_id)?.is_some() {
                // Ours, or what another image brought meanwhile; nobody removes what we hold.
                known += 1;
                continue;
            }
            // What was damaged, or was not found to be whole, gives way, but not what a container sees.
            if place.join("diff").is_dir()
                && let Some(user) = self.store.user_of_layer(&held.layer.chain_id)?
            {
                let (layer, problem) =
                    (held.layer.diff_id, format!("{user} uses it, so it cannot be replaced"));
                return Err(ImageError::Damaged { layer, path: place, problem });
            }
            let damaged = work.path.join(format!("damaged-{}", held.layer.chain_id.hex()));
            match fs::rename(&place, &damaged) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => {
                    return Err(ImageError::store("replace", &place)(error));
                }
                _ => {}
            }
            fs::rename(&held.path, &place).map_err(ImageError::store("create", &place))?;
            new += 1;
            held.stored = true;
        }
        Ok((new, known))
    }
}

fn write_new(path: &Path, content: &[u8]) -> io::Result<()> {
    File::create_new(path)?.write_all(content)
}

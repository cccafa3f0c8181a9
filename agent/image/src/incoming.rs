//! An image on its way into the store.
//!
//! Its layers may be made by several threads at once, of one process or of several, and of several images at once: a
//! layer in the making lies in `tmp` under its ChainID, under the flock of whoever makes it. Whoever else wants the
//! same layer waits for it, or makes it when the first has failed. What is finished stays there, for whoever goes on,
//! until an image with it is committed.
//!
//! **Invariant:** a layer waits only for layers below it, and each process begins them from the lowest; so the lowest
//! that is not finished waits for nobody. **Invariant:** a directory that an [`Incoming`] counts on is under its shared
//! flock, which every removal asks for.

mod commit;
mod flush;
mod held;
mod make;

use std::io::Read;
use std::os::fd::OwnedFd;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use coracle_model::Platform;

use crate::store::{Layer, Temporary};
use crate::unpack::{Budget, Fault, Limits, Lowers, unpack_stream};
use crate::{Digest, ImageDocument, ImageError, Store};

pub(crate) use flush::Disk;
use held::Acquired;
pub(crate) use held::{HeldLayer, is_at, is_flushed, may_be_taken_up, open_locked};
pub(crate) use make::{LayerFailure, explain, write_layer};

/// overlayfs stacks this many lower directories (`OVL_MAX_STACK`).
pub(crate) const MAX_LAYERS: usize = 500;

/// How often it is looked whether another process is done with a layer that this one wants too. There is no way to wait
/// for a file's lock and for [`Incoming::abort`] at once.
const LOOK_AT_OTHERS: Duration = Duration::from_millis(50);

/// An image on its way into the store. Shared by the threads that make its layers.
///
/// Dropped without [`Incoming::commit`], it leaves the layers that are finished in `tmp`, where the next attempt finds
/// them; they are stale after a day.
#[derive(Debug)]
pub struct Incoming {
    store: Store,
    disk: Disk,
    id: Digest,
    config: Vec<u8>,
    manifest: Option<Vec<u8>>,
    layers: Vec<IncomingLayer>,
    limits: Limits,
    /// Whether the next attempt is to find what this one finished.
    resumable: bool,
    state: Mutex<State>,
    changed: Condvar,
}

/// A layer of an image on its way.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct IncomingLayer {
    /// The digest of its uncompressed archive.
    pub diff_id: Digest,
    /// Identifies it together with all below it.
    pub chain_id: Digest,
    /// Whether it was here when the image began to come: in the store, or finished by an earlier attempt.
    pub have: bool,
}

#[derive(Debug)]
struct State {
    slots: Vec<Slot>,
    aborted: bool,
    /// What was made since the last flush, in bytes of archives.
    unflushed: u64,
    /// Somebody flushes.
    flushing: bool,
    /// A flush has failed: what was made may not be what is on the disk, and the kernel says so only once.
    doubtful: bool,
}

#[derive(Debug)]
enum Slot {
    Missing,
    Working,
    Failed,
    Have(HeldLayer),
}

impl Store {
    /// Begins to bring in an image, or goes on where an earlier attempt was cut off. Manifest and configuration are
    /// verified by the caller: the one by its name or the registry's word, the other by the manifest.
    ///
    /// # Errors
    ///
    /// [`ImageError::Document`] for a configuration that cannot be used, [`ImageError::Platform`] for one of another
    /// machine, [`ImageError::Store`].
    pub fn incoming(&self, manifest: &[u8], config: &[u8], limits: Limits) -> Result<Incoming, ImageError> {
        Incoming::begin(self, Disk::of(self)?, Some(manifest), config, limits, true)
    }
}

// === impl Incoming ===

impl Incoming {
    pub(crate) fn begin(
        store: &Store,
        disk: Disk,
        manifest: Option<&[u8]>,
        config: &[u8],
        limits: Limits,
        resumable: bool,
    ) -> Result<Self, ImageError> {
        let id = Digest::of(config);
        let unusable = |problem: String| ImageError::Document { id, problem };
        let document: ImageDocument =
            serde_json::from_slice(config).map_err(|error| unusable(error.to_string()))?;
        let ours = crate::import::architecture();
        if !Platform::host().may_run(&document.os, &document.architecture) {
            let found = format!("{}/{}", document.os, document.architecture);
            return Err(ImageError::Platform { id, found, ours });
        }
        let diff_ids = &document.rootfs.diff_ids;
        if diff_ids.len() > MAX_LAYERS {
            let problem = format!("it has {} layers, at most {MAX_LAYERS} are possible", diff_ids.len());
            return Err(unusable(problem));
        }
        store.remove_abandoned()?;
        let (mut layers, mut slots, mut below) = (Vec::new(), Vec::new(), None);
        for diff_id in diff_ids {
            let chain_id = Digest::chain(below, *diff_id);
            below = Some(chain_id);
            let held = match store.hold_stored(&chain_id)? {
                None => store.hold_finished(&chain_id)?,
                stored => stored,
            };
            layers.push(IncomingLayer { diff_id: *diff_id, chain_id, have: held.is_some() });
            slots.push(held.map_or(Slot::Missing, Slot::Have));
        }
        Ok(Self {
            store: store.clone(),
            disk,
            id,
            config: config.to_vec(),
            manifest: manifest.map(<[u8]>::to_vec),
            layers,
            limits,
            resumable,
            state: Mutex::new(State {
                slots,
                aborted: false,
                unflushed: 0,
                flushing: false,
                doubtful: false,
            }),
            changed: Condvar::new(),
        })
    }

    /// An image of one layer, which was made in `work`, after `disk` was opened, before anybody knew its DiffID.
    pub(crate) fn of_layer(
        store: &Store,
        disk: Disk,
        config: &[u8],
        work: Temporary,
        diff_id: Digest,
        size: u64,
    ) -> Result<Self, ImageError> {
        let incoming = Self::begin(store, disk, None, config, Limits::default(), false)?;
        if let [slot @ (Slot::Missing | Slot::Failed)] = incoming.state().slots.as_mut_slice() {
            *slot = Slot::Have(HeldLayer::made_in(work, Layer { chain_id: diff_id, diff_id, size })?);
        }
        Ok(incoming)
    }

    /// The image's identifier: the digest of its configuration.
    pub fn id(&self) -> Digest {
        self.id
    }

    /// Its layers, lowest first, as they were when it began to come.
    pub fn layers(&self) -> &[IncomingLayer] {
        &self.layers
    }

    /// Fails where the layers that are missing cannot fit, by the sizes of their blobs, lowest first; 0 for what says
    /// nothing. A compressed layer takes no less of the disk than its blob has: what there is no room for need not come,
    /// again with each attempt, before that is found.
    ///
    /// # Errors
    ///
    /// [`ImageError::DiskFull`], [`ImageError::Store`].
    pub fn check_room(&self, blobs: impl Iterator<Item = u64>) -> Result<(), ImageError> {
        let missing = blobs.zip(&self.layers).filter(|(_, layer)| !layer.have);
        let needed = missing.map(|(size, _)| size).fold(0, u64::saturating_add);
        if needed == 0 {
            return Ok(());
        }
        let mut budget = Budget::new(self.disk.as_fd(), self.limits);
        budget.bytes(needed).map_err(|fault| match fault {
            Fault::DiskFull { needed, available, reserve } => {
                let (what, path) = ("the layers that are missing".to_owned(), self.store.root().to_owned());
                ImageError::DiskFull { what, path, needed, available, reserve }
            }
            fault => explain("of the image", self.store.root(), fault),
        })
    }

    /// Verifies, decompresses and unpacks a layer as it streams: tar, plain or compressed with gzip or zstd, told by its
    /// first bytes. `blob` is the digest and size of the bytes as they come.
    ///
    /// May be called from several threads, for one layer each, begun from the lowest. Where it must know what the layers
    /// below have, it waits until they are made, and `source` with it. Where another process, or another image, makes the
    /// same layer, it waits for that; `source` is not read before it is clear that it is needed, and not at all if not.
    ///
    /// # Errors
    ///
    /// [`ImageError::Mismatch`], [`ImageError::Layer`], [`ImageError::Unpack`], [`ImageError::DiskFull`] for the layer,
    /// of which then nothing is left; it may be tried again. [`ImageError::Published`] where trying again is in vain.
    /// [`ImageError::LayerSource`] when `source` fails, or has more or fewer bytes than it should have.
    /// [`ImageError::Aborted`] when another layer it waits for has failed, or after [`Incoming::abort`].
    pub fn unpack(
        &self,
        index: usize,
        source: impl Read + Send,
        blob: (Digest, u64),
    ) -> Result<(), ImageError> {
        self.unpack_from(index, &blob.0.to_string(), Some(blob), || Ok(source))
    }

    /// Lets every thread that waits in [`Incoming::unpack`] fail, now and from now on.
    pub fn abort(&self) {
        self.state().aborted = true;
        self.changed.notify_all();
    }

    /// As [`Incoming::unpack`]; `name` is the layer's for people.
    pub(crate) fn unpack_from<R: Read + Send>(
        &self,
        index: usize,
        name: &str,
        blob: Option<(Digest, u64)>,
        open: impl FnOnce() -> Result<R, ImageError>,
    ) -> Result<(), ImageError> {
        let layer = *self.layers.get(index).ok_or_else(|| ImageError::Layer {
            layer: name.to_owned(),
            problem: format!("image {} has {} layers", self.id, self.layers.len()),
        })?;
        let Some(working) = self.begin_layer(index)? else { return Ok(()) };
        let held = match self.acquire(&layer.chain_id)? {
            Acquired::Have(held) => held,
            Acquired::Ours(making) => {
                let lower = |above| self.lower(index, above);
                let made =
                    making.make(name, self.limits, Lowers::new(index, &lower), layer.diff_id, |sink| {
                        let (promised, size) = blob.unzip();
                        let streamed = unpack_stream(open()?, size, sink)
                            .map_err(|failure| LayerFailure::of(failure, name, promised))?;
                        if let Some(expected) = promised
                            && expected != streamed.blob
                        {
                            let found = streamed.blob;
                            return Err(
                                ImageError::Mismatch { what: name.to_owned(), expected, found }.into()
                            );
                        }
                        if promised.is_some() && streamed.diff_id != layer.diff_id {
                            let problem = format!(
                                "its archive has digest {}, and the image's configuration says {}",
                                streamed.diff_id, layer.diff_id
                            );
                            return Err(LayerFailure::Published(Fault::Malformed(problem)));
                        }
                        Ok((streamed.diff_id, streamed.archive_size))
                    })?;
                match made {
                    Some(held) => held,
                    // Somebody has counted on it the moment it was finished, and committed it already.
                    None => self
                        .store
                        .hold_stored(&layer.chain_id)?
                        .ok_or(ImageError::Incomplete { id: self.id, layer: layer.diff_id })?,
                }
            }
        };
        working.done(held);
        self.flush_early(index)
    }

    /// Takes a layer on; `None` when it is here.
    fn begin_layer(&self, index: usize) -> Result<Option<Working<'_>>, ImageError> {
        let mut state = self.state();
        loop {
            if state.aborted {
                return Err(ImageError::Aborted);
            }
            match &state.slots[index] {
                Slot::Have(_) => return Ok(None),
                Slot::Missing | Slot::Failed => break,
                Slot::Working => state = self.changed.wait(state).unwrap_or_else(PoisonError::into_inner),
            }
        }
        state.slots[index] = Slot::Working;
        Ok(Some(Working { incoming: self, index, held: None }))
    }

    /// Waits until the layer is ours to make, or was made by somebody else.
    fn acquire(&self, chain: &Digest) -> Result<Acquired, ImageError> {
        loop {
            if let Some(acquired) = self.store.acquire(chain)? {
                return Ok(acquired);
            }
            let state = self.state();
            let (state, _) =
                self.changed.wait_timeout(state, LOOK_AT_OTHERS).unwrap_or_else(PoisonError::into_inner);
            if state.aborted {
                return Err(ImageError::Aborted);
            }
        }
    }

    /// The directory of the layer that is `above` layers below the one at `index`, from the top; waits for it.
    fn lower(&self, index: usize, above: usize) -> Result<Arc<OwnedFd>, Fault> {
        let below = index - 1 - above;
        let mut state = self.state();
        loop {
            match &state.slots[below] {
                _ if state.aborted => return Err(Fault::Aborted),
                Slot::Have(held) => return Ok(Arc::clone(&held.diff)),
                Slot::Failed => return Err(Fault::Aborted),
                Slot::Missing | Slot::Working => {
                    state = self.changed.wait(state).unwrap_or_else(PoisonError::into_inner);
                }
            }
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        // Every change of the state is one assignment: a panic between two leaves none half done.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Incoming {
    fn drop(&mut self) {
        let state = self.state.get_mut().unwrap_or_else(PoisonError::into_inner);
        if self.resumable && !state.doubtful {
            return;
        }
        for slot in &state.slots {
            if let Slot::Have(held) = slot
                && let Err(error) = held.discard()
            {
                // The next one that comes finds and removes it.
                tracing::debug!(path = %held.path.display(), %error, "an unfinished image's layer stays");
            }
        }
        // Nobody may be told again of what could not be written: so others' layers that wait to be gone on with go too.
        if state.doubtful
            && let Err(error) = self.store.sweep(|path| !is_flushed(path))
        {
            tracing::warn!(%error, "layers that may not be on the disk stay");
        }
    }
}

/// A layer that this call makes: whatever becomes of it, whoever waits is told.
struct Working<'a> {
    incoming: &'a Incoming,
    index: usize,
    held: Option<HeldLayer>,
}

impl Working<'_> {
    fn done(mut self, held: HeldLayer) {
        self.held = Some(held);
    }
}

impl Drop for Working<'_> {
    fn drop(&mut self) {
        self.incoming.state().slots[self.index] = self.held.take().map_or(Slot::Failed, Slot::Have);
        self.incoming.changed.notify_all();
    }
}

//! The directory of a layer, from empty to finished.

use std::fs::{DirBuilder, File};
use std::os::fd::AsFd;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use coracle_linux::{PowerLoss, replace_file};
use rustix::fs::{Mode, fchmod};

use super::held::{Finished, HeldLayer, remove};
use super::{Incoming, Slot};
use crate::store::{Layer, boot_id, open_directory};
use crate::unpack::{Budget, Failure, Fault, LayerWriter, Limits, Lowers, Sink, SplitWriter, disinherit};
use crate::{Digest, ImageError};

/// So much is flushed while other layers come, and not left for the end, when everybody waits for it. A layer that has as
/// much by itself is noted to survive a loss of power; smaller ones are quicker made again than noted one by one.
const LARGE: u64 = 64 << 20;

/// An empty directory of a layer, under our lock.
pub(crate) struct Making {
    pub(super) path: PathBuf,
    pub(super) lock: File,
    /// `None` where only its content will tell.
    pub(super) chain: Option<Digest>,
}

impl Making {
    /// Makes the layer; `None` when it has gone to the store already. `unpack` answers with the DiffID and the archive's
    /// size. Nothing is left of one that fails.
    pub(super) fn make(
        self,
        name: &str,
        limits: Limits,
        lowers: Lowers<'_>,
        expected: Digest,
        unpack: impl FnOnce(Sink<'_>) -> Result<(Digest, u64), LayerFailure>,
    ) -> Result<Option<HeldLayer>, ImageError> {
        let made = (|| {
            let (found, size) = write_layer(&self.path, name, limits, lowers, unpack)?;
            if found != expected {
                return Err(ImageError::Mismatch { what: name.to_owned(), expected, found });
            }
            Ok(Layer { chain_id: self.chain.unwrap_or(found), diff_id: found, size })
        })();
        made.and_then(|layer| self.finish(layer)).inspect_err(|_| {
            if let Err(error) = remove(&self.path) {
                tracing::warn!(path = %self.path.display(), %error, "what is left of a layer cannot be removed");
            }
        })
    }

    fn finish(&self, layer: Layer) -> Result<Option<HeldLayer>, ImageError> {
        write_finished(&self.path, &Finished { layer: layer.clone(), boot: boot_id()?, flushed: false })?;
        let held = HeldLayer {
            layer,
            diff: Arc::new(open_directory(&self.path.join("diff"))?),
            path: self.path.clone(),
            stored: false,
            flushed: false,
            lock: self.lock.try_clone().map_err(ImageError::store("open", &self.path))?,
        };
        Ok(held.share()?.then_some(held))
    }
}

impl Incoming {
    /// Has what was made so far written to disk, while others come, where it has become much.
    pub(super) fn flush_early(&self, index: usize) -> Result<(), ImageError> {
        let large = {
            let state = &mut *self.state();
            let Slot::Have(held) = &state.slots[index] else { return Ok(()) };
            if held.stored || held.flushed {
                return Ok(());
            }
            state.unflushed += held.layer.size;
            let large = (held.layer.size >= LARGE).then(|| (held.path.clone(), held.layer.clone()));
            // One at a time is enough: what it does not reach the next one does.
            if large.is_none() && (state.unflushed < LARGE || state.flushing) {
                return Ok(());
            }
            state.unflushed = 0;
            state.flushing = true;
            large
        };
        let flushed = self.disk.flush();
        {
            let mut state = self.state();
            state.flushing = false;
            state.doubtful |= flushed.is_err();
        }
        flushed?;
        let Some((path, layer)) = large else { return Ok(()) };
        let finished = Finished { layer, boot: boot_id()?, flushed: true };
        match write_finished(&path, &finished) {
            // Another image with this layer has been committed meanwhile, and it is not here any more.
            Err(ImageError::Store { source, .. }) if source.kind() == std::io::ErrorKind::NotFound => {}
            written => written?,
        }
        if let Slot::Have(held) = &mut self.state().slots[index] {
            held.flushed = true;
        }
        Ok(())
    }
}

/// Makes a layer's directory in `path`. What one that fails has left is the caller's to remove.
pub(crate) fn write_layer(
    path: &Path,
    name: &str,
    limits: Limits,
    lowers: Lowers<'_>,
    unpack: impl FnOnce(Sink<'_>) -> Result<(Digest, u64), LayerFailure>,
) -> Result<(Digest, u64), ImageError> {
    let diff = path.join("diff");
    // An archive without an entry for its root gives it the usual mode.
    DirBuilder::new().mode(0o755).create(&diff).map_err(ImageError::store("create", &diff))?;
    let root = open_directory(&diff)?;
    // The store may lie in a directory with a default ACL, which is nothing of the layer's.
    disinherit(&root)
        .and_then(|()| fchmod(&root, Mode::from_raw_mode(0o755)))
        .map_err(|error| ImageError::store("set the mode of", &diff)(error.into()))?;
    let fail = |failure: LayerFailure| match failure {
        LayerFailure::Fault(fault) => explain(name, &diff, fault),
        LayerFailure::Published(fault) => ImageError::Published(Box::new(explain(name, &diff, fault))),
        LayerFailure::Image(error) => error,
    };
    let disk = open_directory(path)?;
    let budget = Budget::new(disk.as_fd(), limits);
    let max_archive = budget.max_archive().map_err(|fault| fail(fault.into()))?;
    let writer = LayerWriter::new(root, disk.as_fd(), lowers, budget);
    let split = SplitWriter::create(disk.as_fd(), Budget::new(disk.as_fd(), limits));
    let split = split.map_err(|fault| fail(fault.into()))?;
    unpack(Sink { writer, split, max_archive }).map_err(fail)
}

fn write_finished(path: &Path, finished: &Finished) -> Result<(), ImageError> {
    let record = path.join("layer.json");
    let json = serde_json::to_vec(finished)
        .map_err(|error| ImageError::Record { path: record.clone(), problem: error.to_string() })?;
    // Where the layer is not flushed, it is with all others, by `flush`.
    let after = if finished.flushed { PowerLoss::OldOrNew } else { PowerLoss::MayTear };
    replace_file(&record, 0o600, after, &json)
        .map_err(|error| ImageError::store("write", &record)(error.into()))
}

/// Why a layer could not be made.
pub(crate) enum LayerFailure {
    Fault(Fault),
    /// With what is what it was promised to be.
    Published(Fault),
    Image(ImageError),
}

impl LayerFailure {
    /// What a failure to unpack means, where the layer's digest was promised.
    pub(super) fn of(failure: Failure, name: &str, promised: Option<Digest>) -> Self {
        let Failure { fault, blob } = failure;
        match (promised, blob) {
            (Some(expected), Some(found)) if fault.is_of_the_layer() => {
                if expected == found {
                    return Self::Published(fault);
                }
                ImageError::Mismatch { what: name.to_owned(), expected, found }.into()
            }
            _ => Self::Fault(fault),
        }
    }
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

pub(crate) fn explain(layer: &str, path: &Path, fault: Fault) -> ImageError {
    let layer = layer.to_owned();
    match fault {
        Fault::Read(source) => ImageError::LayerSource { layer, source },
        Fault::Malformed(problem) => ImageError::Layer { layer, problem },
        Fault::Write { step, entry, source } => ImageError::Unpack { layer, step, entry, source },
        Fault::Aborted => ImageError::Aborted,
        Fault::DiskFull { needed, available, reserve } => {
            let what = format!("layer {layer}");
            ImageError::DiskFull { what, path: path.to_owned(), needed, available, reserve }
        }
    }
}

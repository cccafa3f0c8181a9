//! The layers of an image, some of them at a time, from the lowest up.

use std::io::ErrorKind;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use coracle_image::{ImageError, Incoming};
use coracle_model::ImageName;
use coracle_registry::{Credential, Descriptor};
use futures_util::StreamExt;
use futures_util::stream;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use crate::error::PullError;
use crate::place::Places;
use crate::pull::{Fault, Parts};
use crate::stream::{Feed, feed};
use crate::thread::on_thread;
use crate::{LayerState, Progress};

/// How many layers of one image come at once, as under Docker and containerd.
const OF_AN_IMAGE: usize = 3;

/// How many layers come at once, of all images. Each holds at most the 1 MiB of its feed and what decompressing takes,
/// the largest part of which is a zstd window.
const OF_ALL: usize = 6;

/// The layers under way, of all images.
///
/// **Invariant:** an image takes its places from the lowest layer up. So the lowest layer of an image that has any
/// place is under way or made, waits for no place, and no image waits for ever.
pub(crate) struct Layers {
    places: Places,
    /// How many bytes have come, of all of them.
    moved: AtomicU64,
}

// === impl Layers ===

impl Layers {
    pub(crate) fn new() -> Self {
        Self { places: Places::new(OF_ALL), moved: AtomicU64::new(0) }
    }

    /// How many bytes of layers have come so far, of all images. What waits for a place, or for memory, waits for them.
    pub(crate) fn moved(&self) -> u64 {
        self.moved.load(Ordering::Relaxed)
    }
}

/// Lets the threads that make layers end when nobody waits for them any more.
struct AbortOnDrop<'a>(&'a Incoming);

impl Drop for AbortOnDrop<'_> {
    fn drop(&mut self) {
        // With none of them at work it changes nothing.
        self.0.abort();
    }
}

/// What there is to know to get a layer.
struct Fetch<'a> {
    parts: &'a Parts,
    name: &'a ImageName,
    incoming: &'a Arc<Incoming>,
    credential: &'a Credential,
    progress: &'a watch::Sender<Progress>,
    /// Another layer has failed.
    given_up: CancellationToken,
}

/// How a thread was given what a registry sends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Fed {
    /// All of it, or as much as it wanted.
    AsWanted,
    /// It was cut off, since another layer has failed.
    GivenUp,
}

/// Brings the layers that are missing. Its threads have ended when it returns.
pub(crate) async fn fetch_layers(
    parts: &Parts,
    name: &ImageName,
    incoming: &Arc<Incoming>,
    layers: &[Descriptor],
    credential: &Credential,
    progress: &watch::Sender<Progress>,
) -> Result<(), Fault> {
    let _abort = AbortOnDrop(incoming);
    let given_up = CancellationToken::new();
    let fetch = Fetch { parts, name, incoming, credential, progress, given_up };
    let missing = layers.iter().zip(incoming.layers()).enumerate().filter(|(_, (_, known))| !known.have);
    let missing: Vec<_> = missing.map(|(index, (layer, _))| (index, layer.clone())).collect();
    let mut made =
        stream::iter(missing).map(|(index, layer)| fetch.layer(index, layer)).buffer_unordered(OF_AN_IMAGE);
    let mut failed = None;
    while let Some(made) = made.next().await {
        let Err(fault) = made else { continue };
        incoming.abort();
        fetch.given_up.cancel();
        // What was given up because another has failed says nothing.
        if failed.as_ref().is_none_or(is_aborted) {
            failed = Some(fault);
        }
    }
    failed.map_or(Ok(()), Err)
}

fn is_aborted(fault: &Fault) -> bool {
    matches!(fault, Fault::Other(PullError::Store { source: ImageError::Aborted, .. }))
}

// === impl Fetch ===

impl Fetch<'_> {
    async fn layer(&self, index: usize, layer: Descriptor) -> Result<(), Fault> {
        let aborted = || self.store(ImageError::Aborted);
        let place = tokio::select! {
            place = self.parts.layers.places.take() => place,
            () = self.given_up.cancelled() => return Err(aborted()),
        };
        if self.given_up.is_cancelled() {
            return Err(aborted());
        }
        let (feed, reader) = feed();
        let (incoming, blob) = (Arc::clone(self.incoming), (layer.digest, layer.size));
        let thread = on_thread("unpack", move || incoming.unpack(index, reader, blob));
        let mut thread =
            thread.map_err(|source| Fault::Other(PullError::Thread { name: self.name.clone(), source }))?;
        let mut fed = Ok(Fed::AsWanted);
        let moved = watch::Sender::new(());
        let made = async {
            tokio::select! {
                made = &mut thread => made,
                result = self.feed(feed, index, &layer, &moved) => {
                    fed = result;
                    self.change(index, |layer| layer.state = LayerState::Unpacking);
                    thread.await
                }
            }
        };
        let made = tokio::select! {
            made = made => made,
            never = place.lend(moved.subscribe()) => match never {},
        };
        match (made, fed) {
            (Some(Ok(())), _) => {
                self.change(index, |layer| (layer.state, layer.done) = (LayerState::Complete, layer.size));
                Ok(())
            }
            // The stream that broke off is why the thread has failed.
            (_, Err(error)) => Err(Fault::Registry(error)),
            // What the thread says of that is nobody's fault.
            (_, Ok(Fed::GivenUp)) => Err(aborted()),
            (Some(Err(error)), Ok(Fed::AsWanted)) => Err(self.unpacked(&layer, error)),
            (None, Ok(Fed::AsWanted)) => {
                Err(Fault::Other(PullError::Ended("a thread that unpacks a layer".to_owned())))
            }
        }
    }

    /// Hands the thread what the registry sends, once it wants it. Ends early where the thread does.
    async fn feed(
        &self,
        mut feed: Feed,
        index: usize,
        layer: &Descriptor,
        moved: &watch::Sender<()>,
    ) -> Result<Fed, coracle_registry::Error> {
        let stream = async {
            if feed.wanted().await.is_err() {
                return Ok(Fed::AsWanted);
            }
            self.change(index, |layer| layer.state = LayerState::Pulling);
            let mut blob = self.parts.client.blob(self.name, layer, self.credential).await?;
            while let Some(bytes) = blob.next().await? {
                let count = bytes.len() as u64;
                if feed.send(bytes).await.is_err() {
                    return Ok(Fed::AsWanted);
                }
                self.change(index, |layer| layer.done += count);
                self.parts.layers.moved.fetch_add(count, Ordering::Relaxed);
                moved.send_replace(());
            }
            // Whoever reads no more has an error of its own, or all it needs.
            let _ = feed.end();
            Ok(Fed::AsWanted)
        };
        tokio::select! {
            result = stream => result,
            () = self.given_up.cancelled() => Ok(Fed::GivenUp),
        }
    }

    fn change(&self, index: usize, change: impl FnOnce(&mut crate::LayerProgress)) {
        self.progress.send_modify(|progress| {
            if let Some(layer) = progress.layers.get_mut(index) {
                change(layer);
            }
        });
    }

    /// What an error of whoever unpacks a layer means for the pull.
    fn unpacked(&self, layer: &Descriptor, source: ImageError) -> Fault {
        use ImageError::{Layer, LayerSource, Mismatch, Published};
        let client = &self.parts.client;
        let hosts = match &source {
            Published(_) => client.sent_by(layer.digest),
            // Whoever else sends it sends the same, or it was not sent to its end.
            LayerSource { source, .. } if !may_be_sent_wrong(source.kind()) => Vec::new(),
            // What is no archive is most often not what was asked for either.
            Mismatch { .. } | Layer { .. } | LayerSource { .. } => client.was_wrong(layer.digest),
            _ => return self.store(source),
        };
        Fault::Other(PullError::Layer { name: self.name.clone(), source, hosts })
    }

    fn store(&self, source: ImageError) -> Fault {
        Fault::Other(PullError::Store { name: self.name.clone(), source })
    }
}

/// Whether bytes that are not those that were asked for may be why a layer cannot be read: as decompressors have it, and
/// whoever counts the bytes. What is not supported, and what befalls the reader itself, is no sender's fault.
fn may_be_sent_wrong(kind: ErrorKind) -> bool {
    use ErrorKind::{FileTooLarge, InvalidData, InvalidInput, Other, UnexpectedEof};
    matches!(kind, FileTooLarge | InvalidData | InvalidInput | Other | UnexpectedEof)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_befalls_the_reader_is_no_senders_fault() {
        for kind in [ErrorKind::ConnectionAborted, ErrorKind::Unsupported, ErrorKind::StorageFull] {
            assert!(!may_be_sent_wrong(kind), "{kind}");
        }
        assert!(may_be_sent_wrong(ErrorKind::UnexpectedEof) && may_be_sent_wrong(ErrorKind::InvalidInput));
    }
}

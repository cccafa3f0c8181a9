//! Pulls, for all who want images.

use std::num::NonZeroUsize;
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

use coracle_credentials::Found;
use coracle_image::Store;
use coracle_model::ImageName;
use coracle_registry::Client;
use tokio::sync::watch;
use tokio::time::{Instant, timeout};

use crate::access::Access;
use crate::error::PullError;
use crate::flight::{Flights, Share, Told};
use crate::layers::Layers;
use crate::pull::{Parts, Pulled};
use crate::turn::{Rate, Turns};
use crate::{LayerState, Progress, Stage};

/// How long a pull may stand still, with the network silent too: containerd's `image_pull_progress_timeout`. How long a
/// registry may keep silent is the client's, and less.
const STALLED: Duration = Duration::from_secs(300);

/// Pulls images into a store. Cloning is cheap.
#[derive(Clone)]
pub struct Puller(Arc<Inner>);

struct Inner {
    parts: RwLock<Parts>,
    turns: Turns,
    access: Option<Access>,
    flights: Flights<Key, Told<Pulled, PullError>, Progress>,
}

/// What makes two pulls the same: what they are for, and what is shown.
type Key = (ImageName, Vec<Found>);

/// What pulls may cost.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct PullLimits {
    /// How many run at once; `None` for as many as are asked for.
    pub at_once: Option<NonZeroUsize>,
    /// How often one begins; `None` for as often as is asked for.
    pub rate: Option<Rate>,
}

/// A pull that somebody waits for. Dropping it gives it up, unless others wait for the same.
pub struct Pull(Share<Told<Pulled, PullError>, Progress>);

// === impl Puller ===

impl Puller {
    /// Pulls from the registries of `client` into `store`. Who may use what it pulls is put on record in `access`;
    /// without one it is nobody's business, as with what is imported.
    pub fn new(store: Store, client: Client, limits: PullLimits, access: Option<Access>) -> Self {
        Self(Arc::new(Inner {
            parts: RwLock::new(Parts { store, client, layers: Arc::new(Layers::new()) }),
            turns: Turns::new(limits.at_once, limits.rate),
            access,
            flights: Flights::new(),
        }))
    }

    /// Goes by other limits, and asks by another client, from now on. A pull that has begun goes on as it was; one that
    /// waits for its turn waits by the new limits.
    pub fn change(&self, client: Client, limits: PullLimits) {
        self.0.parts.write().unwrap_or_else(PoisonError::into_inner).client = client;
        self.0.turns.change(limits.at_once, limits.rate);
    }

    /// Pulls an image, with the first of these credentials that the registry does not refuse. Where the same is under
    /// way, it is waited for that. Must be called in a tokio runtime.
    pub fn pull(&self, name: &ImageName, credentials: Vec<Found>) -> Pull {
        let inner = Arc::clone(&self.0);
        let (name, shown) = (name.clone(), credentials.clone());
        let key = (name.clone(), credentials);
        let begin = |progress| async move { inner.run(&name, &shown, &progress).await.map_err(Arc::new) };
        Pull(self.0.flights.join(key, begin, |problem| Err(Arc::new(PullError::Ended(problem)))))
    }
}

impl Inner {
    async fn run(
        &self,
        name: &ImageName,
        credentials: &[Found],
        progress: &watch::Sender<Progress>,
    ) -> Result<Pulled, PullError> {
        let asked = Instant::now();
        let turn = self.turns.take().await;
        progress.send_modify(|progress| progress.waited = asked.elapsed());
        let record = match &self.access {
            Some(access) => Some(access.begin(name).await?),
            None => None,
        };
        let parts = self.parts.read().unwrap_or_else(PoisonError::into_inner).clone();
        let pulled = tokio::select! {
            pulled = parts.pull(name, credentials, progress, &turn, record.as_ref()) => pulled,
            never = turn.lend(progress.subscribe()) => match never {},
            () = stalled(progress.subscribe(), || parts.layers.moved()) => {
                Err(PullError::Stalled { name: name.clone(), wait: STALLED })
            }
        };
        match (record, &pulled) {
            // What cannot be put on record is asked of the registry again by the next pod, and this one may have it.
            (Some(record), Ok(pulled)) => {
                if let Err(error) = record.pulled(pulled.image.id, &pulled.with).await {
                    tracing::warn!(image = %name, %error, "who may use the image is not on record");
                }
            }
            (Some(record), Err(_)) => record.failed().await,
            (None, _) => {}
        }
        pulled
    }
}

/// Waits until nothing has moved for too long, of this pull or of those it may wait for. What is brought to the disk takes
/// as long as the disk does.
async fn stalled(mut progress: watch::Receiver<Progress>, moved: impl Fn() -> u64) {
    loop {
        let before = moved();
        match timeout(STALLED, progress.changed()).await {
            Ok(Ok(())) => {}
            // Whoever tells has gone, and the pull with it.
            Ok(Err(_)) => std::future::pending().await,
            Err(_) if is_up_to_the_disk(&progress.borrow()) => {}
            Err(_) if moved() != before => {}
            Err(_) => return,
        }
    }
}

/// Whether there is something that nobody but the disk keeps waiting: the commit, or a layer whose bytes have all come. A
/// large layer is flushed by whoever unpacks it, and one that waits for those below is kept waiting by a stream, whose
/// silence its client does not bear for so long.
fn is_up_to_the_disk(progress: &Progress) -> bool {
    progress.stage == Stage::Committing
        || progress
            .layers
            .iter()
            .any(|layer| layer.state == LayerState::Unpacking && layer.done >= layer.size)
}

// === impl Pull ===

impl Pull {
    /// How far it is.
    pub fn progress(&self) -> watch::Receiver<Progress> {
        self.0.progress()
    }

    /// Waits for its end.
    ///
    /// # Errors
    /// [`PullError`]; all who wait for the same pull are told the same.
    pub async fn ended(self) -> Result<Pulled, Arc<PullError>> {
        self.0.ended().await
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicU64, Ordering};

    use coracle_model::Digest;

    use super::*;
    use crate::LayerProgress;

    #[tokio::test(start_paused = true)]
    async fn a_disk_that_takes_long_for_a_layer_that_has_come_is_no_stall() {
        let unpacking =
            LayerProgress { digest: Digest::of(b""), size: 10, done: 10, state: LayerState::Unpacking };
        let coming = LayerProgress { done: 9, state: LayerState::Pulling, ..unpacking.clone() };
        let layers = vec![coming, unpacking];
        let (tell, progress) =
            watch::channel(Progress { stage: Stage::Pulling, layers, waited: Duration::ZERO });
        let stall = stalled(progress, || 0);
        tokio::pin!(stall);
        assert!(timeout(STALLED * 10, &mut stall).await.is_err(), "it is flushed");
        tell.send_modify(|progress| progress.layers[1].state = LayerState::Complete);
        timeout(STALLED * 2, &mut stall).await.expect("the other does not come");
    }

    #[tokio::test(start_paused = true)]
    async fn a_pull_that_waits_for_others_is_not_stalled_while_they_get_on() {
        let (tell, progress) = watch::channel(Progress::default());
        let moved = AtomicU64::new(0);
        let stall = stalled(progress, || moved.load(Ordering::Relaxed));
        tokio::pin!(stall);
        for _ in 0..10 {
            moved.fetch_add(1, Ordering::Relaxed);
            assert!(timeout(STALLED - Duration::from_secs(1), &mut stall).await.is_err());
        }
        tell.send_modify(|progress| progress.stage = Stage::Pulling);
        assert!(timeout(STALLED / 2, &mut stall).await.is_err());
        timeout(STALLED * 2, &mut stall).await.expect("nothing moves any more");
    }
}

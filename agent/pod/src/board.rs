//! What the node's pods are seen to be, for whoever asks.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use coracle_model::{ManifestSource, Pod, PodStatus, PodUid};
use tokio::sync::watch;

use crate::admission::PortHold;
use crate::record::Deletion;

/// A pod as it is seen now. Cheap to clone.
#[derive(Clone, Debug)]
pub struct PodSnapshot {
    /// What is to run.
    pub pod: Arc<Pod>,
    /// Where its manifest is.
    pub source: Option<ManifestSource>,
    /// What is seen of it.
    pub status: Arc<PodStatus>,
    /// Set once its removal was asked for.
    pub deletion: Option<Deletion>,
    /// Where its worker is.
    pub phase: WorkerPhase,
    /// It has ended, that is on record also for after a reboot, and what goes with it is released.
    pub settled: bool,
    /// What it has of the host's ports.
    pub ports: PortHold,
    /// Grows with every change of any pod: `metadata.resourceVersion`.
    pub version: u64,
}

/// Where the worker of a pod is.
///
/// ```text
/// syncing ──────> terminating ──────> terminated ──────> gone
///         removal             nothing            removal
///         or its end          runs               and all released
/// ```
///
/// There is no way back: what was told to end never starts again; a pod that begins again when the node's shutdown
/// is over gets a worker of its own for that. A step that fails is tried again in
/// its phase, however often, and its failure is seen in the status and told as an event.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum WorkerPhase {
    /// The pod is taken towards what its specification says. A failure leads to another try, with a delay.
    Syncing,
    /// Its containers are being stopped, each with what is left of the grace period. A failure leads to
    /// another try; a shorter grace period to another try at once.
    Terminating,
    /// Nothing of it runs. Sandbox and volumes are released, and its logs once its removal was asked for;
    /// a pod that came to its end by itself waits here for that. A failure leads to another try of that
    /// release.
    Terminated,
    /// All is released, and the worker has ended.
    Gone,
}

/// Where workers put what they see.
#[derive(Debug)]
pub(crate) struct Board {
    pods: Mutex<BTreeMap<PodUid, PodSnapshot>>,
    version: watch::Sender<u64>,
}

impl Board {
    pub(crate) fn new() -> Self {
        Self { pods: Mutex::default(), version: watch::Sender::new(0) }
    }

    /// Puts up what is seen of a pod, in place of what was.
    pub(crate) fn publish(&self, mut snapshot: PodSnapshot) {
        let mut pods = self.lock();
        self.version.send_modify(|version| {
            *version += 1;
            snapshot.version = *version;
            pods.insert(snapshot.pod.uid.clone(), snapshot);
        });
    }

    /// Takes a pod down: it is gone.
    pub(crate) fn remove(&self, uid: &PodUid) {
        let mut pods = self.lock();
        if pods.remove(uid).is_some() {
            self.version.send_modify(|version| *version += 1);
        }
    }

    pub(crate) fn get(&self, uid: &PodUid) -> Option<PodSnapshot> {
        self.lock().get(uid).cloned()
    }

    pub(crate) fn all(&self) -> Vec<PodSnapshot> {
        self.lock().values().cloned().collect()
    }

    pub(crate) fn changes(&self) -> watch::Receiver<u64> {
        self.version.subscribe()
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<PodUid, PodSnapshot>> {
        self.pods.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

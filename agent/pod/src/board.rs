//! What the node's pods are seen to be, for whoever asks.

use std::collections::{BTreeMap, BTreeSet};
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
///
/// Who follows the version may look at pods while the value of the channel is borrowed (`wait_for` does), so nothing is
/// sent to the channel under the lock of the pods.
#[derive(Debug)]
pub(crate) struct Board {
    seen: Mutex<Seen>,
    version: watch::Sender<u64>,
    /// The pods that were told to end, whether their workers have heard of it or not.
    ending: Mutex<BTreeSet<PodUid>>,
    /// How often devices were released.
    freed: watch::Sender<u64>,
}

#[derive(Debug, Default)]
struct Seen {
    pods: BTreeMap<PodUid, PodSnapshot>,
    version: u64,
}

impl Board {
    pub(crate) fn new() -> Self {
        Self {
            seen: Mutex::default(),
            version: watch::Sender::new(0),
            ending: Mutex::default(),
            freed: watch::Sender::new(0),
        }
    }

    /// Puts up what is seen of a pod, in place of what was.
    pub(crate) fn publish(&self, mut snapshot: PodSnapshot) {
        self.change(|seen| {
            snapshot.version = seen.version + 1;
            seen.pods.insert(snapshot.pod.uid.clone(), snapshot);
            true
        });
    }

    /// A pod was told to end, or begins anew.
    pub(crate) fn set_ending(&self, uid: &PodUid, ending: bool) {
        let mut all = self.ending.lock().unwrap_or_else(PoisonError::into_inner);
        match ending {
            true => drop(all.insert(uid.clone())),
            false => drop(all.remove(uid)),
        }
    }

    /// Whether a pod is being ended, or has ended: what it has becomes free without anybody's doing.
    pub(crate) fn is_ending(&self, uid: &PodUid) -> bool {
        self.ending.lock().unwrap_or_else(PoisonError::into_inner).contains(uid)
            || self.lock().pods.get(uid).is_none_or(|pod| pod.phase > WorkerPhase::Syncing)
    }

    /// Devices of a pod were released.
    pub(crate) fn devices_freed(&self) {
        self.freed.send_modify(|times| *times += 1);
    }

    /// Changes whenever devices were released.
    pub(crate) fn freed_devices(&self) -> watch::Receiver<u64> {
        self.freed.subscribe()
    }

    /// Takes a pod down: it is gone.
    pub(crate) fn remove(&self, uid: &PodUid) {
        self.set_ending(uid, false);
        self.change(|seen| seen.pods.remove(uid).is_some());
    }

    pub(crate) fn get(&self, uid: &PodUid) -> Option<PodSnapshot> {
        self.lock().pods.get(uid).cloned()
    }

    pub(crate) fn all(&self) -> Vec<PodSnapshot> {
        self.lock().pods.values().cloned().collect()
    }

    pub(crate) fn changes(&self) -> watch::Receiver<u64> {
        self.version.subscribe()
    }

    /// Changes what is seen, and tells it if anything was changed.
    fn change(&self, change: impl FnOnce(&mut Seen) -> bool) {
        let version = {
            let mut seen = self.lock();
            if !change(&mut seen) {
                return;
            }
            seen.version += 1;
            seen.version
        };
        // Of two that change it at once either may come first here: what the later has told covers both.
        self.version.send_if_modified(|told| {
            let is_news = *told < version;
            *told = version.max(*told);
            is_news
        });
    }

    fn lock(&self) -> MutexGuard<'_, Seen> {
        self.seen.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc;
    use std::thread;
    use std::time::Duration;

    use coracle_model::{PodPhase, QosClass, RestartPolicy};

    use super::*;
    use crate::tests::values::pod;

    fn snapshot() -> PodSnapshot {
        let status = PodStatus {
            phase: PodPhase::Pending,
            conditions: Vec::new(),
            reason: None,
            message: None,
            host_ips: Vec::new(),
            pod_ips: Vec::new(),
            start_time: None,
            init_container_statuses: Vec::new(),
            container_statuses: Vec::new(),
            ephemeral_container_statuses: Vec::new(),
            qos_class: QosClass::BestEffort,
        };
        PodSnapshot {
            pod: Arc::new(pod("a", RestartPolicy::Always, &[], &["web"])),
            source: None,
            status: Arc::new(status),
            deletion: None,
            phase: WorkerPhase::Syncing,
            settled: false,
            ports: PortHold::None,
            version: 0,
        }
    }

    #[test]
    fn who_looks_at_pods_with_their_version_borrowed_and_who_puts_one_up_do_not_wait_for_each_other() {
        let board = Arc::new(Board::new());
        let (tell, told) = mpsc::channel();
        thread::spawn(move || {
            let changes = board.changes();
            let borrowed = changes.borrow();
            let publishing = Arc::clone(&board);
            let publisher = thread::spawn(move || publishing.publish(snapshot()));
            // As `wait_for` does, at whatever step of the publisher's.
            while board.all().is_empty() {
                thread::yield_now();
            }
            assert_eq!(*borrowed, 0, "what is borrowed does not change");
            drop(borrowed);
            publisher.join().unwrap();
            assert_eq!((*changes.borrow(), board.all()[0].version), (1, 1));
            tell.send(()).unwrap();
        });
        told.recv_timeout(Duration::from_secs(60)).expect("both come to an end");
    }
}

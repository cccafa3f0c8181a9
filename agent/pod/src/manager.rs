//! All pods of the node: a worker each, at most one per namespace and name.

mod ports;

use std::collections::{BTreeSet, HashMap};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use coracle_model::{
    DeviceHealth, EphemeralContainer, EventType, ExtendedResource, ManifestSource, Pod, PodKey, PodUid,
};
use tokio::sync::{oneshot, watch};
use tokio_util::task::TaskTracker;

use crate::admission::{PortHold, PortOffer};
use crate::board::{Board, PodSnapshot, WorkerPhase};
use crate::ephemeral::{Addition, NotAdded};
use crate::inbox::{Eviction, Inbox};
use crate::ports::{Clock, Events, PodEvent, Ports, Refusal};
use crate::record::{Ending, PodRecord, Shutdown, Verdict};
use crate::scene::Scene;
use crate::status::{self, Course, Notes};
use crate::worker::{End, Origin, Worker};

/// The node's pods. Cheap to clone; all clones are the same pods.
pub struct Pods<P: Ports> {
    shared: Arc<Shared<P>>,
}

/// No pod is taken up any more: the agent ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the agent is ending and takes up no pod")]
pub struct Closed;

/// Two pods of one namespace and name cannot both be taken over.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("pod {uid} cannot be taken over: {key} is already taken by pod {taken_by}")]
pub struct KeyTaken {
    /// The pod that was not taken over.
    pub uid: PodUid,
    /// Its namespace and name.
    pub key: PodKey,
    /// The pod that has them.
    pub taken_by: PodUid,
}

struct Shared<P: Ports> {
    ports: Arc<P>,
    board: Arc<Board>,
    slots: Mutex<Slots>,
    tasks: TaskTracker,
    /// How many pods there are, workers and successors.
    count: watch::Sender<usize>,
}

#[derive(Default)]
struct Slots {
    by_key: HashMap<PodKey, Slot>,
    keys: HashMap<PodUid, PodKey>,
    closed: bool,
    shutting_down: bool,
}

/// Why a pod is refused while the node shuts down; the kubelet's reason.
const NODE_SHUTDOWN: &str = "NodeShutdown";

/// What has a namespace and name, and what is to have it next. A later successor replaces an earlier.
struct Slot {
    uid: PodUid,
    grace: Duration,
    inbox: Arc<Inbox>,
    terminating: bool,
    successor: Option<(Arc<Pod>, Option<ManifestSource>)>,
}

// === impl Pods ===

impl<P: Ports> Clone for Pods<P> {
    fn clone(&self) -> Self {
        Self { shared: Arc::clone(&self.shared) }
    }
}

impl<P: Ports> Pods<P> {
    /// No pods yet.
    pub fn new(ports: Arc<P>) -> Self {
        let shared = Shared {
            ports,
            board: Arc::new(Board::new()),
            slots: Mutex::default(),
            tasks: TaskTracker::new(),
            count: watch::Sender::new(0),
        };
        Self { shared: Arc::new(shared) }
    }

    /// Takes over a pod that was found on record after a restart of the agent, with whatever of it is
    /// there. To be called for every record before the first [`Pods::set_desired`]. Needs a tokio runtime.
    pub fn adopt(&self, record: PodRecord) -> Result<(), KeyTaken> {
        self.take_over(record, Origin::Recorded)
    }

    /// Takes over a pod that an agent has had before the machine was booted again: one that had ended stays so.
    /// Of any other, and of one that only the node's shutdown has ended, what ran when it was seen last counts as
    /// ended with the machine, its restart policy says what follows, and restart counts go on. To be called as [`Pods::adopt`], once what the earlier boot has
    /// left of the pod is cleared away, but its volumes.
    pub fn adopt_after_reboot(&self, record: PodRecord) -> Result<(), KeyTaken> {
        self.take_over(record, Origin::Rebooted)
    }

    fn take_over(&self, mut record: PodRecord, origin: Origin) -> Result<(), KeyTaken> {
        if origin == Origin::Rebooted {
            record.start_uptime = None;
            if record.begins_again() && !record.lacks_ports() {
                record.begin_again(self.shared.ports.clock().now());
            }
            // Of containers that are gone.
            record.progress.clear();
            // What plugins answered is of no use any more, and they may have other devices by now.
            record.devices = None;
        }
        let mut slots = self.shared.lock();
        if let Some(slot) = slots.by_key.get(&record.pod.key) {
            let (uid, key) = (record.pod.uid.clone(), record.pod.key.clone());
            return Err(KeyTaken { uid, key, taken_by: slot.uid.clone() });
        }
        self.shared.start(&mut slots, record, origin);
        self.shared.recount(&slots);
        Ok(())
    }

    /// Every record is taken over. Pods among them that lack ports of the host, or devices, go on from now on, once
    /// these are free.
    pub fn all_are_adopted(&self) {
        for pod in self.snapshot() {
            self.shared.await_ports(&pod.pod);
        }
        // Some may not have been known as holders yet.
        self.shared.lock().by_key.values().for_each(|slot| slot.inbox.devices_changed());
    }

    /// Has a pod run. One that runs already is left as it is; one whose namespace and name are taken, be
    /// it by an earlier life of the same pod, starts once that pod is gone. Needs a tokio runtime.
    pub fn set_desired(&self, pod: Arc<Pod>, source: Option<ManifestSource>) -> Result<(), Closed> {
        let mut slots = self.shared.lock();
        if slots.closed {
            return Err(Closed);
        }
        if let Some(slot) = slots.by_key.get_mut(&pod.key) {
            if slot.uid == pod.uid && !slot.terminating {
                self.shared.withdraw(slot);
                slot.inbox.notify();
            } else {
                self.shared.withdraw(slot);
                if slot.uid != pod.uid {
                    self.shared.board.publish(self.shared.waiting(&pod, source.clone()));
                }
                slot.successor = Some((pod, source));
            }
        } else {
            let record = PodRecord::new(pod, source, self.shared.ports.clock().now());
            self.shared.start(&mut slots, record, Origin::New);
        }
        self.shared.recount(&slots);
        Ok(())
    }

    /// Removes a pod and all it has. Its containers get `grace`, or what the pod says; a later request can
    /// only shorten that. Whether there is such a pod.
    pub fn terminate(&self, uid: &PodUid, grace: Option<Duration>) -> bool {
        let mut slots = self.shared.lock();
        let mut found = false;
        if let Some(slot) = slots.keys.get(uid).cloned().and_then(|key| slots.by_key.get_mut(&key)) {
            slot.terminate(grace);
            self.shared.board.set_ending(uid, true);
            found = true;
        }
        for slot in slots.by_key.values_mut() {
            if slot.successor.as_ref().is_some_and(|(pod, _)| pod.uid == *uid) {
                self.shared.withdraw(slot);
                found = true;
            }
        }
        self.shared.recount(&slots);
        found
    }

    /// Ends a pod for the node's sake: it fails, with a reason, and stays until it is removed. Whether there is
    /// such a pod. One that has ended already stays as it is.
    pub fn evict(&self, uid: &PodUid, eviction: Eviction) -> bool {
        let slots = self.shared.lock();
        let slot = slots.keys.get(uid).and_then(|key| slots.by_key.get(key));
        slot.map(|slot| {
            slot.inbox.evict(eviction);
            self.shared.board.set_ending(uid, true);
        })
        .is_some()
    }

    /// Tells whether the node is shutting down. As long as it is, every new pod fails with `NodeShutdown`. Once it is
    /// not, be it that the shutdown was called off or that it is over and left its records, the pods begin again that
    /// only it has ended or refused, where they are of a manifest.
    pub fn set_shutting_down(&self, shutting_down: bool) {
        let mut slots = self.shared.lock();
        slots.shutting_down = shutting_down;
        if !shutting_down {
            slots.by_key.values().for_each(|slot| slot.inbox.begin_again());
        }
    }

    /// Waits until each of these pods is gone, or has ended and nothing is left to be done for it.
    pub async fn settled(&self, uids: &BTreeSet<PodUid>) {
        let is_settled = || uids.iter().all(|uid| self.get(uid).is_none_or(|pod| pod.settled));
        // The sender lives as long as `self`.
        let _ = self.changes().wait_for(|_| is_settled()).await;
    }

    /// Adds an ephemeral container to a pod. Answers once it is on record: from then on it outlives the agent.
    ///
    /// # Errors
    /// [`NotAdded`]: the pod is as before.
    pub async fn add_ephemeral(&self, uid: &PodUid, container: EphemeralContainer) -> Result<(), NotAdded> {
        let (answer, answered) = oneshot::channel();
        {
            let slots = self.shared.lock();
            let slot = slots.keys.get(uid).and_then(|key| slots.by_key.get(key)).filter(|_| !slots.closed);
            slot.ok_or(NotAdded::Gone)?.inbox.add(Addition { container, answer });
        }
        // Nobody answers for a pod that is gone.
        answered.await.unwrap_or(Err(NotAdded::Gone))
    }

    /// Something of the pod changed, as an exit: its worker looks again. Called by the runtime.
    pub fn notify(&self, uid: &PodUid) {
        let slots = self.shared.lock();
        if let Some(slot) = slots.keys.get(uid).and_then(|key| slots.by_key.get(key)) {
            slot.inbox.notify();
        }
    }

    /// The node changed: what is seen of it stands in every pod's status.
    pub fn node_changed(&self) {
        self.shared.lock().by_key.values().for_each(|slot| slot.inbox.notify());
    }

    /// An image came that the pod waits for: it tries again at once.
    pub fn image_came(&self, uid: &PodUid) {
        let slots = self.shared.lock();
        if let Some(slot) = slots.keys.get(uid).and_then(|key| slots.by_key.get(key)) {
            slot.inbox.retry_images();
        }
    }

    /// Devices of a resource came, went, or changed their health: pods that wait for them try again, and those that
    /// have some show how they are.
    pub fn devices_changed(&self, resource: &ExtendedResource) {
        let slots = self.shared.lock();
        for (uid, slot) in slots.keys.iter().filter_map(|(uid, key)| Some((uid, slots.by_key.get(key)?))) {
            let pod = self.shared.board.get(uid).map(|seen| seen.pod);
            if pod.is_some_and(|pod| pod.spec.asks_for(resource)) {
                slot.inbox.devices_changed();
            }
        }
    }

    /// ConfigMaps or Secrets the pod is made of changed: what waits for them is tried again at once, and its
    /// volumes are brought up to date.
    pub fn config_changed(&self, uid: &PodUid) {
        let slots = self.shared.lock();
        if let Some(slot) = slots.keys.get(uid).and_then(|key| slots.by_key.get(key)) {
            slot.inbox.config_changed();
        }
    }

    /// Every pod as it is seen now, in order of UID. A pod that is gone is not among them.
    pub fn snapshot(&self) -> Vec<PodSnapshot> {
        self.shared.board.all()
    }

    /// One pod as it is seen now.
    pub fn get(&self, uid: &PodUid) -> Option<PodSnapshot> {
        self.shared.board.get(uid)
    }

    /// Changes with every change of a pod. The value is the latest [`PodSnapshot::version`], or a greater
    /// one when a pod went.
    pub fn changes(&self) -> watch::Receiver<u64> {
        self.shared.board.changes()
    }

    /// Ends the workers and leaves the pods as they are, for the next agent. Returns once all ended.
    pub async fn detach(&self) {
        {
            let mut slots = self.shared.lock();
            slots.closed = true;
            for slot in slots.by_key.values_mut() {
                self.shared.withdraw(slot);
                slot.inbox.detach();
            }
        }
        self.shared.tasks.close();
        self.shared.tasks.wait().await;
    }

    /// Removes every pod and takes up no other. Returns once all are gone. May be called again meanwhile
    /// with a shorter grace period.
    pub async fn terminate_all(&self, grace: Option<Duration>) {
        {
            let mut slots = self.shared.lock();
            slots.closed = true;
            for slot in slots.by_key.values_mut() {
                self.shared.withdraw(slot);
                slot.terminate(grace);
            }
        }
        // The sender lives as long as `self`.
        let _ = self.shared.count.subscribe().wait_for(|count| *count == 0).await;
    }
}

// === impl Slot ===

impl Slot {
    fn terminate(&mut self, grace: Option<Duration>) {
        self.terminating = true;
        self.inbox.terminate(grace.unwrap_or(self.grace));
    }
}

// === impl Shared ===

impl<P: Ports> Shared<P> {
    /// Starts the worker of a pod whose namespace and name are free.
    fn start(self: &Arc<Self>, slots: &mut Slots, mut record: PodRecord, origin: Origin) {
        if origin == Origin::New {
            record.start_uptime = Some(self.ports.clock().uptime());
            if slots.shutting_down {
                let message = "Pod was rejected as the node is shutting down.";
                self.refuse(
                    &mut record,
                    Refusal { reason: NODE_SHUTDOWN.into(), message: message.to_owned() },
                );
                record.ending.iter_mut().for_each(|ending| ending.shutdown = Some(Shutdown::Refused));
            } else if let Err(refusal) = self.ports.admit(&record.pod) {
                self.refuse(&mut record, refusal);
            } else {
                self.judge_ports(slots, &mut record);
            }
        }
        let pod = Arc::clone(&record.pod);
        let inbox = Arc::new(Inbox::default());
        let slot = Slot {
            uid: pod.uid.clone(),
            grace: pod.spec.termination_grace_period,
            inbox: Arc::clone(&inbox),
            terminating: record.deletion.is_some(),
            successor: None,
        };
        slots.by_key.insert(pod.key.clone(), slot);
        slots.keys.insert(pod.uid.clone(), pod.key.clone());
        self.employ(inbox, record, origin);
        if origin == Origin::New {
            self.await_ports(&pod);
        }
    }

    /// Gives a pod a worker.
    fn employ(self: &Arc<Self>, inbox: Arc<Inbox>, record: PodRecord, origin: Origin) {
        let pod = Arc::clone(&record.pod);
        let mut worker = Worker::new(Arc::clone(&self.ports), inbox, Arc::clone(&self.board), record, origin);
        worker.announce();
        let shared = Arc::clone(self);
        self.tasks.spawn(async move {
            let end = worker.run().await;
            drop(worker);
            match end {
                End::Gone => shared.retire(&pod),
                End::Again(record) => shared.begin_again(*record),
                End::Detached => {}
            }
        });
    }

    /// A pod begins again that only the node's shutdown has ended, or that lacked ports: unless the node shuts down
    /// again, or another pod has its ports by now.
    fn begin_again(self: &Arc<Self>, mut record: PodRecord) {
        let slots = self.lock();
        let Some(slot) = slots.by_key.get(&record.pod.key) else { return };
        let (mut origin, inbox, pod) = (Origin::Recorded, Arc::clone(&slot.inbox), Arc::clone(&record.pod));
        let still_lacks = record.lacks_ports() && self.offer(&slots, &pod) != PortOffer::Free;
        if !slots.shutting_down && !still_lacks {
            tracing::info!(pod = %pod.key, uid = %pod.uid, "the pod begins again");
            record.begin_again(self.ports.clock().now());
            self.board.set_ending(&pod.uid, slot.terminating);
            self.judge_ports(&slots, &mut record);
            origin = Origin::Rebooted;
        }
        self.employ(inbox, record, origin);
        self.await_ports(&pod);
    }

    /// Has a pod fail that is not taken up, in the kubelet's words.
    fn refuse(&self, record: &mut PodRecord, refusal: Refusal) {
        let Refusal { reason, message } = refusal;
        let verdict = Verdict {
            reason: reason.to_string(),
            message: format!("Pod was rejected: {message}"),
            disruption: false,
            refused: true,
        };
        let (since, grace) = (record.start_time, Duration::ZERO);
        record.ending = Some(Ending { since, grace, verdict: Some(verdict), shutdown: None });
        let event = PodEvent { kind: EventType::Warning, reason: &reason, message, container: None };
        self.ports.events().record(&record.pod, event);
    }

    /// A pod is gone: what waited for its namespace and name starts.
    fn retire(self: &Arc<Self>, pod: &Pod) {
        let mut slots = self.lock();
        self.board.remove(&pod.uid);
        slots.keys.remove(&pod.uid);
        if let Some((pod, source)) = slots.by_key.remove(&pod.key).and_then(|slot| slot.successor) {
            let record = PodRecord::new(pod, source, self.ports.clock().now());
            self.start(&mut slots, record, Origin::New);
        }
        self.recount(&slots);
    }

    /// Forgets the pod that waits for a slot: nothing was made of it yet.
    fn withdraw(&self, slot: &mut Slot) {
        if let Some((pod, _)) = slot.successor.take().filter(|(pod, _)| pod.uid != slot.uid) {
            self.board.remove(&pod.uid);
        }
    }

    /// What is seen of a pod that waits for its namespace and name.
    fn waiting(&self, pod: &Arc<Pod>, source: Option<ManifestSource>) -> PodSnapshot {
        let now = self.ports.clock().now();
        let notes = Notes {
            start_time: now,
            back_off: &Default::default(),
            failures: &Default::default(),
            pod_failure: None,
            awaited_devices: None,
            devices: None,
            health: &|_, _| DeviceHealth::Unknown,
            course: Course::Running,
            host_ips: &self.ports.node_addresses(),
            verdict: None,
            previous: None,
            now,
        };
        let (observed, progress, round) = Default::default();
        let scene = Scene { pod, observed: &observed, progress: &progress, round: &round, restarting: false };
        PodSnapshot {
            pod: Arc::clone(pod),
            source,
            status: Arc::new(status::status(&scene, &notes)),
            deletion: None,
            phase: WorkerPhase::Syncing,
            settled: false,
            ports: PortHold::None,
            version: 0,
        }
    }

    fn recount(&self, slots: &Slots) {
        let count = slots.by_key.len();
        self.count.send_if_modified(|before| std::mem::replace(before, count) != count);
    }

    fn lock(&self) -> MutexGuard<'_, Slots> {
        self.slots.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

//! Which containers are probed.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use coracle_model::{ContainerId, Name, Pod, PodUid, ProbeKind};
use tokio::task::AbortHandle;
use tokio::time::Instant;

use crate::check::Checker;
use crate::error::Error;
use crate::node::{Node, Target};
use crate::state::Findings;
use crate::worker::{self, Shared, Watched};

/// A container that is to be probed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Probed {
    /// Which run of it.
    pub id: ContainerId,
    /// The name it has in the pod, whose specification has its probes.
    pub name: Name,
    /// For how long it has run: initial delays count from its start.
    pub running: Duration,
    /// What an agent before this one has found of it.
    pub known: Option<Findings>,
    /// Its startup and liveness are of no interest any more.
    pub readiness_only: bool,
}

/// Runs the probes of containers. Dropping it ends them.
pub struct Prober<N> {
    shared: Arc<Shared<N>>,
    /// Locked to change what is probed and to ask for findings, never by a probe.
    pods: Mutex<HashMap<PodUid, HashMap<ContainerId, Entry>>>,
}

/// A container's probes, as long as they run.
struct Entry {
    watched: Arc<Watched>,
    tasks: Vec<(ProbeKind, AbortHandle)>,
}

// === impl Prober ===

impl<N: Node> Prober<N> {
    /// Probes nothing yet.
    ///
    /// # Errors
    /// As [`Checker::new`].
    pub fn new(node: N) -> Result<Self, Error> {
        let shared = Shared { node, checker: Checker::new()? };
        Ok(Self { shared: Arc::new(shared), pods: Mutex::default() })
    }

    /// The node that is probed.
    pub fn node(&self) -> &N {
        &self.shared.node
    }

    /// What attempts share.
    pub fn checker(&self) -> &Checker {
        &self.shared.checker
    }

    /// Has exactly these containers of the pod probed. Those that are already go on as they are; what was
    /// found of the others is forgotten, and an attempt under way is given up. To be called in a runtime
    /// of tokio's.
    pub fn set_probed(&self, pod: &Arc<Pod>, containers: Vec<Probed>) {
        let mut pods = self.pods();
        let mut before = pods.remove(&pod.uid).unwrap_or_default();
        let entries = containers.into_iter().map(|probed| {
            let mut entry = before.remove(&probed.id).unwrap_or_else(|| self.start(pod, &probed));
            if probed.readiness_only {
                entry.end(|kind| kind != ProbeKind::Readiness);
            }
            (probed.id, entry)
        });
        let entries: HashMap<_, _> = entries.collect();
        if !entries.is_empty() {
            pods.insert(pod.uid.clone(), entries);
        }
    }

    /// What was found of the pod's containers that are probed.
    pub fn findings(&self, pod: &PodUid) -> BTreeMap<ContainerId, Findings> {
        let pods = self.pods();
        let entries = pods.get(pod).into_iter().flatten();
        entries.map(|(id, entry)| (*id, entry.watched.findings())).collect()
    }

    fn start(&self, pod: &Arc<Pod>, probed: &Probed) -> Entry {
        let target = Target { pod: Arc::clone(pod), container: probed.name.clone(), id: probed.id };
        let probes = pod.container(probed.name.as_str()).map(|container| container.probes.clone());
        let watched = Arc::new(Watched::new(target, probes.unwrap_or_default(), probed.known.clone()));
        let kinds = [ProbeKind::Startup, ProbeKind::Liveness, ProbeKind::Readiness];
        let kinds = kinds.into_iter().filter(|kind| !probed.readiness_only || *kind == ProbeKind::Readiness);
        let tasks = kinds.filter_map(|kind| {
            let probe = watched.probes.get(kind)?;
            let mut first = Instant::now() + probe.initial_delay.saturating_sub(probed.running);
            if probed.known.is_some() {
                // An agent that takes over a node full of pods does not ask all of them at once.
                first += probe.period.mul_f64(fastrand::f64());
            }
            let task = worker::run(Arc::clone(&self.shared), Arc::clone(&watched), kind, first);
            Some((kind, tokio::spawn(task).abort_handle()))
        });
        let tasks = tasks.collect();
        Entry { watched, tasks }
    }

    fn pods(&self) -> MutexGuard<'_, HashMap<PodUid, HashMap<ContainerId, Entry>>> {
        self.pods.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<N> std::fmt::Debug for Prober<N> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Prober").finish_non_exhaustive()
    }
}

// === impl Entry ===

impl Entry {
    fn end(&mut self, which: impl Fn(ProbeKind) -> bool) {
        self.tasks.retain(|(kind, task)| {
            let ends = which(*kind);
            if ends {
                task.abort();
            }
            !ends
        });
    }
}

impl Drop for Entry {
    fn drop(&mut self) {
        self.end(|_| true);
    }
}

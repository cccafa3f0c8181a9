//! A node without a kernel: the ports, in memory, on the virtual clock, watching the worker's manners.

pub(crate) mod devices;
mod hooks;
mod probes;
mod runtime;
mod store;

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use coracle_model::{ContainerId, EventType, Pod, PodUid, RestartPolicy};
use jiff::{SignedDuration, Timestamp};
use tokio::sync::watch;
use tokio::time::{Instant, sleep};

use super::values::at;
use crate::ports::*;
use crate::{PodRecord, Pods};

/// The calls that can be made to fail or to hang.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Verb {
    Sandbox,
    Volumes,
    RefreshVolumes,
    MeasureVolumes,
    Image,
    Create,
    Start,
    PostStart,
    PreStop,
    Stop,
    Remove,
    RemoveSandbox,
    ReleaseVolumes,
    ReleaseLogs,
    Save,
    Checkpoint,
    Forget,
    Allocate,
    Prepare,
    ReleaseDevices,
}

pub(crate) const VERBS: [Verb; 20] = [
    Verb::Sandbox,
    Verb::Volumes,
    Verb::RefreshVolumes,
    Verb::MeasureVolumes,
    Verb::Image,
    Verb::Create,
    Verb::Start,
    Verb::PostStart,
    Verb::PreStop,
    Verb::Stop,
    Verb::Remove,
    Verb::RemoveSandbox,
    Verb::ReleaseVolumes,
    Verb::ReleaseLogs,
    Verb::Save,
    Verb::Checkpoint,
    Verb::Forget,
    Verb::Allocate,
    Verb::Prepare,
    Verb::ReleaseDevices,
];

/// What every call takes.
pub(crate) const CALL: Duration = Duration::from_millis(1);

#[derive(Default)]
pub(crate) struct State {
    pub(crate) pods: BTreeMap<PodUid, Host>,
    pub(crate) records: BTreeMap<PodUid, PodRecord>,
    pub(crate) checkpoints: BTreeMap<PodUid, PodRecord>,
    /// Every call, as verb and what it is about.
    pub(crate) calls: Vec<(Verb, String)>,
    /// How many of the next calls fail.
    pub(crate) fail: BTreeMap<Verb, u32>,
    /// What was told.
    pub(crate) events: Vec<Told>,
    /// What the probes of containers have found, of those that are probed.
    pub(crate) probed: BTreeMap<PodUid, BTreeMap<ContainerId, (Probed, Findings)>>,
    /// The containers whose postStart hook has been carried out.
    pub(crate) post_started: BTreeSet<ContainerId>,
    /// The hooks that are being carried out.
    pub(crate) hooks: BTreeSet<ContainerId>,
    /// Every container there ever was.
    pub(crate) names: BTreeMap<ContainerId, String>,
    /// When containers got the stop signal.
    pub(crate) signalled: BTreeMap<ContainerId, Instant>,
    /// What a worker did that it must not.
    pub(crate) violations: Vec<String>,
    /// How long containers take to end after SIGTERM; `None` when they ignore it.
    pub(crate) obey: Option<Duration>,
    /// What those that obey exit with.
    pub(crate) exit_code: i32,
    /// What measuring the volumes of pods takes, and finds.
    pub(crate) measuring: (Duration, Option<String>),
    /// Devices of plugins.
    pub(crate) inventory: devices::Inventory,
    /// The node's addresses.
    pub(crate) node_addresses: Vec<IpAddr>,
    counter: u8,
}

/// What one pod has on the host.
#[derive(Default)]
pub(crate) struct Host {
    pub(crate) pod: Option<Arc<Pod>>,
    pub(crate) observed: Observed,
    pub(crate) sandboxes: u32,
    pub(crate) volumes: bool,
    pub(crate) logs: bool,
    /// Which runs of containers have got through their start: by name, sandbox and restart count.
    begun: BTreeSet<(String, u32, u32)>,
    /// The last attempt of every container there was.
    attempts: BTreeMap<String, u32>,
    /// Containers were forgotten: with the machine, or with the sandbox.
    forgotten: bool,
    images: BTreeSet<String>,
}

/// An event, as it was told.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Told {
    pub(crate) pod: PodUid,
    pub(crate) kind: EventType,
    pub(crate) reason: String,
    pub(crate) message: String,
    pub(crate) container: Option<String>,
}

pub(crate) struct Fake {
    pub(crate) state: Mutex<State>,
    hanging: watch::Sender<BTreeSet<Verb>>,
    epoch: Instant,
    /// By how much the wall clock was set forward, or back.
    set_by: Mutex<SignedDuration>,
}

impl Fake {
    pub(crate) fn new() -> Arc<Self> {
        let state = State { obey: Some(CALL), exit_code: 143, ..State::default() };
        Arc::new(Self {
            state: Mutex::new(state),
            hanging: watch::Sender::new(BTreeSet::new()),
            epoch: Instant::now(),
            set_by: Mutex::default(),
        })
    }

    pub(crate) fn with<T>(&self, look: impl FnOnce(&mut State) -> T) -> T {
        look(&mut self.state.lock().unwrap())
    }

    pub(crate) fn fail(&self, verb: Verb, times: u32) {
        self.with(|state| state.fail.insert(verb, times));
    }

    pub(crate) fn hang(&self, verb: Verb) {
        self.hanging.send_if_modified(|hanging| hanging.insert(verb));
    }

    pub(crate) fn unhang(&self, verb: Verb) {
        self.hanging.send_if_modified(|hanging| hanging.remove(&verb));
    }

    pub(crate) fn heal(&self) {
        self.hanging.send_modify(BTreeSet::clear);
        self.with(|state| state.fail.clear());
    }

    /// Sets the wall clock, by so much.
    pub(crate) fn set_clock(&self, by: SignedDuration) {
        *self.set_by.lock().unwrap() += by;
    }

    pub(crate) fn count(&self, verb: Verb) -> usize {
        self.with(|state| state.calls.iter().filter(|(called, _)| *called == verb).count())
    }

    /// Ends the live container of that name, as if its program had exited.
    pub(crate) fn exit(&self, pods: &Pods<Fake>, uid: &PodUid, name: &str, code: i32) -> bool {
        let now = self.now();
        let found = self.with(|state| {
            let host = state.pods.get_mut(uid)?;
            let running = |one: &&mut ObservedContainer| {
                one.name == name && matches!(one.state, ObservedState::Running { .. })
            };
            end(host.observed.containers.iter_mut().find(running)?, code, now);
            Some(())
        });
        pods.notify(uid);
        found.is_some()
    }

    /// pause dies, and all its containers with it.
    pub(crate) fn kill_sandbox(&self, pods: &Pods<Fake>, uid: &PodUid) {
        let now = self.now();
        self.with(|state| {
            if let Some(host) = state.pods.get_mut(uid)
                && host.observed.sandbox == SandboxState::Ready
            {
                host.observed.sandbox = SandboxState::Dead;
                host.observed
                    .containers
                    .iter_mut()
                    .filter(|one| one.is_live())
                    .for_each(|one| end(one, 137, now));
            }
        });
        pods.notify(uid);
    }

    /// What only an agent has in memory is gone with it.
    pub(crate) fn forget_agent(&self) {
        self.with(|state| {
            state.probed.clear();
            state.signalled.clear();
        });
    }

    /// The pods as the next agent takes them over: by their records, else by their checkpoints.
    pub(crate) fn take_over(self: &Arc<Self>) -> Pods<Self> {
        let pods = Pods::new(Arc::clone(self));
        let (records, checkpoints) = self.with(|state| (state.records.clone(), state.checkpoints.clone()));
        let rebooted = checkpoints.into_iter().filter(|(uid, _)| !records.contains_key(uid));
        rebooted.for_each(|(_, record)| pods.adopt_after_reboot(record).unwrap());
        records.into_values().for_each(|record| pods.adopt(record).unwrap());
        pods.all_are_adopted();
        pods
    }

    /// The machine is booted again: what is not on disk is gone.
    pub(crate) fn reboot(&self) {
        self.forget_agent();
        self.with(|state| {
            state.records.clear();
            // What an agent that starts finds no record of, it takes back.
            state.inventory.given.clear();
            // An agent that starts removes what no record speaks of.
            let known = &state.checkpoints;
            state.pods.retain(|uid, _| known.contains_key(uid));
            for host in state.pods.values_mut() {
                host.observed = Observed::default();
                host.sandboxes = 0;
                host.images.clear();
                host.begun.clear();
                host.forgotten = true;
            }
        });
    }

    /// Everything that was told of a pod, in order.
    pub(crate) fn told(&self, pod: &PodUid) -> Vec<Told> {
        self.with(|state| state.events.iter().filter(|told| told.pod == *pod).cloned().collect())
    }

    /// What is left of any pod.
    pub(crate) fn leftovers(&self) -> Vec<String> {
        self.with(|state| {
            let records = state.records.keys().chain(state.checkpoints.keys());
            let records = records.map(|uid| format!("the record of {uid}"));
            let hosts = state.pods.iter().filter(|(_, host)| !host.is_clean());
            let probed = state.probed.keys().map(|uid| format!("probes of {uid}"));
            let hooks = state.hooks.iter().map(|id| format!("a hook of {id}"));
            let hosts = hosts.map(|(uid, _)| format!("something of {uid}"));
            let devices = state.inventory.given.keys().map(|uid| format!("devices of {uid}"));
            hosts.chain(devices).chain(records).chain(probed).chain(hooks).collect()
        })
    }

    async fn call(&self, verb: Verb, about: impl ToString) -> Result<(), Failure> {
        self.with(|state| state.calls.push((verb, about.to_string())));
        sleep(CALL).await;
        let mut hanging = self.hanging.subscribe();
        hanging.wait_for(|hanging| !hanging.contains(&verb)).await.unwrap();
        self.with(|state| match state.fail.get_mut(&verb) {
            Some(left) if *left > 0 => {
                *left -= 1;
                let reason = if verb == Verb::Image { "ErrImagePull" } else { "Failed" };
                Err(Failure::new(reason, format!("{verb:?} was made to fail")))
            }
            _ => Ok(()),
        })
    }
}

fn end(container: &mut ObservedContainer, exit_code: i32, finished_at: Timestamp) {
    let started_at = match container.state {
        ObservedState::Running { started_at } => Some(started_at),
        _ => None,
    };
    container.state = ObservedState::Exited {
        exit_code,
        signal: None,
        reason: if exit_code == 0 { "Completed" } else { "Error" }.to_owned(),
        message: None,
        started_at,
        finished_at,
    };
}

impl Host {
    fn is_clean(&self) -> bool {
        self.observed == Observed::default() && !self.volumes && !self.logs
    }
}

impl State {
    fn host(&mut self, pod: &PodUid) -> &mut Host {
        self.pods.entry(pod.clone()).or_default()
    }

    /// That a pod that ends, and has time left, sends no sidecar the signal before its app containers and the
    /// sidecars after it have ended.
    fn check_turn(&mut self, pod: &PodUid, id: ContainerId, grace: Duration) {
        let ends = self.records.get(pod).is_some_and(|record| {
            let own_stop = record.progress.get(&id).is_some_and(|progress| progress.stop.is_some());
            (record.deletion.is_some() || record.ending.is_some()) && !own_stop
        });
        let host = self.host(pod);
        let Some(spec) = host.pod.clone().filter(|_| ends && grace > Duration::from_secs(2)) else { return };
        if host.observed.sandbox != SandboxState::Ready {
            return;
        }
        let place = |name: &str| spec.all_containers().position(|container| container.name == *name);
        let inits = spec.spec.init_containers.len();
        let apps = inits + spec.spec.containers.len();
        let live = host.observed.containers.iter().filter(|one| one.is_live());
        let (own, others): (Vec<_>, Vec<_>) = live.partition(|one| one.id == id);
        let Some(own) = own.first().and_then(|own| place(&own.name)).filter(|own| *own < inits) else {
            return;
        };
        let is_sidecar =
            |at: usize| spec.spec.init_containers[at].restart_policy == Some(RestartPolicy::Always);
        let early = is_sidecar(own)
            && others
                .iter()
                .filter_map(|one| place(&one.name))
                .any(|at| (inits..apps).contains(&at) || at > own && at < inits && is_sidecar(at));
        self.check(!early, || format!("sidecar {own} of {pod} got the signal before its turn"));
    }

    /// Takes note if a container has got through its start: hook and startup probe included.
    fn begin(&mut self, pod: &PodUid, id: ContainerId) {
        let hooked = self.post_started.contains(&id);
        let found = self.probed.get(pod).and_then(|probed| probed.get(&id));
        let found = found.is_some_and(|(_, findings)| findings.started);
        let host = self.host(pod);
        let Some(one) = host.observed.containers.iter().find(|one| one.id == id) else { return };
        let spec = host.pod.as_ref().and_then(|pod| pod.container(&one.name)).unwrap();
        let hooked = hooked || spec.lifecycle.post_start.is_none();
        let found = found || spec.probes.startup.is_none();
        if hooked && found && matches!(one.state, ObservedState::Running { .. }) {
            let sandbox = one.sandbox_attempt.unwrap();
            host.begun.insert((one.name.clone(), sandbox, one.attempt));
        }
    }

    fn check(&mut self, holds: bool, what: impl FnOnce() -> String) {
        if !holds {
            self.violations.push(what());
        }
    }

    /// That nothing is begun for a pod whose end is on record, or which is on no record.
    fn check_alive(&mut self, pod: &PodUid, verb: Verb) {
        let alive = self
            .records
            .get(pod)
            .is_some_and(|record| record.deletion.is_none() && record.finished.is_none());
        self.check(alive, || format!("{verb:?} for {pod}, which is ending or not on record"));
    }
}

impl Clock for Fake {
    fn now(&self) -> Timestamp {
        at(1_000_000_000) + (Instant::now() - self.epoch) + *self.set_by.lock().unwrap()
    }

    fn uptime(&self) -> Duration {
        Instant::now() - self.epoch
    }
}

impl Ports for Fake {
    type Runtime = Self;
    type Images = Self;
    type Volumes = Self;
    type Devices = Self;
    type Probes = Self;
    type Hooks = Self;
    type Records = Self;
    type Events = Self;
    type Clock = Self;

    fn admit(&self, pod: &Pod) -> Result<(), Refusal> {
        match pod.annotations.get("refuse") {
            Some(message) => Err(Refusal { reason: "Forbidden".into(), message: message.clone() }),
            None => Ok(()),
        }
    }

    fn node_addresses(&self) -> Arc<[IpAddr]> {
        self.with(|state| state.node_addresses.as_slice().into())
    }

    fn runtime(&self) -> &Self {
        self
    }
    fn images(&self) -> &Self {
        self
    }
    fn volumes(&self) -> &Self {
        self
    }
    fn devices(&self) -> &Self {
        self
    }
    fn probes(&self) -> &Self {
        self
    }
    fn hooks(&self) -> &Self {
        self
    }
    fn records(&self) -> &Self {
        self
    }
    fn events(&self) -> &Self {
        self
    }
    fn clock(&self) -> &Self {
        self
    }
}

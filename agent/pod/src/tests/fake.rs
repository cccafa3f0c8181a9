//! A node without a kernel: the ports, in memory, on the virtual clock, watching the worker's manners.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use coracle_model::{Container, ContainerId, EventType, Pod, PodUid};
use jiff::Timestamp;
use tokio::sync::watch;
use tokio::time::{Instant, sleep};

use super::values::{at, image};
use crate::ports::*;
use crate::{PodRecord, Pods};

/// The calls that can be made to fail or to hang.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Verb {
    Sandbox,
    Volumes,
    RefreshVolumes,
    Image,
    Create,
    Start,
    Stop,
    Remove,
    RemoveSandbox,
    ReleaseVolumes,
    ReleaseLogs,
    Save,
    Forget,
}

pub(crate) const VERBS: [Verb; 13] = [
    Verb::Sandbox,
    Verb::Volumes,
    Verb::RefreshVolumes,
    Verb::Image,
    Verb::Create,
    Verb::Start,
    Verb::Stop,
    Verb::Remove,
    Verb::RemoveSandbox,
    Verb::ReleaseVolumes,
    Verb::ReleaseLogs,
    Verb::Save,
    Verb::Forget,
];

/// What every call takes.
pub(crate) const CALL: Duration = Duration::from_millis(1);

#[derive(Default)]
pub(crate) struct State {
    pub(crate) pods: BTreeMap<PodUid, Host>,
    pub(crate) records: BTreeMap<PodUid, PodRecord>,
    /// Every call, as verb and what it is about.
    pub(crate) calls: Vec<(Verb, String)>,
    /// How many of the next calls fail.
    pub(crate) fail: BTreeMap<Verb, u32>,
    /// What was told.
    pub(crate) events: Vec<Told>,
    /// What a worker did that it must not.
    pub(crate) violations: Vec<String>,
    /// How long containers take to end after SIGTERM; `None` when they ignore it.
    pub(crate) obey: Option<Duration>,
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
    images: BTreeSet<String>,
}

/// An event, as it was told.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Told {
    pub(crate) pod: PodUid,
    pub(crate) kind: EventType,
    pub(crate) reason: &'static str,
    pub(crate) message: String,
    pub(crate) container: Option<String>,
}

pub(crate) struct Fake {
    pub(crate) state: Mutex<State>,
    hanging: watch::Sender<BTreeSet<Verb>>,
    epoch: Instant,
}

impl Fake {
    pub(crate) fn new() -> Arc<Self> {
        let state = State { obey: Some(CALL), ..State::default() };
        Arc::new(Self {
            state: Mutex::new(state),
            hanging: watch::Sender::new(BTreeSet::new()),
            epoch: Instant::now(),
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

    /// Everything that was told of a pod, in order.
    pub(crate) fn told(&self, pod: &PodUid) -> Vec<Told> {
        self.with(|state| state.events.iter().filter(|told| told.pod == *pod).cloned().collect())
    }

    /// What is left of any pod.
    pub(crate) fn leftovers(&self) -> Vec<String> {
        self.with(|state| {
            let records = state.records.keys().map(|uid| format!("the record of {uid}"));
            let hosts = state.pods.iter().filter(|(_, host)| !host.is_clean());
            hosts.map(|(uid, _)| format!("something of {uid}")).chain(records).collect()
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

impl Runtime for Fake {
    async fn ensure_sandbox(&self, pod: &Arc<Pod>) -> Result<(), Failure> {
        self.call(Verb::Sandbox, &pod.uid).await?;
        self.with(|state| {
            state.check_alive(&pod.uid, Verb::Sandbox);
            let others = state.pods.iter().any(|(uid, host)| {
                *uid != pod.uid && host.pod.as_ref().is_some_and(|other| other.key == pod.key)
            });
            state.check(!others, || format!("two pods of the key {}", pod.key));
            let host = state.host(&pod.uid);
            host.pod = Some(Arc::clone(pod));
            host.logs = true;
            if host.observed.sandbox != SandboxState::Ready {
                host.observed.sandbox = SandboxState::Ready;
                host.observed.sandbox_attempt = host.sandboxes;
                host.sandboxes += 1;
                let live = host.observed.containers.iter().any(ObservedContainer::is_live);
                state.check(!live, || "a new sandbox beside live containers of the old".to_owned());
            }
            Ok(())
        })
    }

    async fn create_container(
        &self,
        pod: &Arc<Pod>,
        container: &Container,
        attempt: u32,
        _: &ImageRef,
    ) -> Result<ContainerId, Failure> {
        self.call(Verb::Create, format!("{} {attempt}", container.name)).await?;
        let created_at = self.now();
        self.with(|state| {
            state.check_alive(&pod.uid, Verb::Create);
            if state.host(&pod.uid).observed.sandbox != SandboxState::Ready {
                return Err(Failure::new("CreateContainerError", "the sandbox is gone"));
            }
            state.counter = state.counter.wrapping_add(1);
            let id = ContainerId::from_bytes([state.counter; 32]);
            let host = state.host(&pod.uid);
            let sandbox = host.observed.sandbox_attempt;
            let name = container.name.as_str();
            let same: Vec<_> = host.observed.containers.iter().filter(|one| one.name == name).collect();
            let current = |one: &&ObservedContainer| one.sandbox_attempt == sandbox;
            let done = |init: &Container| {
                let of_it = |one: &&ObservedContainer| init.name == one.name.as_str() && one.succeeded();
                host.observed.containers.iter().filter(current).any(|one| of_it(&one))
            };
            let is_app = |one: &&ObservedContainer| {
                pod.spec.containers.iter().any(|app| app.name == one.name.as_str())
            };
            let had_apps = host.observed.containers.iter().filter(current).any(|one| is_app(&one));
            let before = pod.spec.init_containers.iter().take_while(|init| init.name != container.name);
            let checks = [
                (host.volumes, "without volumes"),
                (host.images.contains(name), "without its image"),
                (!same.iter().any(|one| one.is_live()), "beside a live one"),
                (same.iter().all(|one| one.attempt < attempt), "with an attempt that was"),
                (attempt == same.iter().map(|one| one.attempt + 1).max().unwrap_or(0), "skipping an attempt"),
                (had_apps || before.into_iter().all(done), "before its init containers"),
            ];
            host.observed.containers.push(ObservedContainer {
                id,
                name: name.to_owned(),
                attempt,
                sandbox_attempt: sandbox,
                image: image(),
                created_at,
                state: ObservedState::Created,
            });
            for (holds, what) in checks {
                state.check(holds, || format!("{name} {attempt} was created {what}"));
            }
            Ok(id)
        })
    }

    async fn start_container(&self, pod: &PodUid, container: ContainerId) -> Result<(), Failure> {
        let result = self.call(Verb::Start, container).await;
        let now = self.now();
        self.with(|state| {
            state.check_alive(pod, Verb::Start);
            let host = state.host(pod);
            let Some(one) = host.observed.containers.iter_mut().find(|one| one.id == container) else {
                return Err(Failure::new("StartError", "there is no such container"));
            };
            match (&one.state, &result) {
                (ObservedState::Created, Ok(())) => one.state = ObservedState::Running { started_at: now },
                (ObservedState::Created, Err(_)) => {
                    end(one, 128, now);
                    if let ObservedState::Exited { reason, message, .. } = &mut one.state {
                        *reason = "StartError".to_owned();
                        *message = Some("exec: no such file".to_owned());
                    }
                }
                _ => {}
            }
            result
        })
    }

    async fn stop_container(
        &self,
        pod: &PodUid,
        container: ContainerId,
        grace: Duration,
    ) -> Result<(), Failure> {
        self.call(Verb::Stop, container).await?;
        let obey = self.with(|state| state.obey);
        sleep(obey.map_or(grace, |obey| obey.min(grace))).await;
        let now = self.now();
        let code = if obey.is_some_and(|obey| obey < grace) { 143 } else { 137 };
        self.with(|state| {
            let mut all = state.host(pod).observed.containers.iter_mut();
            if let Some(one) = all.find(|one| one.id == container && one.is_live()) {
                end(one, code, now);
            }
        });
        Ok(())
    }

    async fn remove_container(&self, pod: &PodUid, container: ContainerId) -> Result<(), Failure> {
        self.call(Verb::Remove, container).await?;
        self.with(|state| {
            let containers = &mut state.host(pod).observed.containers;
            let live = containers.iter().any(|one| one.id == container && one.is_live());
            containers.retain(|one| one.id != container);
            state.check(!live, || "a live container was removed".to_owned());
        });
        Ok(())
    }

    async fn remove_sandbox(&self, pod: &PodUid) -> Result<(), Failure> {
        self.call(Verb::RemoveSandbox, pod).await?;
        self.with(|state| {
            let observed = std::mem::take(&mut state.host(pod).observed);
            let live = observed.containers.iter().any(ObservedContainer::is_live);
            state.check(!live, || format!("{pod} was removed while it ran"));
        });
        Ok(())
    }

    fn observe(&self, pod: &PodUid) -> Observed {
        self.with(|state| state.pods.get(pod).map(|host| host.observed.clone()).unwrap_or_default())
    }
}

impl Images for Fake {
    async fn ensure_image(&self, pod: &Arc<Pod>, container: &Container) -> Result<ImageRef, Failure> {
        self.call(Verb::Image, &container.name).await?;
        self.with(|state| state.host(&pod.uid).images.insert(container.name.to_string()));
        Ok(image())
    }
}

impl Volumes for Fake {
    async fn ensure_volumes(&self, pod: &Arc<Pod>) -> Result<(), Failure> {
        self.call(Verb::Volumes, &pod.uid).await?;
        self.with(|state| state.host(&pod.uid).volumes = true);
        Ok(())
    }

    async fn refresh_volumes(&self, pod: &Arc<Pod>) -> Result<(), Failure> {
        self.call(Verb::RefreshVolumes, &pod.uid).await?;
        self.with(|state| state.check_alive(&pod.uid, Verb::RefreshVolumes));
        Ok(())
    }

    async fn release_volumes(&self, pod: &PodUid) -> Result<(), Failure> {
        self.call(Verb::ReleaseVolumes, pod).await?;
        self.with(|state| {
            let host = state.host(pod);
            host.volumes = false;
            let quiet = host.observed == Observed::default();
            state.check(quiet, || format!("volumes of {pod} were released while it had a sandbox"));
        });
        Ok(())
    }

    async fn release_logs(&self, pod: &Arc<Pod>) -> Result<(), Failure> {
        self.call(Verb::ReleaseLogs, &pod.uid).await?;
        self.with(|state| state.host(&pod.uid).logs = false);
        Ok(())
    }
}

impl Records for Fake {
    async fn save(&self, record: &PodRecord) -> Result<(), Failure> {
        self.call(Verb::Save, &record.pod.uid).await?;
        self.with(|state| state.records.insert(record.pod.uid.clone(), record.clone()));
        Ok(())
    }

    async fn forget(&self, pod: &PodUid) -> Result<(), Failure> {
        self.call(Verb::Forget, pod).await?;
        self.with(|state| {
            state.records.remove(pod);
            let clean = state.pods.remove(pod).unwrap_or_default().is_clean();
            state.check(clean, || format!("{pod} was forgotten before all was released"));
        });
        Ok(())
    }
}

impl Events for Fake {
    fn record(&self, pod: &Pod, event: PodEvent<'_>) {
        let PodEvent { kind, reason, message, container } = event;
        let container = container.map(|name| {
            assert!(pod.all_containers().any(|one| one.name == *name), "{name} is no container of the pod");
            name.to_string()
        });
        self.with(|state| state.events.push(Told { pod: pod.uid.clone(), kind, reason, message, container }));
    }
}

impl Clock for Fake {
    fn now(&self) -> Timestamp {
        at(1_000_000) + (Instant::now() - self.epoch)
    }
}

impl Ports for Fake {
    type Runtime = Self;
    type Images = Self;
    type Volumes = Self;
    type Records = Self;
    type Events = Self;
    type Clock = Self;

    fn runtime(&self) -> &Self {
        self
    }
    fn images(&self) -> &Self {
        self
    }
    fn volumes(&self) -> &Self {
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

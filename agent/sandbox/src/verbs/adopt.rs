//! Taking over what an agent before this one has left running.
//!
//! A pause that lives is asked until it answers, however long that takes: what runs in its sandbox is not given up
//! for a starved host, a frozen pod or a connection that broke. Meanwhile the pod is seen as its records say, what
//! needs its pause is refused, and no other pod waits.

use std::fs;
use std::io;
use std::sync::Arc;
use std::time::Duration;

use coracle_cgroup::PodCgroup;
use coracle_model::{ContainerId, Pod, PodUid, qos_class};
use tokio::sync::mpsc::UnboundedReceiver;
use tokio::sync::oneshot;

use super::exit::namespace_ended;
use super::remove::{remove_links, remove_tree};
use super::stop::{KILL_LIMIT, end_processes};
use super::take_over::Found;
use crate::blocking::blocking;
use crate::error::{Error, file};
use crate::hooks;
use crate::pause::{Event, Listed, PauseError, ask_again};
use crate::pod::{ContainerState, PodState, Sandbox};
use crate::record::{self, ContainerRecord, SandboxRecord};
use crate::runtime::{Inner, Runtime};

/// How long an agent that starts waits for one pod. Most of it is for a busy host: pause answers in microseconds.
const PATIENCE: Duration = Duration::from_secs(2);

/// How far the adoption of a pod has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Adoption {
    /// What there is of the pod is known.
    Complete,
    /// Its pause has not answered yet and is asked again until it does, or is dead. A change of the pod tells
    /// that it did.
    Pending,
}

impl Runtime {
    /// Takes over the sandbox of a pod and all containers in it, touching none that runs.
    ///
    /// Containers whose creation was not completed are removed, and starts that were ordered are completed. A
    /// sandbox whose pause is gone is observed as dead, its containers as ended.
    ///
    /// A record that cannot be read now is like a pause that does not answer: it is tried again.
    ///
    /// # Errors
    /// When the record of the sandbox is none. Other pods are not affected.
    pub async fn adopt(&self, pod: &Arc<Pod>) -> Result<Adoption, Error> {
        let dir = self.inner.pod_dir(&pod.uid);
        let attempt = match record::read::<SandboxRecord>(&dir.join(record::SANDBOX)) {
            // Nothing was started, or everything was removed; what is left of it is not in use.
            Ok(None) => return Ok(Adoption::Complete),
            Ok(Some(sandbox)) => sandbox.attempt,
            Err(error) if record::is_malformed(&error) => return Err(error),
            // Read again before anything is taken over.
            Err(_) => 0,
        };
        let state = self.inner.pod_or_new(&pod.uid);
        {
            let mut data = state.data();
            data.attempt = attempt;
            data.unanswered = true;
        }
        self.inner.kubepods.count(&pod.uid, &pod.spec);
        let (inner, pod, adopted) = (Arc::clone(&self.inner), Arc::clone(pod), Arc::clone(&state));
        let (done, completed) = oneshot::channel();
        tokio::spawn(async move {
            inner.take_over(&pod, &adopted).await;
            // Nobody waits any more where it took long.
            let _ = done.send(());
        });
        match tokio::time::timeout(PATIENCE, completed).await {
            Ok(_) => Ok(Adoption::Complete),
            Err(_) => Ok(Adoption::Pending),
        }
    }

    /// All pods that are to be adopted are: what counts for all of them together is put in force.
    pub async fn all_are_adopted(&self) {
        self.inner.weigh().await;
    }

    /// Every pod that has a directory, known or not. What is not known is a leak. Cgroups are not asked:
    /// the directory goes last, and there may be cgroups of another agent's pods beside ours.
    ///
    /// # Errors
    /// When the directory of sandboxes cannot be listed.
    pub fn leftovers(&self) -> Result<Vec<PodUid>, Error> {
        let dir = self.inner.pods_dir();
        let entries = fs::read_dir(&dir).map_err(file("list", dir))?;
        Ok(entries.flatten().filter_map(|entry| entry.file_name().to_str()?.parse().ok()).collect())
    }
}

/// What is on record of a pod's containers.
#[derive(Default)]
struct Records {
    /// Of completed creations, in order of creation.
    completed: Vec<ContainerRecord>,
    /// Those without a record that can be used: their creation was cut off.
    cut_off: Vec<ContainerId>,
}

/// What pause has told.
struct Answers {
    sandbox: Sandbox,
    events: UnboundedReceiver<Event>,
    listed: Vec<Listed>,
    found: Vec<Found>,
    /// The containers' shared pid namespace is gone.
    namespace_ended: bool,
}

impl Inner {
    /// Asks pause until it answers, is dead, or nobody wants to know any more.
    async fn take_over(self: &Arc<Self>, pod: &Arc<Pod>, state: &Arc<PodState>) {
        let mut delays = ask_again();
        loop {
            let answers = match self.know(pod, state).await {
                Ok(containers) => self.ask(pod, state, &containers).await,
                Err(error) => Err(error),
            };
            match answers {
                Ok(answers) => self.connected(pod, state, answers).await,
                Err(error) if is_gone(&error) => {
                    tracing::warn!(pod = %pod.key, %error, "the pod's pause is gone; it gets a new sandbox");
                    self.gone(pod, state).await;
                }
                Err(error) => {
                    tracing::warn!(pod = %pod.key, %error, "the pod cannot be taken over yet; it is tried again");
                    tokio::time::sleep(delays.next().unwrap_or_default()).await;
                }
            }
            if !state.data().unanswered {
                return;
            }
        }
    }

    /// Makes the containers on record known, and removes what has no record: its creation was cut off.
    async fn know(
        self: &Arc<Self>,
        pod: &Arc<Pod>,
        state: &Arc<PodState>,
    ) -> Result<Vec<Arc<ContainerState>>, Error> {
        let _verb = state.verbs.write().await;
        if !state.data().unanswered {
            return Ok(Vec::new());
        }
        let path = state.dir.join(record::SANDBOX);
        match record::read::<SandboxRecord>(&path)? {
            Some(sandbox) => state.data().attempt = sandbox.attempt,
            None => return Err(file("find", path)(io::ErrorKind::NotFound.into())),
        }
        let Records { completed, mut cut_off } = self.read_records(state)?;
        for record in completed {
            if state.container(record.id).is_none() {
                let container = self.recorded(pod, state, record);
                state.data().containers.push(Arc::new(container));
            }
        }
        cut_off.retain(|id| state.container(*id).is_none());
        self.give_up(pod, state, cut_off).await;
        Ok(state.data().containers.clone())
    }

    async fn ask(
        &self,
        pod: &Pod,
        state: &PodState,
        containers: &[Arc<ContainerState>],
    ) -> Result<Answers, Error> {
        let (sandbox, events) = self.connect(state, self.cgroup(pod)).await?;
        let listed = sandbox.client.list().await?;
        let mut found = Vec::with_capacity(containers.len());
        for container in containers {
            found.push(Found::ask(&sandbox.client, container, &listed).await?);
        }
        let namespace_ended = pod.spec.share_process_namespace && namespace_ended(&sandbox.client).await?;
        Ok(Answers { sandbox, events, listed, found, namespace_ended })
    }

    /// pause has answered.
    async fn connected(self: &Arc<Self>, pod: &Arc<Pod>, state: &Arc<PodState>, answers: Answers) {
        let Answers { sandbox, events, listed, found, namespace_ended } = answers;
        let _verb = state.verbs.write().await;
        {
            let mut data = state.data();
            // Removed meanwhile.
            if !std::mem::take(&mut data.unanswered) {
                return;
            }
            data.sandbox = Some(sandbox.clone());
        }
        let mut forgotten = Vec::new();
        for found in found {
            forgotten.extend(self.take_over_container(pod, state, found).await);
        }
        self.give_up(pod, state, forgotten).await;
        self.release_ended(state, &sandbox, &listed).await;
        // Only now: what ended after the list was made is among the events, and found.
        tokio::spawn(Arc::clone(self).watch(Arc::clone(state), events));
        if namespace_ended {
            self.namespace_died(state).await;
        }
        self.changed(&state.uid);
    }

    /// pause is gone: what it wrote down is all there is.
    async fn gone(self: &Arc<Self>, pod: &Pod, state: &Arc<PodState>) {
        let _verb = state.verbs.write().await;
        let forgotten: Vec<_> = {
            let mut data = state.data();
            if !data.unanswered {
                return;
            }
            // One that was never to start has not ended either.
            let forgotten = data.containers.extract_if(.., |container| container.is_to_start());
            forgotten.map(|container| container.id).collect()
        };
        // Completes the containers from the ledger. What cannot be ended now is ended before there is a new
        // sandbox.
        if let Err(error) = self.end_all(state).await {
            tracing::error!(pod = %state.uid, %error, "cannot clear away a sandbox whose pause is gone");
        }
        self.give_up(pod, state, forgotten).await;
        self.changed(&state.uid);
    }

    fn cgroup(&self, pod: &Pod) -> PodCgroup {
        self.kubepods.pod(qos_class(&pod.spec), &pod.uid)
    }

    /// What there is on record of a pod's containers.
    fn read_records(&self, state: &PodState) -> Result<Records, Error> {
        let dir = state.containers_dir();
        let mut records = Records::default();
        let entries = match fs::read_dir(&dir) {
            Ok(entries) => entries,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(records),
            Err(error) => return Err(file("list", dir)(error)),
        };
        for entry in entries.flatten() {
            let path = entry.path().join(record::CONTAINER);
            match record::read(&path) {
                Ok(Some(record)) => {
                    records.completed.push(record);
                    continue;
                }
                Ok(None) => {}
                Err(error) if record::is_malformed(&error) => {
                    tracing::error!(%error, "a container's record is unreadable; it is given up");
                }
                Err(error) => return Err(error),
            }
            records
                .cut_off
                .extend(entry.file_name().to_str().and_then(|name| name.parse::<ContainerId>().ok()));
        }
        records.completed.sort_by_key(|record| record.created_at);
        Ok(records)
    }

    /// Removes what is left of containers: their creation was cut off, or they ended before they were to start. What
    /// cannot be removed now goes with the sandbox.
    async fn give_up(&self, pod: &Pod, state: &PodState, containers: Vec<ContainerId>) {
        let pod = self.cgroup(pod);
        for id in containers {
            let (cgroup, dir) = (pod.container(&id), state.container_dir(id));
            let links_dir = self.config.log_links_dir.clone();
            let removed = blocking(move || {
                end_processes(&cgroup, KILL_LIMIT, format!("container {id}"))?;
                cgroup.remove()?;
                hooks::poststop(&dir)?;
                remove_links(&links_dir, id)?;
                remove_tree(dir)
            });
            if let Err(error) = removed.await {
                tracing::error!(container = %id, %error, "cannot remove what is left of a container");
            }
        }
    }

    /// Has pause forget the containers that ended and that nobody will ask for.
    ///
    /// One that still ends is released when its end is told.
    pub(crate) async fn release_ended(&self, state: &Arc<PodState>, sandbox: &Sandbox, listed: &[Listed]) {
        for entry in listed.iter().filter(|entry| entry.exit.is_some()) {
            if state.container(entry.container).is_some_and(|container| !container.has_ended()) {
                continue;
            }
            match sandbox.client.release(entry.container).await {
                // Released while the list was being made or worked through.
                Ok(()) | Err(PauseError::Refused { .. }) => {}
                Err(error) => {
                    tracing::debug!(container = %entry.container, %error, "pause keeps a container that was given up");
                }
            }
        }
    }
}

/// Whether to ask again is in vain.
pub(super) fn is_gone(error: &Error) -> bool {
    match error {
        Error::Pause(error) => error.is_final(),
        // The sandbox's directory was removed.
        Error::File { source, .. } => source.kind() == io::ErrorKind::NotFound,
        _ => false,
    }
}

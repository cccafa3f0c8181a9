//! Taking over what an agent before this one has left running.

use std::fs;
use std::io;
use std::os::fd::OwnedFd;
use std::sync::Arc;

use coracle_cgroup::PodCgroup;
use coracle_model::{ContainerId, Pod, PodUid, qos_class};

use super::exec_sync::end_execs;
use super::remove::{remove_links, remove_tree};
use super::start;
use super::stop::{KILL_LIMIT, end_processes};
use crate::blocking::blocking;
use crate::control::{Control, Progress};
use crate::error::{Error, file};
use crate::logs::OutputPipes;
use crate::pause::{Listed, PauseError, Taken};
use crate::pod::{ContainerState, PodState, Sandbox};
use crate::record::{self, ContainerRecord, SandboxRecord};
use crate::runtime::{Inner, Runtime};
use crate::tty;

impl Runtime {
    /// Takes over the sandbox of a pod and all containers in it, touching none that runs.
    ///
    /// Containers whose creation was not completed are removed, and starts that were ordered are completed. A
    /// sandbox whose pause is gone is observed as dead, its containers as ended.
    ///
    /// # Errors
    /// When the pod's state cannot be read. Other pods are not affected.
    pub async fn adopt(&self, pod: &Arc<Pod>) -> Result<(), Error> {
        let dir = self.inner.pod_dir(&pod.uid);
        let Some(sandbox) = record::read::<SandboxRecord>(&dir.join(record::SANDBOX))? else {
            // Nothing was started, or everything was removed; what is left of it is not in use.
            return Ok(());
        };
        let state = self.inner.pod_or_new(&pod.uid);
        let _verb = state.verbs.write().await;
        state.data().attempt = sandbox.attempt;
        self.inner.adopt(pod, &state).await
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

impl Inner {
    async fn adopt(self: &Arc<Self>, pod: &Arc<Pod>, state: &Arc<PodState>) -> Result<(), Error> {
        let cgroup = self.kubepods.pod(qos_class(&pod.spec), &pod.uid);
        let records = self.read_records(state)?;
        match self.connect(state, cgroup.clone()).await {
            Ok((sandbox, events)) => {
                let listed = sandbox.client.list().await?;
                state.data().sandbox = Some(sandbox.clone());
                for record in records {
                    let known = listed.iter().find(|entry| entry.container == record.id).copied();
                    let taken = match known {
                        Some(_) if record.exit.is_none() => sandbox.client.take(record.id).await?,
                        _ => Taken::default(),
                    };
                    self.adopt_container(pod, state, record, known, taken).await?;
                }
                self.give_up_unrecorded(state, &cgroup).await?;
                self.release_ended(state, &sandbox, &listed).await;
                // Only now: what ended after the list was made is among the events, and found.
                tokio::spawn(Arc::clone(self).watch(Arc::clone(state), events));
                Ok(())
            }
            Err(error) => {
                tracing::warn!(pod = %pod.key, %error, "the pod's pause is gone; it gets a new sandbox");
                for record in records {
                    self.adopt_container(pod, state, record, None, Taken::default()).await?;
                }
                self.give_up_unrecorded(state, &cgroup).await?;
                self.adopt_dead(state, cgroup).await
            }
        }
    }

    /// pause is gone: what it wrote down is all there is.
    async fn adopt_dead(self: &Arc<Self>, state: &Arc<PodState>, cgroup: PodCgroup) -> Result<(), Error> {
        let group = cgroup.cgroup().clone();
        let what = format!("pod {}", state.uid);
        blocking(move || end_processes(&group, KILL_LIMIT, what)).await?;
        // Completes the containers from the ledger.
        self.end_all(state).await
    }

    /// The records of completed creations, in order of creation.
    fn read_records(&self, state: &PodState) -> Result<Vec<ContainerRecord>, Error> {
        let dir = state.containers_dir();
        let entries = match fs::read_dir(&dir) {
            Ok(entries) => entries,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
            Err(error) => return Err(file("list", dir)(error)),
        };
        let mut records = Vec::new();
        for entry in entries.flatten() {
            let path = entry.path().join(record::CONTAINER);
            match record::read::<ContainerRecord>(&path) {
                Ok(Some(record)) => records.push(record),
                // Its creation was cut off; `give_up_unrecorded` removes it.
                Ok(None) => {}
                Err(error) => tracing::error!(%error, "a container's record is unreadable; it is given up"),
            }
        }
        records.sort_by_key(|record| record.created_at);
        Ok(records)
    }

    async fn adopt_container(
        self: &Arc<Self>,
        pod: &Arc<Pod>,
        state: &Arc<PodState>,
        record: ContainerRecord,
        known: Option<Listed>,
        mut taken: Taken,
    ) -> Result<(), Error> {
        let control = Control::from_held(&mut taken.held)?;
        let progress = match &control {
            Some(control) if record.exit.is_none() => start::progress(record.id, control),
            _ => None,
        };
        let to_start = record.exit.is_none() && record.started_at.is_none();
        if to_start && !matches!(progress, Some(Progress::Waiting)) {
            // It was never told to start, and is gone: how is not the pod's business. Without an owner it is
            // given up with what has no record.
            return Ok(());
        }
        let id = record.id;
        let cgroup = self.kubepods.pod(qos_class(&pod.spec), &pod.uid).container(&id);
        let shares_pids = pod.spec.host.pid || pod.spec.share_process_namespace;
        let dir = state.container_dir(id);
        let Taken { pidfd, mut held } = taken;
        let pipes = OutputPipes::from_held(&mut held);
        let mut held = held.into_iter();
        let environment = held.next();
        let container =
            Arc::new(ContainerState::new(dir, cgroup, pidfd, environment, shares_pids, record, control));
        if let Err(error) = self.follow_held(&container, pipes, held.next_back()) {
            // A log that cannot be written (a full disk) is no reason to end a container that runs.
            tracing::error!(pod = %pod.key, container = %id, %error, "container output is no longer followed");
        }
        if to_start {
            // The agent that created it may not have come to make it.
            self.link_log(pod, &container);
        }
        state.data().containers.push(Arc::clone(&container));
        if let (Some(progress), false) = (progress, to_start) {
            start::complete(&container, progress);
        }
        // Nobody waits any more for what the agent before this one has executed.
        end_execs(&container).await;
        // One that is neither listed nor ended was released, so its end is on record, or pause is gone and
        // `adopt_dead` looks into the ledger.
        if let Some(Listed { exit: Some(exit), .. }) = known {
            self.finish(state, &container, Some(exit)).await;
        }
        Ok(())
    }

    /// Follows the output of a container through what pause held for it.
    fn follow_held(
        &self,
        container: &Arc<ContainerState>,
        pipes: Option<OutputPipes>,
        last: Option<OwnedFd>,
    ) -> Result<(), Error> {
        let tty = container.data().record.tty;
        let Some(pipes) = pipes else { return Ok(()) };
        if let (true, Some(master)) = (tty, last) {
            tty::forward(master, tty::writing_end(pipes.held()[0])?)?;
        }
        self.pump(container, pipes)
    }

    /// Removes what the directory has of containers that were not taken over: their creation was cut off, or
    /// they ended before they were to start.
    async fn give_up_unrecorded(&self, state: &Arc<PodState>, cgroup: &PodCgroup) -> Result<(), Error> {
        let Ok(entries) = fs::read_dir(state.containers_dir()) else { return Ok(()) };
        let ids =
            entries.flatten().filter_map(|entry| entry.file_name().to_str()?.parse::<ContainerId>().ok());
        for id in ids.filter(|id| state.container(*id).is_none()) {
            let (cgroup, dir) = (cgroup.container(&id), state.container_dir(id));
            let links_dir = self.config.log_links_dir.clone();
            blocking(move || {
                end_processes(&cgroup, KILL_LIMIT, format!("container {id}"))?;
                cgroup.remove()?;
                remove_links(&links_dir, id)?;
                remove_tree(dir)
            })
            .await?;
        }
        Ok(())
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

//! Taking over what an agent before this one has left running.

use std::fs;
use std::io;
use std::sync::Arc;

use coracle_model::{ContainerId, Pod, PodUid, qos_class};

use crate::blocking::blocking;
use crate::error::{Error, file};
use crate::logs::OutputPipes;
use crate::pause::{Listed, Taken};
use crate::pod::{ContainerState, PodState, Sandbox};
use crate::record::{self, ContainerRecord, SandboxRecord};
use crate::runtime::{Inner, Runtime};
use crate::tty;

impl Runtime {
    /// Takes over the sandbox of a pod and all containers in it, touching none that runs.
    ///
    /// Containers whose creation was not completed, and those that were created but not started, are
    /// removed. A sandbox whose pause is gone is observed as dead, its containers as ended.
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
                        Some(_) => sandbox.client.take(record.id).await?,
                        None => Taken { pidfd: None, held: Vec::new() },
                    };
                    self.adopt_container(pod, state, &cgroup, record, known, taken).await?;
                }
                self.give_up_unrecorded(state, &sandbox, &listed).await?;
                // Only now: what ended after the list was made is among the events, and found.
                tokio::spawn(Arc::clone(self).watch(Arc::clone(state), events));
                Ok(())
            }
            Err(error) => {
                tracing::warn!(pod = %pod.key, %error, "the pod's pause is gone; it gets a new sandbox");
                for record in records {
                    let nothing = Taken { pidfd: None, held: Vec::new() };
                    self.adopt_container(pod, state, &cgroup, record, None, nothing).await?;
                }
                self.adopt_dead(state, cgroup).await
            }
        }
    }

    /// pause is gone: what it wrote down is all there is.
    async fn adopt_dead(
        self: &Arc<Self>,
        state: &Arc<PodState>,
        cgroup: coracle_cgroup::PodCgroup,
    ) -> Result<(), Error> {
        let group = cgroup.cgroup().clone();
        blocking(move || {
            group.kill()?;
            group.wait_empty_for(super::exit::KILL_LIMIT)?;
            Ok(())
        })
        .await?;
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
        cgroup: &coracle_cgroup::PodCgroup,
        record: ContainerRecord,
        known: Option<Listed>,
        taken: Taken,
    ) -> Result<(), Error> {
        let id = record.id;
        let tty = record.tty;
        let started = record.started_at.is_some();
        let shares_pids = pod.spec.host.pid || pod.spec.share_process_namespace;
        let container = Arc::new(ContainerState::new(
            state.container_dir(id),
            cgroup.container(&id),
            taken.pidfd,
            shares_pids,
            record,
            None,
        ));
        let mut held = taken.held;
        if let Some(pipes) = OutputPipes::from_held(&mut held) {
            if let (true, Some(master)) = (tty, held.pop()) {
                tty::forward(master, tty::writing_end(pipes.held()[0])?)?;
            }
            self.pump(&container, pipes)?;
        }
        state.data().containers.push(Arc::clone(&container));
        match known {
            Some(Listed { exit: Some(exit), .. }) => self.finish(state, &container, Some(exit)).await,
            Some(_) if !started => {
                // Its init was never told to start, and ends because its agent is gone.
                self.give_up(state, &container).await?;
            }
            Some(_) => {}
            // Released, so its end is on record, or pause is gone and `adopt_dead` looks into the ledger.
            None => {}
        }
        Ok(())
    }

    async fn give_up(
        self: &Arc<Self>,
        state: &Arc<PodState>,
        container: &Arc<ContainerState>,
    ) -> Result<(), Error> {
        let (cgroup, dir) = (container.cgroup.clone(), container.dir.clone());
        remove_remains(cgroup, dir).await?;
        state.data().containers.retain(|other| other.id != container.id);
        Ok(())
    }

    /// Removes what pause or the directory has of containers without a record.
    async fn give_up_unrecorded(
        self: &Arc<Self>,
        state: &Arc<PodState>,
        sandbox: &Sandbox,
        listed: &[Listed],
    ) -> Result<(), Error> {
        let recorded = |id: ContainerId| state.container(id).is_some();
        let mut ids: Vec<ContainerId> = listed.iter().map(|entry| entry.container).collect();
        if let Ok(entries) = fs::read_dir(state.containers_dir()) {
            ids.extend(
                entries.flatten().filter_map(|entry| entry.file_name().to_str()?.parse::<ContainerId>().ok()),
            );
        }
        ids.sort();
        ids.dedup();
        for id in ids.into_iter().filter(|id| !recorded(*id)) {
            remove_remains(sandbox.cgroup.container(&id), state.container_dir(id)).await?;
            // One that still ends cannot be released; it goes with the sandbox.
            if let Err(error) = sandbox.client.release(id).await {
                tracing::debug!(container = %id, %error, "pause keeps a container that was given up");
            }
        }
        Ok(())
    }
}

async fn remove_remains(cgroup: coracle_cgroup::Cgroup, dir: std::path::PathBuf) -> Result<(), Error> {
    blocking(move || {
        cgroup.kill()?;
        cgroup.wait_empty_for(super::exit::KILL_LIMIT)?;
        cgroup.remove()?;
        match fs::remove_dir_all(&dir) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(file("remove", dir)(error)),
            _ => Ok(()),
        }
    })
    .await
}

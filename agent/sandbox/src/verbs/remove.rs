//! Removing containers and sandboxes.

use std::fs;
use std::io;
use std::os::fd::AsFd as _;
use std::path::{Path, PathBuf};
use std::sync::{Arc, PoisonError};

use coracle_model::{ContainerId, Pod, PodUid};

use super::stop::{KILL_LIMIT, end_processes};
use crate::blocking::blocking;
use crate::error::{Error, file, system};
use crate::logs;
use crate::net_devices;
use crate::pod::{ContainerState, PodState};
use crate::runtime::{Inner, Runtime, pod_log_dir};
use crate::shm;

impl Runtime {
    /// Forgets a container: its cgroup, its record and its log. One that still runs is killed.
    ///
    /// # Errors
    /// When it cannot be killed or its cgroup not be removed; it is still known then.
    pub async fn remove_container(&self, uid: &PodUid, id: ContainerId) -> Result<(), Error> {
        let Some(state) = self.inner.pod(uid) else { return Ok(()) };
        let _verb = state.verbs.read().await;
        let Some(container) = state.container(id) else { return Ok(()) };
        if !container.has_ended() {
            self.inner.kill(&state, &container).await?;
        }
        self.inner.remove(&container).await?;
        state.data().containers.retain(|other| other.id != id);
        Ok(())
    }

    /// Ends whatever of the pod still runs, and removes its containers, cgroups and directory; the logs
    /// stay. Removing what is not there is no error.
    ///
    /// # Errors
    /// When something cannot be ended or removed; the rest was, and the next call goes on.
    pub async fn remove_sandbox(&self, uid: &PodUid) -> Result<(), Error> {
        let state = self.inner.pod_or_new(uid);
        let _verb = state.verbs.write().await;
        // While pause holds the network namespace.
        self.inner.give_back_net_devices(&state).await?;
        self.inner.end_all(&state).await?;
        self.inner.clear(&state).await?;
        self.inner.forget(uid);
        Ok(())
    }

    /// Removes the logs of all runs of a pod's containers but the last of each, and the links to them: of runs that
    /// nobody knows any more, after a reboot. The last is what `logs --previous` shows then.
    ///
    /// # Errors
    /// When something cannot be removed; it can be called again.
    pub async fn remove_older_logs(&self, pod: &Pod) -> Result<(), Error> {
        let config = &self.inner.config;
        let dir = pod_log_dir(&config.log_dir, pod);
        let (log_dir, links_dir) = (config.log_dir.clone(), config.log_links_dir.clone());
        blocking(move || {
            logs::remove_older(&log_dir, &dir)?;
            let Ok(links) = fs::read_dir(links_dir) else { return Ok(()) };
            for link in links.flatten().map(|entry| entry.path()) {
                if fs::read_link(&link).is_ok_and(|log| log.starts_with(&dir) && !log.exists()) {
                    gone(fs::remove_file(&link), link)?;
                }
            }
            Ok(())
        })
        .await
    }

    /// Removes all logs of a pod that is gone, and the links to them. Absent is done.
    ///
    /// # Errors
    /// When something cannot be removed; it can be called again.
    pub async fn remove_logs(&self, pod: &Pod) -> Result<(), Error> {
        let config = &self.inner.config;
        let dir = pod_log_dir(&config.log_dir, pod);
        let (log_dir, links_dir) = (config.log_dir.clone(), config.log_links_dir.clone());
        blocking(move || {
            let Ok(links) = fs::read_dir(links_dir) else { return logs::remove_all(&log_dir, &dir) };
            for link in links.flatten().map(|entry| entry.path()) {
                if fs::read_link(&link).is_ok_and(|log| log.starts_with(&dir)) {
                    gone(fs::remove_file(&link), link)?;
                }
            }
            logs::remove_all(&log_dir, &dir)
        })
        .await
    }
}

impl Inner {
    async fn remove(&self, container: &Arc<ContainerState>) -> Result<(), Error> {
        let (cgroup, dir) = (container.cgroup.clone(), container.dir.clone());
        let (id, log) = (container.id, container.data().record.log.clone());
        let (log_dir, links_dir) = (self.config.log_dir.clone(), self.config.log_links_dir.clone());
        blocking(move || {
            cgroup.remove()?;
            logs::remove(&log_dir, &log)?;
            remove_links(&links_dir, id)?;
            remove_tree(dir)
        })
        .await
    }

    /// Moves what interfaces of the host the pod has back.
    pub(super) async fn give_back_net_devices(&self, state: &Arc<PodState>) -> Result<(), Error> {
        let processes = {
            let data = state.data();
            let pause = data.sandbox.as_ref().map(|sandbox| sandbox.client.pidfd().try_clone_to_owned());
            // Where pause is dead, its pod's processes may hold the namespace yet.
            let containers = data.containers.iter().filter_map(|one| Some(one.pidfd()?.try_clone()));
            pause.into_iter().chain(containers).collect::<Result<Vec<_>, _>>()
        };
        let processes = processes.map_err(system("duplicate a pidfd"))?;
        let (dir, interfaces) = (state.dir.clone(), Arc::clone(&state.interfaces));
        blocking(move || {
            let _turn = interfaces.lock().unwrap_or_else(PoisonError::into_inner);
            let namespace =
                || processes.iter().find_map(|process| net_devices::namespace_of(process.as_fd()).ok());
            net_devices::give_back(&dir, namespace)
        })
        .await
    }

    async fn clear(&self, state: &Arc<PodState>) -> Result<(), Error> {
        for pod in self.kubepods.pods_of(&state.uid) {
            let (cgroup, what) = (pod.cgroup().clone(), state.dir.display().to_string());
            blocking(move || end_processes(&cgroup, KILL_LIMIT, what)).await?;
            pod.remove().await?;
        }
        if self.kubepods.discount(&state.uid) {
            self.weigh().await;
        }
        let dir = state.dir.clone();
        blocking(move || {
            shm::remove(&dir)?;
            remove_tree(dir)
        })
        .await
    }
}

/// Removes the log shippers' links of a container. To be done before its directory goes: while that is there,
/// the next agent knows of them.
pub(super) fn remove_links(links_dir: &Path, id: ContainerId) -> Result<(), Error> {
    let suffix = format!("-{id}.log");
    let Ok(entries) = fs::read_dir(links_dir) else { return Ok(()) };
    for entry in entries.flatten() {
        if entry.file_name().to_str().is_some_and(|name| name.ends_with(&suffix)) {
            let link = entry.path();
            gone(fs::remove_file(&link), link)?;
        }
    }
    Ok(())
}

/// Removes a directory of the runtime.
pub(super) fn remove_tree(dir: PathBuf) -> Result<(), Error> {
    gone(fs::remove_dir_all(&dir), dir)
}

/// What was not there is removed.
fn gone(result: io::Result<()>, path: PathBuf) -> Result<(), Error> {
    match result {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(file("remove", path)(error)),
        _ => Ok(()),
    }
}

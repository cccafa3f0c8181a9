//! Which pid namespace a container is in, where it is not its own.

use std::os::fd::AsFd;
use std::sync::Arc;

use coracle_model::Pod;

use crate::blocking::blocking;
use crate::error::{Error, file, system};
use crate::pause::SharedPid;
use crate::pod::{ContainerState, PodState};

/// Whether the container's processes are not all in a pid namespace that ends with the first of them.
pub(super) fn shares_pids(pod: &Pod, container: &str) -> bool {
    pod.spec.host.pid || pod.spec.share_process_namespace || pod.target_of(container).is_some()
}

/// The pid namespace of the container of that name that runs.
pub(super) async fn pids_of(state: &PodState, name: &str) -> Result<SharedPid, Error> {
    let containers = state.data().containers.clone();
    let is_it = |one: &&Arc<ContainerState>| {
        let runs = !one.has_ended() && one.data().record.started_at.is_some();
        runs && one.data().record.name == name
    };
    let target = containers.iter().rev().find(is_it).cloned();
    let not_running = || Error::TargetNotRunning(name.to_owned());
    let target = target.ok_or_else(not_running)?;
    let pidfd = target.pidfd().ok_or_else(not_running)?;
    let pidfd = pidfd.try_clone().map_err(file("duplicate the pidfd of", name))?;
    blocking(move || {
        let proc = coracle_linux::procfs_of(pidfd.as_fd()).map_err(system("take the /proc of the target"))?;
        Ok(SharedPid { pidfd, proc })
    })
    .await
}

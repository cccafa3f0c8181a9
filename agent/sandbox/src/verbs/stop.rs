//! Ending a container.

use std::os::fd::AsFd;
use std::sync::Arc;
use std::time::Duration;

use coracle_cgroup::Cgroup;
use coracle_model::{ContainerId, PodUid};
use rustix::io::Errno;

use crate::blocking::blocking;
use crate::error::{Error, system};
use crate::pod::{ContainerState, PodState};
use crate::runtime::{Inner, Runtime};

/// How long processes have to be gone after SIGKILL.
pub(super) const KILL_LIMIT: Duration = Duration::from_secs(10);

impl Runtime {
    /// Sends the container its stop signal, waits for at most `grace`, then kills it; returns once it has
    /// ended and its log is complete. A second call with a shorter grace shortens the first.
    ///
    /// # Errors
    /// When it cannot be signalled, or outlives SIGKILL.
    pub async fn stop_container(&self, uid: &PodUid, id: ContainerId, grace: Duration) -> Result<(), Error> {
        let Some(state) = self.inner.pod(uid) else { return Ok(()) };
        let Some(container) = state.container(id) else { return Ok(()) };
        if container.has_ended() {
            return Ok(());
        }
        let (started, first) = {
            let mut data = container.data();
            // A container that was not started has no program that could take the signal.
            let started = data.record.started_at.is_some();
            (started, !std::mem::replace(&mut data.stopping, true))
        };
        if started && !grace.is_zero() {
            if first {
                send_stop_signal(&container)?;
            }
            if tokio::time::timeout(grace, container.wait_ended()).await.is_ok() {
                return Ok(());
            }
        }
        self.inner.kill(&state, &container).await
    }
}

impl Inner {
    /// Kills a container and waits for its end. One whose pause does not tell is completed without it.
    pub(super) async fn kill(
        self: &Arc<Self>,
        state: &Arc<PodState>,
        container: &Arc<ContainerState>,
    ) -> Result<(), Error> {
        let cgroup = container.cgroup.clone();
        blocking(move || Ok(cgroup.kill()?)).await?;
        let told = if state.data().unanswered { Duration::ZERO } else { KILL_LIMIT };
        if tokio::time::timeout(told, container.wait_ended()).await.is_ok() {
            return Ok(());
        }
        let (cgroup, what) = (container.cgroup.clone(), format!("container {}", container.id));
        blocking(move || end_processes(&cgroup, KILL_LIMIT, what)).await?;
        self.finish(state, container, state.recorded_exit(container.id)).await;
        Ok(())
    }
}

/// Kills everything in a cgroup and waits, for at most `limit`, until it is gone. `what` is whose it was, for
/// people. Blocks.
pub(super) fn end_processes(cgroup: &Cgroup, limit: Duration, what: impl Into<String>) -> Result<(), Error> {
    cgroup.kill()?;
    match cgroup.wait_empty_for(limit)? {
        true => Ok(()),
        false => Err(Error::Unkillable { what: what.into() }),
    }
}

/// Sends the stop signal. A container that is still to be taken over gets it when it is.
pub(super) fn send_stop_signal(container: &ContainerState) -> Result<(), Error> {
    let Some(pidfd) = container.pidfd() else { return Ok(()) };
    let number = container.data().record.stop_signal;
    match coracle_linux::pidfd_send_signal_number(pidfd.as_fd(), number) {
        // Ended meanwhile.
        Ok(()) | Err(Errno::SRCH) => Ok(()),
        Err(error) => Err(system("send the stop signal")(error)),
    }
}

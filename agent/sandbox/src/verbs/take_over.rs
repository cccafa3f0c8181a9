//! One container that is taken over: what its record says, and what pause has of it.

use std::os::fd::OwnedFd;
use std::sync::Arc;

use coracle_model::{ContainerId, Pod, qos_class};

use super::create::follow;
use super::exec_sync::end_execs;
use super::pids::shares_pids;
use super::start;
use super::stop::send_stop_signal;
use crate::control::{Control, Progress};
use crate::error::Error;
use crate::logs::OutputPipes;
use crate::pause::{Exit, Listed, PauseClient, PauseError, Step, Taken};
use crate::pod::{ContainerState, PodState};
use crate::record::ContainerRecord;
use crate::runtime::Inner;
use crate::tty;

/// What pause has of a container.
pub(super) struct Found {
    container: Arc<ContainerState>,
    /// pause knows it; its end was not completed.
    known: bool,
    exit: Option<Exit>,
    taken: Taken,
    control: Option<Control>,
}

// === impl Found ===

impl Found {
    pub(super) async fn ask(
        client: &PauseClient,
        container: &Arc<ContainerState>,
        listed: &[Listed],
    ) -> Result<Self, Error> {
        let mut found = Self {
            container: Arc::clone(container),
            known: false,
            exit: None,
            taken: Taken::default(),
            control: None,
        };
        let Some(entry) = listed.iter().find(|entry| entry.container == container.id) else {
            return Ok(found);
        };
        if container.data().record.exit.is_none() {
            match client.take(container.id).await {
                Ok(taken) => found.taken = taken,
                // Released since, by an agent that is gone by now.
                Err(PauseError::Refused { step: Step::Container, .. }) => return Ok(found),
                Err(error) => return Err(error.into()),
            }
        }
        found.control = Control::from_held(&mut found.taken.held)?;
        (found.known, found.exit) = (true, entry.exit);
        Ok(found)
    }
}

impl Inner {
    /// A container as its record says.
    pub(super) fn recorded(&self, pod: &Pod, state: &PodState, record: ContainerRecord) -> ContainerState {
        let cgroup = self.kubepods.pod(qos_class(&pod.spec), &pod.uid).container(&record.id);
        let shares_pids = shares_pids(pod, &record.name);
        ContainerState::new(state.container_dir(record.id), cgroup, None, None, shares_pids, record, None)
    }

    /// Takes a container over. One that was to be started and cannot be is forgotten, and told.
    pub(super) async fn take_over_container(
        self: &Arc<Self>,
        pod: &Arc<Pod>,
        state: &Arc<PodState>,
        found: Found,
    ) -> Option<ContainerId> {
        let Found { container, known, exit, taken, control } = found;
        if container.data().record.exit.is_some() {
            return None;
        }
        let id = container.id;
        let to_start = container.is_to_start();
        let progress = control.as_ref().and_then(|control| start::progress(id, control));
        if to_start && !matches!(progress, Some(Progress::Waiting)) {
            // It was never told to start, and is gone: how is not the pod's business.
            state.data().containers.retain(|other| other.id != id);
            return Some(id);
        }
        let Taken { pidfd, mut held } = taken;
        let pipes = OutputPipes::from_held(&mut held);
        let mut held = held.into_iter();
        container.taken_over(pidfd, held.next());
        *container.control.lock().await = control;
        if let Err(error) = self.follow_held(&container, pipes, held.next_back()) {
            tracing::error!(pod = %pod.key, container = %id, %error, "container output is no longer followed");
        }
        if to_start {
            // The agent that created it may not have come to make it.
            self.link_log(pod, &container);
        } else if let Some(progress) = progress {
            start::complete(self, state, &container, progress);
        }
        // Nobody waits any more for what the agent before this one has executed.
        end_execs(&container);
        if !known || exit.is_some() {
            // One that pause has forgotten is in the ledger: its end could not be put on record.
            let exit = exit.or_else(|| state.recorded_exit(id));
            self.finish(state, &container, exit).await;
            return None;
        }
        let stopping = container.data().stopping;
        if stopping && let Err(error) = send_stop_signal(&container) {
            tracing::warn!(container = %id, %error, "a container that is to stop does not learn of it");
        }
        None
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
        let (pump, recovered) = self.pump(container, pipes);
        if let Err(error) = recovered {
            // A log that cannot be written (a full disk) is no reason to end a container that runs, nor to stop it.
            let id = container.id;
            tracing::error!(container = %id, %error, "what it writes may be lost until its log can be written");
        }
        follow(container, pump);
        Ok(())
    }
}

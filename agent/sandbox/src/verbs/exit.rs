//! What follows when a process of a pod ends.

use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use tokio::sync::mpsc;

use super::start;
use super::stop::{KILL_LIMIT, end_processes};
use crate::blocking::blocking;
use crate::error::Error;
use crate::hooks;
use crate::pause::{Event, Exit, ExitStatus, Exited, PauseClient, PauseError, Step};
use crate::pod::{ContainerState, PodState};
use crate::record::{self, ExitRecord};
use crate::runtime::Inner;

/// How long the output of a container that ended may take to be read. Its writers are dead by then, so
/// only a log that hangs (a network file system) takes so long.
const DRAIN_LIMIT: Duration = Duration::from_secs(10);

impl Inner {
    /// Follows the events of a pod's pause until it is gone.
    pub(crate) async fn watch(
        self: Arc<Self>,
        state: Arc<PodState>,
        mut events: mpsc::UnboundedReceiver<Event>,
    ) {
        // What happens seldom has memory of its own then: every pod has one of these futures for as long as it lives.
        while let Some(event) = events.recv().await {
            match event {
                Event::Exited(exited) => Box::pin(self.exited(&state, exited)).await,
                Event::Disconnected if state.data().dead => {}
                Event::Disconnected => match Box::pin(self.reconnect(&state, &mut events)).await {
                    Some(again) => events = again,
                    None => return Box::pin(self.clear_dead(&state)).await,
                },
                Event::Died => return Box::pin(self.clear_dead(&state)).await,
            }
        }
    }

    async fn clear_dead(self: &Arc<Self>, state: &Arc<PodState>) {
        if let Err(error) = self.pause_died(state).await {
            tracing::error!(pod = %state.uid, %error, "cannot clear away a sandbox whose pause died");
        }
    }

    /// The pid namespace that the pod's containers share ended: pause lives, and the sandbox is worth as little as
    /// without it.
    pub(super) async fn namespace_died(self: &Arc<Self>, state: &Arc<PodState>) {
        if let Err(error) = self.pause_died(state).await {
            tracing::error!(pod = %state.uid, %error, "cannot clear away a sandbox whose pid namespace ended");
        }
    }

    async fn exited(self: &Arc<Self>, state: &Arc<PodState>, exited: Exited) {
        if exited.reaper {
            return self.namespace_died(state).await;
        }
        let Some(id) = exited.container else {
            state.data().execs.exited(exited.pid, exited.exit);
            return;
        };
        if state.container(id).is_none() {
            // Whoever creates it wants to know why it could not be.
            state.data().execs.exited(exited.pid, exited.exit);
        }
        let (inner, state) = (Arc::clone(self), Arc::clone(state));
        tokio::spawn(async move {
            let container = match state.container(id) {
                Some(container) => Some(container),
                // It is being created, or was given up: once no creation is under way, it is known which.
                None => {
                    drop(state.verbs.write().await);
                    state.container(id)
                }
            };
            match (container, state.live_sandbox()) {
                (Some(container), _) => inner.finish(&state, &container, Some(exited.exit)).await,
                // Refused when whoever gave it up has released it.
                (None, Some(sandbox)) => drop(sandbox.client.release(id).await),
                (None, None) => {}
            }
        });
    }

    /// Completes a container that ended: its last processes, its log, its record. `exit` is what pause
    /// saw; without it nobody knows how it ended.
    pub(crate) async fn finish(
        self: &Arc<Self>,
        state: &Arc<PodState>,
        container: &Arc<ContainerState>,
        exit: Option<Exit>,
    ) {
        let _completing = container.completing.lock().await;
        if container.has_ended() {
            return;
        }
        let ended = self.settle(container).await;
        let oom = ended.unwrap_or_else(|error| {
            tracing::warn!(container = %container.id, %error, "a container that ended is not wholly settled");
            false
        });
        let pump = container.data().pump.take();
        if let Some(mut pump) = pump
            && tokio::time::timeout(DRAIN_LIMIT, &mut pump).await.is_err()
        {
            // It would make the log again after that was removed with the pod.
            pump.abort();
            tracing::error!(container = %container.id, "the end of a container's output is missing from its log");
        }
        // Also of a pump that never was, or that hangs.
        container.taps.end_all();
        start::look_back(container).await;
        let mut exit = exit_record(exit, oom);
        if exit.message.is_none() {
            exit.message = self.termination_message(container, exit.exit_code != 0).await;
        }
        // Its end goes on record behind them: without it, they are owed yet.
        let dir = container.dir.clone();
        if let Err(error) = blocking(move || hooks::poststop(&dir)).await {
            tracing::warn!(container = %container.id, %error, "hooks of a container that ended may be executed again");
        }
        note_exit(container, exit);
        let client = state.live_sandbox().map(|sandbox| sandbox.client);
        if let Some(client) = client {
            // Its exit is on record now. What cannot be released goes with the sandbox.
            if let Err(error) = client.release(container.id).await {
                tracing::debug!(container = %container.id, %error, "pause keeps a container that ended");
            }
        }
        container.let_go();
        container.ended.send_replace(true);
        self.changed(&state.uid);
    }

    /// Ends what else runs in the container, and says whether the OOM killer was in it.
    async fn settle(&self, container: &Arc<ContainerState>) -> Result<bool, Error> {
        let (cgroup, shares_pids) = (container.cgroup.clone(), container.shares_pids);
        blocking(move || {
            if !cgroup.exists() {
                return Ok(false);
            }
            // A pid namespace of its own ends with its first process.
            if shares_pids {
                cgroup.kill()?;
            }
            Ok(cgroup.oom_kills()? > 0)
        })
        .await
    }

    /// What the container has left to say. Its log is complete.
    async fn termination_message(&self, container: &ContainerState, failed: bool) -> Option<String> {
        let (source, log) = {
            let data = container.data();
            (data.record.message.clone(), data.record.log.clone())
        };
        let log_dir = self.config.log_dir.clone();
        blocking(move || Ok(source.read(failed, &log_dir, &log))).await.unwrap_or_else(|error| {
            tracing::warn!(container = %container.id, %error, "a termination message is not read");
            None
        })
    }

    /// pause died: nothing of the pod may outlive it, because nobody would learn how it ends.
    async fn pause_died(self: &Arc<Self>, state: &Arc<PodState>) -> Result<(), Error> {
        {
            let mut data = state.data();
            // Seen before, or removed on purpose.
            if std::mem::replace(&mut data.dead, true) {
                return Ok(());
            }
        }
        tracing::warn!(pod = %state.uid, "pause died; its pod's containers are killed and get a new sandbox");
        if let Err(error) = self.give_back_net_devices(state).await {
            tracing::warn!(pod = %state.uid, %error, "an interface of the host is not moved back yet");
        }
        let result = self.end_all(state).await;
        self.changed(&state.uid);
        result
    }

    /// Kills whatever runs in the pod and completes its containers.
    pub(crate) async fn end_all(self: &Arc<Self>, state: &Arc<PodState>) -> Result<(), Error> {
        let containers = {
            let mut data = state.data();
            data.dead = true;
            data.unanswered = false;
            data.containers.clone()
        };
        let pods = self.kubepods.pods_of(&state.uid);
        let what = format!("pod {}", state.uid);
        blocking(move || pods.iter().try_for_each(|pod| end_processes(pod.cgroup(), KILL_LIMIT, &what)))
            .await?;
        let ledger = state.ledger();
        for container in containers {
            let exit = ledger.exits.iter().find(|exit| exit.container == container.id).map(|exit| exit.exit);
            self.finish(state, &container, exit).await;
        }
        Ok(())
    }
}

/// Whether the pid namespace that the pod's containers share has ended with its first process. pause tells that
/// once, to the agent it has then: one that connects has to ask.
pub(super) async fn namespace_ended(pause: &PauseClient) -> Result<bool, PauseError> {
    match pause.shared_pid().await {
        Err(PauseError::Refused { step: Step::ReaperDied, .. }) => Ok(true),
        // There is none, or it lives.
        Ok(_) | Err(PauseError::Refused { .. }) => Ok(false),
        Err(error) => Err(error),
    }
}

/// Notes how a container ended, in memory and on record. The first word counts.
pub(super) fn note_exit(container: &ContainerState, exit: ExitRecord) {
    if let Some(record) = container.set_exit(exit)
        && let Err(error) = record::write(&container.record_path(), &record)
    {
        tracing::warn!(container = %container.id, %error, "the end of a container is not on record");
    }
}

/// How a container ended, in the words of a container status.
fn exit_record(exit: Option<Exit>, oom: bool) -> ExitRecord {
    let Some(exit) = exit else {
        return ExitRecord {
            exit_code: 137,
            signal: None,
            reason: "ContainerStatusUnknown".to_owned(),
            message: Some(
                "the container's exit could not be learned: its pause process is gone, or does not answer"
                    .to_owned(),
            ),
            finished_at: Timestamp::now(),
        };
    };
    let (exit_code, signal) = match exit.status {
        ExitStatus::Code(code) => (code, None),
        ExitStatus::Signal(signal) => (128 + signal, Some(signal)),
    };
    let reason = match exit_code {
        0 => "Completed",
        _ if oom => "OOMKilled",
        _ => "Error",
    };
    let message =
        exit.failed.map(|(step, errno)| format!("pause could not start the container: {step:?}: {errno}"));
    ExitRecord { exit_code, signal, reason: reason.to_owned(), message, finished_at: exit.time }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn exit(status: ExitStatus) -> Option<Exit> {
        Some(Exit { status, time: Timestamp::UNIX_EPOCH, failed: None })
    }

    #[test]
    fn exits_in_kubernetes_words() {
        let cases = [
            (exit(ExitStatus::Code(0)), false, 0, None, "Completed"),
            // Something else in the container was killed; the container itself did well.
            (exit(ExitStatus::Code(0)), true, 0, None, "Completed"),
            (exit(ExitStatus::Code(3)), false, 3, None, "Error"),
            (exit(ExitStatus::Signal(9)), true, 137, Some(9), "OOMKilled"),
            (exit(ExitStatus::Signal(9)), false, 137, Some(9), "Error"),
            (exit(ExitStatus::Signal(11)), false, 139, Some(11), "Error"),
            (None, false, 137, None, "ContainerStatusUnknown"),
        ];
        for (exit, oom, code, signal, reason) in cases {
            let record = exit_record(exit, oom);
            assert_eq!((record.exit_code, record.signal, record.reason.as_str()), (code, signal, reason));
        }
    }
}

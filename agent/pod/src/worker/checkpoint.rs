//! What outlasts the agent, and the machine.

use std::sync::Arc;
use std::time::Duration;

use coracle_model::{ContainerId, ContainerState, PodStatus};

use super::Worker;
use crate::action::{Action, Step};
use crate::age::Moment;
use crate::board::WorkerPhase;
use crate::plan::Timer;
use crate::ports::Ports;

/// How long what was seen may wait to be put on record: so long that a pod that starts waits for no disk.
const DELAY: Duration = Duration::from_secs(1);

/// What is kept for after a reboot, as far as it tells whether that is still true.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Kept {
    containers: Vec<(Option<ContainerId>, u32, Option<i32>)>,
    deleted: bool,
    ending: bool,
    restarting: bool,
    finished: bool,
}

impl<P: Ports> Worker<P> {
    /// Puts on record what is seen, a while after it was seen: for the next agent, and durably what matters
    /// after a reboot. How a pod ended is written at once.
    pub(super) fn keep(&mut self, moment: Moment, timer: &mut Timer) -> Vec<Action> {
        if self.is_going() || !self.recorded {
            return Vec::new();
        }
        let Some(status) = self.status.clone() else { return Vec::new() };
        let kept = self.to_keep(&status);
        let stale = self.kept != kept;
        let unseen = self.record.finished.is_none() && self.record.seen.as_ref() != Some(&status);
        if !stale && !unseen {
            self.keep_at = None;
            return Vec::new();
        }
        let at = *self.keep_at.get_or_insert(moment.instant + DELAY);
        let at = if kept.finished && !self.kept.finished { moment.instant } else { at };
        if at > moment.instant {
            timer.wake_in(at - moment.instant);
            return Vec::new();
        }
        self.keep_at = None;
        if unseen {
            self.record.seen = Some(status);
            self.unsaved = true;
        }
        let held = self.failing.get(&Step::Checkpoint).is_some_and(|it| it.not_before > moment.instant);
        if !stale || held || self.acting.contains(Step::Checkpoint) {
            return Vec::new();
        }
        self.kept = kept;
        vec![Action::Checkpoint]
    }

    /// Whether nothing is left to be done for a pod that has ended: that is on record, also for after a reboot, and
    /// what goes with it is released.
    pub(super) fn is_settled(&self) -> bool {
        let busy = [
            Step::SaveRecord,
            Step::Checkpoint,
            Step::RemoveSandbox,
            Step::ReleaseDevices,
            Step::ReleaseVolumes,
        ];
        self.phase == WorkerPhase::Terminated
            && self.record.deletion.is_none()
            && self.recorded
            && !self.unsaved
            && self.released.sandbox
            && self.released.devices
            && (self.released.volumes || self.record.begins_again())
            && self.status.as_ref().is_some_and(|status| self.kept == self.to_keep(status))
            && !busy.into_iter().any(|step| self.acting.contains(step))
    }

    /// Whether it is removed, and what is kept of it with it.
    pub(super) fn is_going(&self) -> bool {
        self.record.deletion.is_some() && self.phase >= WorkerPhase::Terminated
    }

    /// A checkpoint could not be written: it is as if none had been.
    pub(super) fn forget_kept(&mut self) {
        self.kept = Kept::default();
    }

    fn to_keep(&self, status: &Arc<PodStatus>) -> Kept {
        let container = |status: &coracle_model::ContainerStatus| {
            let code = match &status.state {
                ContainerState::Terminated(ended) => Some(ended.exit_code),
                ContainerState::Running(_) | ContainerState::Waiting(_) => None,
            };
            (status.container_id, status.restart_count, code)
        };
        Kept {
            containers: status.all_containers().map(container).collect(),
            deleted: self.record.deletion.is_some(),
            ending: self.record.ending.is_some(),
            restarting: self.record.restarting,
            finished: self.record.finished.is_some(),
        }
    }
}

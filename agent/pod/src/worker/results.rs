//! Beginning actions, and what comes of them.

use std::sync::Arc;
use std::time::Duration;

use coracle_model::{ContainerId, EventType};
use tokio::time::Instant;

use super::Worker;
use crate::act::{Outcome, failure_event, success_event};
use crate::action::{Action, Step};
use crate::age::Moment;
use crate::ports::{Failure, Observed, Ports};
use crate::record::StopCause;

/// A step that failed and has not succeeded since.
#[derive(Debug)]
pub(super) struct Failing {
    pub(super) failure: Failure,
    pub(super) count: u32,
    pub(super) since: Instant,
    pub(super) not_before: Instant,
    /// That it waits before it tries again was told.
    pub(super) backing_off: bool,
}

impl<P: Ports> Worker<P> {
    /// Begins the actions that are not under way and whose time has come.
    pub(super) fn begin(&mut self, actions: Vec<Action>, observed: &Observed, moment: Moment) {
        for action in actions {
            let step = action.step();
            if self.failing.get(&step).is_some_and(|failing| failing.not_before > moment.instant) {
                continue;
            }
            let due = match action {
                Action::Stop(id, grace) => self.note_stop(id, grace, observed, moment),
                _ => !self.acting.contains(step),
            };
            if !due {
                continue;
            }
            match step {
                Step::SaveRecord => self.unsaved = false,
                Step::AllocateDevices => self.asking_for_devices(),
                Step::RefreshVolumes => self.stale = false,
                Step::MeasureVolumes => {
                    self.measuring.iter_mut().for_each(|measuring| measuring.begins(moment.instant));
                }
                _ => {}
            }
            self.acting.begin(&self.ports, &self.record, action);
        }
    }

    /// An action ended.
    pub(super) fn finish(&mut self, action: Action, result: Result<Outcome, Failure>) {
        let step = action.step();
        let outdated = self.outdated.contains(&step);
        self.outdated.retain(|other| *other != step);
        let pod = Arc::clone(&self.record.pod);
        let container = action.index().and_then(|index| pod.all_containers().nth(index)).map(|it| &it.name);
        match result {
            Ok(outcome) => {
                self.failing.remove(&step);
                if let Some((reason, message)) = success_event(&action) {
                    self.event(EventType::Normal, reason, container, message);
                }
                self.succeeded(action, outcome);
            }
            Err(failure) => {
                let (kind, reason, message) = failure_event(step, &failure);
                tracing::warn!(pod = %pod.key, uid = %pod.uid, ?step, %failure, "a step of the pod failed");
                self.event(kind, reason, container, message);
                self.failed(step, failure, outdated);
            }
        }
    }

    fn succeeded(&mut self, action: Action, outcome: Outcome) {
        match (action, outcome) {
            (Action::SaveRecord, _) => {
                self.recorded = true;
                self.added.drain(..).for_each(|asker| drop(asker.send(Ok(()))));
            }
            (Action::AllocateDevices, Outcome::Devices(allocation)) => self.allocated(allocation),
            (Action::EnsureVolumes, _) => self.prepared.volumes = true,
            (Action::EnsureImage(index, attempt), Outcome::Image(image)) => {
                self.prepared.images.insert(index, (attempt, image));
            }
            (Action::MeasureVolumes, Outcome::OverLimit(message)) => self.measured(Some(message)),
            (Action::MeasureVolumes, _) => self.measured(None),
            (Action::PostStart(_, id), _) => {
                self.record.progress.entry(id).or_default().post_started = true;
                self.unsaved = true;
            }
            (Action::PreStop(_, id, _), _) => self.hook_done(id),
            (Action::RemoveSandbox, _) => self.released.sandbox = true,
            (Action::ReleaseDevices, _) => {
                self.released.devices = true;
                self.board.devices_freed();
            }
            (Action::ReleaseVolumes, _) => self.released.volumes = true,
            (Action::ReleaseLogs, _) => self.released.logs = true,
            (Action::ForgetRecord, _) => self.released.record = true,
            _ => {}
        }
    }

    fn failed(&mut self, step: Step, failure: Failure, outdated: bool) {
        match step {
            // A hook is carried out once, whatever comes of it.
            Step::PostStart(id) => self.post_start_failed(id, failure),
            Step::PreStop(id) => self.hook_done(id),
            _ => {
                let count = self.failing.get(&step).map_or(1, |failing| failing.count.saturating_add(1));
                let delay = if outdated { Duration::ZERO } else { step.schedule().delay(count) };
                let since = Instant::now();
                let not_before = since + delay;
                self.failing.insert(step, Failing { failure, count, since, not_before, backing_off: false });
                if let Step::Create(index) = step {
                    // As in the kubelet the image is looked for again: it may have been removed meanwhile.
                    self.prepared.images.remove(&index);
                }
                self.stale |= step == Step::RefreshVolumes;
                self.unsaved |= step == Step::SaveRecord;
                if step == Step::Checkpoint {
                    self.forget_kept();
                }
            }
        }
    }

    fn post_start_failed(&mut self, id: ContainerId, failure: Failure) {
        let observed = self.observe();
        let moment = self.moment();
        self.order_stop(id, StopCause::PostStart(failure.message), &observed, moment);
    }
}

//! Ending containers, and the pod: who is ended when, and until when it may take.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use coracle_model::{ContainerId, EventType, RestartPolicy};
use tokio::time::Instant;

use super::Worker;
use crate::action::{Action, Step};
use crate::age::Moment;
use crate::board::WorkerPhase;
use crate::inbox::Eviction;
use crate::plan::{self, Stop, Stops, Timer};
use crate::ports::{Clock, Observed, Ports};
use crate::record::{Deletion, Ending, PodRecord, Shutdown, StopCause, StopOrder, Verdict};
use crate::scene::{Role, Scene};
use crate::status::Course;

/// Two times of one kill are not farther apart than this.
const SAME_TIME: Duration = Duration::from_millis(1);

/// A container that is being ended.
#[derive(Clone, Copy, Debug)]
pub(super) struct Stopping {
    /// When its grace period ends.
    deadline: Instant,
    /// No preStop hook is to be carried out any more.
    hook_done: bool,
    /// When the stop signal was sent.
    signalled: Option<Instant>,
    /// When the runtime was told to kill it.
    kill_at: Option<Instant>,
}

/// The ends an agent before this one has left under way: each begins anew, with what is left of its time.
pub(super) fn resumed(
    record: &PodRecord,
    observed: &Observed,
    moment: Moment,
) -> BTreeMap<ContainerId, Stopping> {
    let live = observed.containers.iter().filter(|container| container.is_live());
    let orders = live.filter_map(|live| Some((live.id, record.progress.get(&live.id)?.stop.as_ref()?)));
    let resume = |(id, order): (ContainerId, &StopOrder)| {
        let until = Stopping::until(moment.deadline(order.since, order.grace));
        (id, Stopping { hook_done: order.cause == StopCause::RestartAll, ..until })
    };
    orders.map(resume).collect()
}

impl<P: Ports> Worker<P> {
    /// The removal was asked for, perhaps again: a shorter grace period shortens the one that runs.
    pub(super) fn accept_deletion(&mut self, grace: Duration) {
        let deadline = Instant::now() + grace;
        if self.removal.is_some_and(|before| before <= deadline) {
            return;
        }
        let now = self.ports.clock().now();
        let requested_at = self.record.deletion.map_or(now, |deletion| deletion.requested_at);
        let passed = Duration::try_from(now.duration_since(requested_at)).unwrap_or_default();
        self.record.deletion = Some(Deletion { requested_at, grace: passed + grace });
        self.removal = Some(deadline);
        self.deadline = Some(self.deadline.map_or(deadline, |before| before.min(deadline)));
        self.failing.retain(|step, _| !matches!(step, Step::Stop(_)));
        self.unsaved = true;
        if self.phase == WorkerPhase::Syncing {
            self.enter(WorkerPhase::Terminating);
        }
    }

    /// The pod has run for longer than it may. Whether that is so; else it is looked at again in time.
    pub(super) fn exceeds_deadline(&mut self, moment: Moment, timer: &mut Timer) -> bool {
        let Some(limit) = self.record.pod.spec.active_deadline else { return false };
        let passed = self.started.passed(moment);
        if let Some(left) = limit.checked_sub(passed).filter(|left| !left.is_zero()) {
            timer.wake_in(left);
            return false;
        }
        let message = "Pod was active on the node longer than the specified deadline";
        self.event(EventType::Normal, "DeadlineExceeded", None, message.to_owned());
        let (reason, message) = ("DeadlineExceeded".to_owned(), message.to_owned());
        self.end(Some(Verdict { reason, message, disruption: false, refused: false }), None, moment);
        true
    }

    /// The pod is to be ended for the node's sake. One that ends anyway has no more time than that.
    pub(super) fn accept_eviction(&mut self, eviction: Eviction) {
        let Eviction { reason, message, grace, shutdown } = eviction;
        self.again &= !shutdown;
        let moment = self.moment();
        match self.phase {
            WorkerPhase::Syncing => {
                self.event(EventType::Warning, reason, None, message.clone());
                let verdict =
                    Verdict { reason: reason.to_owned(), message, disruption: true, refused: false };
                self.end(Some(verdict), grace, moment);
                if let Some(ending) = self.record.ending.as_mut().filter(|_| shutdown) {
                    ending.shutdown = Some(Shutdown::Ended);
                }
            }
            WorkerPhase::Terminating => {
                if let (Some(grace), Some(deadline)) = (grace, &mut self.deadline) {
                    *deadline = (*deadline).min(moment.instant + grace);
                    self.failing.retain(|step, _| !matches!(step, Step::Stop(_)));
                }
            }
            WorkerPhase::Terminated | WorkerPhase::Gone => {}
        }
    }

    /// The pod comes to its end: what of it still runs has the pod's grace period, or less, from now on.
    pub(super) fn end(&mut self, verdict: Option<Verdict>, grace: Option<Duration>, moment: Moment) {
        let own = self.record.pod.spec.termination_grace_period;
        let grace = grace.map_or(own, |grace| grace.min(own));
        self.record.ending = Some(Ending { since: moment.now, grace, verdict, shutdown: None });
        self.deadline = Some(moment.instant + grace);
        self.unsaved = true;
        self.enter(WorkerPhase::Terminating);
    }

    /// Has a running container ended while the pod goes on.
    pub(super) fn order_stop(
        &mut self,
        id: ContainerId,
        cause: StopCause,
        observed: &Observed,
        moment: Moment,
    ) {
        let scene = self.scene(observed);
        let Some(container) = observed.containers.iter().find(|container| container.id == id) else { return };
        let Some(part) = scene.parts().find(|part| part.spec.name == *container.name) else { return };
        let name = &part.spec.name;
        let message = match &cause {
            StopCause::PostStart(_) => "FailedPostStartHook".to_owned(),
            StopCause::RestartAll => {
                format!("Stopping container {name}: all containers of the pod are restarted")
            }
            StopCause::Probe(kind) => {
                let probe = kind.as_str().to_lowercase();
                let policy = part.spec.restart_policy.unwrap_or(scene.pod.spec.restart_policy);
                match part.role {
                    Role::App | Role::Ephemeral if policy == RestartPolicy::Never => {
                        format!("Container {name} failed {probe} probe")
                    }
                    Role::App | Role::Ephemeral => {
                        format!("Container {name} failed {probe} probe, will be restarted")
                    }
                    Role::Init | Role::Sidecar => format!("Init container {name} failed {probe} probe"),
                }
            }
        };
        let grace = grace(&scene, id, &cause);
        let pod = Arc::clone(&self.record.pod);
        let name = pod.all_containers().nth(part.index).map(|container| &container.name);
        self.event(EventType::Normal, "Killing", name, message);
        let hook_done = cause == StopCause::RestartAll;
        let new = Stopping { hook_done, ..Stopping::until(moment.instant + grace) };
        let stopping = self.stopping.entry(id).or_insert(new);
        stopping.deadline = stopping.deadline.min(new.deadline);
        stopping.hook_done |= hook_done;
        let order = StopOrder { since: moment.now, grace, cause };
        self.record.progress.entry(id).or_default().stop = Some(order);
        self.unsaved = true;
    }

    /// Ends whatever of the pod still runs; goes on to the release once nothing does.
    pub(super) fn terminate(
        &mut self,
        observed: &Observed,
        moment: Moment,
        timer: &mut Timer,
    ) -> Vec<Action> {
        let deadline = self.deadline.unwrap_or(moment.instant);
        let live = || observed.containers.iter().filter(|container| container.is_live());
        for container in live() {
            self.begin_stopping(container.id, deadline, observed);
        }
        if live().next().is_none() {
            if self.record.finished.is_none() {
                let status = self.compute_status(observed, moment.now, Course::Ended);
                self.record.finished = Some(status);
                self.unsaved = true;
            }
            self.enter(WorkerPhase::Terminated);
            return Vec::new();
        }
        plan::terminate(&self.scene(observed), &self.stops(moment), timer)
    }

    /// Has a container ended by a time, or sooner if it is being ended already.
    pub(super) fn begin_stopping(&mut self, id: ContainerId, deadline: Instant, observed: &Observed) {
        if let Some(stopping) = self.stopping.get_mut(&id) {
            stopping.deadline = stopping.deadline.min(deadline);
            return;
        }
        self.stopping.insert(id, Stopping::until(deadline));
        let Some(container) = observed.containers.iter().find(|container| container.id == id) else { return };
        let message = format!("Stopping container {}", container.name);
        let name = self.record.pod.all_containers().map(|it| &it.name).find(|name| **name == *container.name);
        self.event(EventType::Normal, "Killing", name, message);
    }

    /// How far the ends are that are under way.
    pub(super) fn stops(&self, moment: Moment) -> Stops {
        self.stopping.iter().map(|(id, stopping)| (*id, stopping.at(moment.instant))).collect()
    }

    /// Takes note that a container is told to end, and killed after `grace`. Whether that is to be done: it is
    /// told already unless it is to be killed sooner than it was to be.
    pub(super) fn note_stop(
        &mut self,
        id: ContainerId,
        grace: Duration,
        observed: &Observed,
        moment: Moment,
    ) -> bool {
        let kill_at = moment.instant + grace;
        self.begin_stopping(id, kill_at, observed);
        let told = self.acting.contains(Step::Stop(id));
        let Some(stopping) = self.stopping.get_mut(&id) else { return false };
        if told && stopping.kill_at.is_some_and(|before| before <= kill_at + SAME_TIME) {
            return false;
        }
        stopping.kill_at = Some(kill_at);
        stopping.signalled.get_or_insert(moment.instant);
        self.acting.give_up(Step::Stop(id));
        self.acting.give_up(Step::PostStart(id));
        if self.acting.give_up(Step::PreStop(id)) {
            self.hook_failed(id, observed);
        }
        true
    }

    /// A preStop hook has ended, or takes too long.
    pub(super) fn hook_done(&mut self, id: ContainerId) {
        if let Some(stopping) = self.stopping.get_mut(&id) {
            stopping.hook_done = true;
        }
    }

    fn hook_failed(&mut self, id: ContainerId, observed: &Observed) {
        self.hook_done(id);
        let name = observed.containers.iter().find(|container| container.id == id).map(|it| it.name.as_str());
        let name = self.record.pod.all_containers().map(|it| &it.name).find(|it| Some(it.as_str()) == name);
        self.event(EventType::Warning, "FailedPreStopHook", name, "PreStopHook failed".to_owned());
    }
}

/// What a container that is ended for this has until it is killed.
fn grace(scene: &Scene<'_>, id: ContainerId, cause: &StopCause) -> Duration {
    let own = match cause {
        StopCause::Probe(_) => {
            let findings = scene.progress.get(&id).and_then(|progress| progress.findings.as_ref());
            findings.and_then(|findings| findings.failed.as_ref()).and_then(|failed| failed.grace)
        }
        StopCause::PostStart(_) => None,
        StopCause::RestartAll => return plan::MINIMUM_GRACE,
    };
    own.unwrap_or(scene.pod.spec.termination_grace_period)
}

// === impl Stopping ===

impl Stopping {
    fn until(deadline: Instant) -> Self {
        Self { deadline, hook_done: false, signalled: None, kill_at: None }
    }

    fn at(&self, instant: Instant) -> Stop {
        Stop {
            left: self.deadline.saturating_duration_since(instant),
            hook_done: self.hook_done,
            signalled: self.signalled.map(|at| instant.saturating_duration_since(at)),
        }
    }
}

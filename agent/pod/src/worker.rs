//! The worker of one pod: observe, plan, act, publish; then wait for something to change.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use coracle_model::{EventType, Name, PodStatus};
use futures_util::StreamExt;
use futures_util::stream::FuturesUnordered;
use jiff::Timestamp;
use tokio::time::{Instant, sleep_until};

use crate::act::{Acting, Outcome, act, failure_event, success_event};
use crate::action::{Action, Index, Step};
use crate::backoff::{self, CrashLoop};
use crate::board::{Board, PodSnapshot, WorkerPhase};
use crate::inbox::Inbox;
use crate::plan::{self, Facts, Prepared, Released};
use crate::ports::{Clock, Events, Failure, Observed, PodEvent, Ports, Runtime, SandboxState};
use crate::record::{Deletion, PodRecord};
use crate::status::{self, Course, Notes};

/// How a worker ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum End {
    /// The pod and all it had are gone.
    Gone,
    /// The agent ends; the pod lives on.
    Detached,
}

/// A step that failed and has not succeeded since.
#[derive(Debug)]
struct Failing {
    failure: Failure,
    count: u32,
    not_before: Instant,
}

/// The state of one pod's worker. All of it but the record is a cache.
pub(crate) struct Worker<P: Ports> {
    ports: Arc<P>,
    inbox: Arc<Inbox>,
    board: Arc<Board>,
    record: PodRecord,
    /// The record on disk is not the one in memory.
    unsaved: bool,
    /// The record is on disk, in whatever version: the pod will be found again.
    recorded: bool,
    phase: WorkerPhase,
    /// When the grace period ends; set with the record's deletion.
    deadline: Option<Instant>,
    /// Counts the times the grace period was set.
    round: u32,
    prepared: Prepared,
    released: Released,
    back_off: BTreeMap<Index, CrashLoop>,
    failing: BTreeMap<Step, Failing>,
    acting: FuturesUnordered<Acting>,
    under_way: Vec<Step>,
    /// Volumes may not hold what the pod's configuration says now.
    stale: bool,
    /// Steps under way that may have seen the configuration before its last change.
    outdated: Vec<Step>,
    sandbox: SandboxState,
    status: Option<Arc<PodStatus>>,
    published: Option<(WorkerPhase, Option<Deletion>)>,
}

impl<P: Ports> Worker<P> {
    /// A worker for a pod, `recorded` if it was found on record: whatever of it is there is taken over.
    pub(crate) fn new(
        ports: Arc<P>,
        inbox: Arc<Inbox>,
        board: Arc<Board>,
        record: PodRecord,
        recorded: bool,
    ) -> Self {
        let ended = record.deletion.is_some() || record.finished.is_some();
        let deadline = record.deletion.map(|deletion| {
            // The clock may have been set meanwhile: never more than was asked for.
            let passed = ports.clock().now().duration_since(deletion.requested_at);
            let passed = Duration::try_from(passed).unwrap_or_default();
            Instant::now() + deletion.grace.saturating_sub(passed)
        });
        Self {
            phase: if ended { WorkerPhase::Terminating } else { WorkerPhase::Syncing },
            sandbox: ports.runtime().observe(&record.pod.uid).sandbox,
            ports,
            inbox,
            board,
            record,
            unsaved: !recorded,
            recorded,
            deadline,
            round: 0,
            prepared: Prepared::default(),
            released: Released::default(),
            back_off: BTreeMap::new(),
            failing: BTreeMap::new(),
            acting: FuturesUnordered::new(),
            under_way: Vec::new(),
            stale: false,
            outdated: Vec::new(),
            status: None,
            published: None,
        }
    }

    /// Publishes what is seen of the pod before anything is done.
    pub(crate) fn announce(&mut self) {
        let observed = self.ports.runtime().observe(&self.record.pod.uid);
        let now = self.ports.clock().now();
        self.publish(&observed, now);
    }

    /// Works until the pod is gone or the agent ends.
    pub(crate) async fn run(mut self) -> End {
        loop {
            let orders = self.inbox.take();
            if orders.detach {
                return End::Detached;
            }
            if let Some(grace) = orders.terminate {
                self.accept_deletion(grace);
            }
            if orders.retry_images {
                self.failing.retain(|step, _| !matches!(step, Step::Image(_)));
            }
            if orders.config_changed {
                self.config_changed();
            }
            let wake = self.advance();
            if self.phase == WorkerPhase::Gone {
                return End::Gone;
            }
            tokio::select! {
                () = self.inbox.wait() => {}
                Some((action, result)) = self.acting.next(), if !self.acting.is_empty() => {
                    self.finish(action, result);
                }
                () = sleep_until(wake.unwrap_or_else(Instant::now)), if wake.is_some() => {}
            }
        }
    }

    /// The removal was asked for, perhaps again: a shorter grace period shortens the one that runs.
    fn accept_deletion(&mut self, grace: Duration) {
        let deadline = Instant::now() + grace;
        if self.deadline.is_some_and(|before| before <= deadline) {
            return;
        }
        let now = self.ports.clock().now();
        let requested_at = self.record.deletion.map_or(now, |deletion| deletion.requested_at);
        let passed = Duration::try_from(now.duration_since(requested_at)).unwrap_or_default();
        self.record.deletion = Some(Deletion { requested_at, grace: passed + grace });
        self.deadline = Some(deadline);
        self.round += 1;
        self.unsaved = true;
        if self.phase == WorkerPhase::Syncing {
            self.enter(WorkerPhase::Terminating);
        }
    }

    /// What the configuration may have been the reason for is not held against it any more.
    fn config_changed(&mut self) {
        self.failing.retain(|step, _| !step.reads_config());
        self.outdated = self.under_way.iter().copied().filter(|step| step.reads_config()).collect();
        self.stale = true;
    }

    /// Goes to a later phase and gives up what the one before had under way.
    fn enter(&mut self, phase: WorkerPhase) {
        tracing::debug!(pod = %self.record.pod.key, uid = %self.record.pod.uid, ?phase, "entering phase");
        self.phase = phase;
        self.give_up();
        self.failing.clear();
        self.back_off.clear();
        self.prepared = Prepared::default();
    }

    /// Gives up whatever is under way; a record that was not written is written again.
    fn give_up(&mut self) {
        self.unsaved |= self.under_way.contains(&Step::SaveRecord);
        self.stale |= self.under_way.contains(&Step::RefreshVolumes);
        self.acting = FuturesUnordered::new();
        self.under_way.clear();
        self.outdated.clear();
    }

    /// Takes every step that can be taken now. When to look again if nothing happens.
    fn advance(&mut self) -> Option<Instant> {
        let now = self.ports.clock().now();
        let observed = self.ports.runtime().observe(&self.record.pod.uid);
        self.note(&observed);
        let (mut actions, mut wake_after) = (Vec::new(), None);
        // Nothing is made before the pod is on record, or a restart of the agent would not find it.
        if self.phase == WorkerPhase::Syncing && self.recorded {
            (actions, wake_after) = self.sync(&observed, now);
            if self.stale && self.phase == WorkerPhase::Syncing {
                actions.push(Action::RefreshVolumes);
            }
        }
        if self.phase == WorkerPhase::Terminating {
            actions = self.terminate(&observed, now);
        }
        if self.phase == WorkerPhase::Terminated {
            let deleted = self.record.deletion.is_some();
            let saving = self.under_way.contains(&Step::SaveRecord);
            actions = plan::release(self.released, !self.unsaved && !saving, deleted);
            // A record being written would come back after it was removed.
            actions.retain(|action| !(saving && *action == Action::ForgetRecord));
            if deleted && self.released.record {
                self.phase = WorkerPhase::Gone;
                return None;
            }
        }
        if self.unsaved && !self.is_leaving() {
            actions.push(Action::SaveRecord);
        }
        self.begin(actions);
        self.publish(&observed, now);
        let retry = self.failing.values().map(|failing| failing.not_before);
        let retry = retry.filter(|at| *at > Instant::now()).min();
        let timer = wake_after.map(|after| Instant::now() + after);
        retry.into_iter().chain(timer).min()
    }

    /// Whether the record's turn to be removed has come.
    fn is_leaving(&self) -> bool {
        self.record.deletion.is_some() && self.released.volumes && self.released.logs
    }

    /// Takes note of what happened without the worker's doing.
    fn note(&mut self, observed: &Observed) {
        self.unsaved |= backoff::note_long_runs(observed, &mut self.record.streak_base);
        if observed.sandbox == SandboxState::Dead && self.sandbox == SandboxState::Ready {
            // What was begun for the old sandbox must not come out in the new one.
            self.give_up();
            let message = "Pod sandbox changed, it will be killed and re-created.".to_owned();
            self.event(EventType::Normal, "SandboxChanged", None, message);
        }
        self.sandbox = observed.sandbox;
        self.failing.retain(|step, _| match step {
            Step::Start(id) | Step::Stop(id, _) => {
                observed.containers.iter().any(|container| container.id == *id && container.is_live())
            }
            Step::Remove(id) => observed.containers.iter().any(|container| container.id == *id),
            _ => true,
        });
    }

    fn sync(&mut self, observed: &Observed, now: Timestamp) -> (Vec<Action>, Option<Duration>) {
        let instant = Instant::now();
        let failing = &self.failing;
        let plan = plan::sync(&Facts {
            pod: &self.record.pod,
            observed,
            prepared: &self.prepared,
            streak_base: &self.record.streak_base,
            held: &|step| failing.get(&step).is_some_and(|failing| failing.not_before > instant),
            now,
        });
        if plan.outcome.is_some() {
            self.enter(WorkerPhase::Terminating);
            return (Vec::new(), None);
        }
        if !plan.starting {
            self.prepared = Prepared::default();
        }
        for (index, back_off) in &plan.back_off {
            if !self.back_off.contains_key(index) {
                self.back_off_event(*index);
            }
            tracing::debug!(pod = %self.record.pod.key, index, delay = ?back_off.delay, "in back-off");
        }
        self.back_off = plan.back_off;
        (plan.actions, plan.wake_after)
    }

    fn back_off_event(&self, index: Index) {
        let pod = &self.record.pod;
        if let Some(container) = pod.all_containers().nth(index) {
            let message = format!(
                "Back-off restarting failed container {} in pod {}_{}({})",
                container.name, pod.key.name, pod.key.namespace, pod.uid
            );
            self.event(EventType::Warning, "BackOff", Some(&container.name), message);
        }
    }

    fn terminate(&mut self, observed: &Observed, now: Timestamp) -> Vec<Action> {
        // A pod that ended by itself has no deadline, and nothing left to stop either.
        let left = self.deadline.map_or(self.record.pod.spec.termination_grace_period, |deadline| {
            deadline.saturating_duration_since(Instant::now())
        });
        let actions = plan::terminate(observed, left, self.round);
        if actions.is_empty() {
            if self.record.finished.is_none() {
                let status = self.compute_status(observed, now, Course::Ended);
                self.record.finished = Some(status);
                self.unsaved = true;
            }
            self.enter(WorkerPhase::Terminated);
        }
        actions
    }

    /// Begins the actions that are not under way and whose time has come.
    fn begin(&mut self, actions: Vec<Action>) {
        let instant = Instant::now();
        for action in actions {
            let step = action.step();
            let held = self.failing.get(&step).is_some_and(|failing| failing.not_before > instant);
            if held || self.under_way.contains(&step) {
                continue;
            }
            if let Action::Stop(id, ..) = action {
                self.killing_event(id);
            }
            self.under_way.push(step);
            match step {
                Step::SaveRecord => self.unsaved = false,
                Step::RefreshVolumes => self.stale = false,
                _ => {}
            }
            self.acting.push(act(&self.ports, &self.record, action));
        }
    }

    fn killing_event(&self, id: coracle_model::ContainerId) {
        let observed = self.ports.runtime().observe(&self.record.pod.uid);
        let Some(container) = observed.containers.iter().find(|container| container.id == id) else { return };
        let message = format!("Stopping container {}", container.name);
        let name = self.record.pod.all_containers().map(|it| &it.name).find(|name| **name == *container.name);
        self.event(EventType::Normal, "Killing", name, message);
    }

    /// An action ended.
    fn finish(&mut self, action: Action, result: Result<Outcome, Failure>) {
        let step = action.step();
        self.under_way.retain(|other| *other != step);
        let outdated = self.outdated.contains(&step);
        self.outdated.retain(|other| *other != step);
        let index = match action {
            Action::EnsureImage(index, _) | Action::Create(index, ..) | Action::Start(index, _) => {
                Some(index)
            }
            _ => None,
        };
        let pod = Arc::clone(&self.record.pod);
        let container = index.and_then(|index| pod.all_containers().nth(index)).map(|it| &it.name);
        match result {
            Ok(outcome) => {
                self.failing.remove(&step);
                if let Some((reason, message)) = success_event(&pod, &action) {
                    self.event(EventType::Normal, reason, container, message);
                }
                self.succeeded(action, outcome);
            }
            Err(failure) => {
                let (kind, reason, message) = failure_event(step, &failure);
                tracing::warn!(pod = %pod.key, uid = %pod.uid, ?step, %failure, "a step of the pod failed");
                self.event(kind, reason, container, message);
                let count = self.failing.get(&step).map_or(1, |failing| failing.count.saturating_add(1));
                let delay = if outdated { Duration::ZERO } else { step.schedule().delay(count) };
                self.failing.insert(step, Failing { failure, count, not_before: Instant::now() + delay });
                self.unsaved |= step == Step::SaveRecord;
                self.stale |= step == Step::RefreshVolumes;
            }
        }
    }

    fn succeeded(&mut self, action: Action, outcome: Outcome) {
        match (action, outcome) {
            (Action::SaveRecord, _) => self.recorded = true,
            (Action::EnsureVolumes, _) => self.prepared.volumes = true,
            (Action::EnsureImage(index, attempt), Outcome::Image(image)) => {
                self.prepared.images.insert(index, (attempt, image));
            }
            (Action::RemoveSandbox, _) => self.released.sandbox = true,
            (Action::ReleaseVolumes, _) => self.released.volumes = true,
            (Action::ReleaseLogs, _) => self.released.logs = true,
            (Action::ForgetRecord, _) => self.released.record = true,
            _ => {}
        }
    }

    fn event(&self, kind: EventType, reason: &'static str, container: Option<&Name>, message: String) {
        self.ports.events().record(&self.record.pod, PodEvent { kind, reason, message, container });
    }

    fn publish(&mut self, observed: &Observed, now: Timestamp) {
        let status = match &self.record.finished {
            // The last word is not taken back.
            Some(finished) => finished.clone(),
            None if self.phase == WorkerPhase::Syncing => self.compute_status(observed, now, Course::Running),
            None => self.compute_status(observed, now, Course::Stopping),
        };
        let state = (self.phase, self.record.deletion);
        if self.published == Some(state) && self.status.as_deref() == Some(&status) {
            return;
        }
        let status = Arc::new(status);
        self.status = Some(Arc::clone(&status));
        self.published = Some(state);
        self.board.publish(PodSnapshot {
            pod: Arc::clone(&self.record.pod),
            source: self.record.source.clone(),
            status,
            deletion: self.record.deletion,
            phase: self.phase,
            version: 0,
        });
    }

    fn compute_status(&self, observed: &Observed, now: Timestamp, course: Course) -> PodStatus {
        let pod = &self.record.pod;
        let mut failures = BTreeMap::new();
        let mut pod_failure = None;
        for (step, failing) in &self.failing {
            match step {
                Step::Image(index) => {
                    let image = pod.all_containers().nth(*index).map_or("", |container| &container.image);
                    failures.insert(*index, image_failure(image, failing));
                }
                Step::Create(index) => {
                    failures.insert(*index, failing.failure.clone());
                }
                Step::Sandbox | Step::Volumes | Step::SaveRecord => {
                    pod_failure = pod_failure.or(Some(&failing.failure));
                }
                _ => {}
            }
        }
        status::status(
            pod,
            observed,
            &Notes {
                start_time: self.record.start_time,
                back_off: &self.back_off,
                failures: &failures,
                pod_failure,
                course,
                previous: self.status.as_deref(),
                now,
            },
        )
    }
}

/// The failure of an image as the kubelet shows it: from the second on, that it is backing off.
fn image_failure(image: &str, failing: &Failing) -> Failure {
    let Failure { reason, message } = &failing.failure;
    if failing.count < 2 || reason != "ErrImagePull" {
        return failing.failure.clone();
    }
    Failure::new("ImagePullBackOff", format!("Back-off pulling image \"{image}\": {reason}: {message}"))
}

//! The worker of one pod: observe, plan, act, publish; then wait for something to change.

mod checkpoint;
pub(crate) mod devices;
mod ending;
mod ephemeral;
mod measuring;
mod probing;
mod pulling;
mod results;
mod seen;
mod syncing;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use coracle_model::{ContainerId, EventType, Name, PodStatus};
use tokio::sync::oneshot;
use tokio::time::{Instant, sleep_until};

use self::checkpoint::Kept;
use self::devices::Waiting;
use self::ending::Stopping;
use self::measuring::Measuring;
use self::results::Failing;
use crate::act::Acting;
use crate::action::{Action, Index, Step};
use crate::admission::PortHold;
use crate::age::{Ages, Moment, Since};
use crate::backoff::{self, CrashLoop};
use crate::board::{Board, WorkerPhase};
use crate::ephemeral::NotAdded;
use crate::inbox::Inbox;
use crate::past::{self, Loss};
use crate::plan::{self, Prepared, Released, Timer};
use crate::ports::{Clock, Events, Observed, ObservedContainer, PodEvent, Ports, Runtime, SandboxState};
use crate::record::{Deletion, PodRecord};
use crate::scene::Scene;

/// How a worker ended.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum End {
    /// The pod and all it had are gone.
    Gone,
    /// The agent ends; the pod lives on.
    Detached,
    /// The node's shutdown, which ended the pod, is over: it begins again with this record of its end.
    Again(Box<PodRecord>),
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
    /// When the grace period of its removal ends; set with the record's deletion.
    removal: Option<Instant>,
    /// When the containers that still run are killed; set once the pod ends or is removed.
    deadline: Option<Instant>,
    prepared: Prepared,
    released: Released,
    back_off: BTreeMap<Index, CrashLoop>,
    failing: BTreeMap<Step, Failing>,
    acting: Acting,
    /// Volumes may not hold what the pod's configuration says now.
    stale: bool,
    /// Steps under way that may have seen the configuration before its last change.
    outdated: Vec<Step>,
    /// How far it is with the devices it asks for.
    devices: Waiting,
    /// When its volumes are measured; `None` when there is nothing to measure.
    measuring: Option<Measuring>,
    /// Whoever is to be told once the ephemeral containers they asked for are on record.
    added: Vec<oneshot::Sender<Result<(), NotAdded>>>,
    /// The containers that are being ended.
    stopping: BTreeMap<ContainerId, Stopping>,
    /// The containers that are probed, and whether only for their readiness.
    probed: Vec<(ContainerId, bool)>,
    has_probes: bool,
    sandbox: SandboxState,
    /// The containers that only the record still tells of, and that no later run has replaced.
    past: Vec<ObservedContainer>,
    /// How old the containers' runs are.
    ages: Ages,
    /// When the pod was taken up.
    started: Since,
    /// What is kept for after a reboot.
    kept: Kept,
    /// When what was seen is put on record.
    keep_at: Option<Instant>,
    status: Option<Arc<PodStatus>>,
    published: Option<(WorkerPhase, Option<Deletion>, bool, PortHold)>,
    /// What ended it is over: it begins again once its end is on record.
    again: bool,
}

/// How a worker comes by its pod.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Origin {
    /// The node takes it up now.
    New,
    /// It is on record: an agent before this one has had it.
    Recorded,
    /// So it was, before the machine was booted again.
    Rebooted,
}

impl<P: Ports> Worker<P> {
    /// A worker for a pod. Whatever of it is there is taken over.
    pub(crate) fn new(
        ports: Arc<P>,
        inbox: Arc<Inbox>,
        board: Arc<Board>,
        mut record: PodRecord,
        origin: Origin,
    ) -> Self {
        let moment = Moment { now: ports.clock().now(), instant: Instant::now() };
        let observed = ports.runtime().observe(&record.pod.uid);
        let recorded = origin == Origin::Recorded;
        let loss = if origin == Origin::Rebooted { Loss::Reboot } else { Loss::Unknown };
        let seen = record.seen.as_deref();
        let past = seen.map(|seen| past::past(seen, &observed, loss, moment.now)).unwrap_or_default();
        let removal = record.deletion.map(|it| moment.deadline(it.requested_at, it.grace));
        let ending = record.ending.as_ref().map(|it| moment.deadline(it.since, it.grace));
        for ended in past.iter().filter(|past| past::ended_with_machine(past)) {
            record.streak_base.insert(ended.name.clone(), ended.attempt.saturating_add(1));
        }
        if origin == Origin::Rebooted
            && let Some(seen) = &mut record.seen
        {
            // Those of a sandbox that is no more: others may have them by now.
            Arc::make_mut(seen).pod_ips.clear();
        }
        let started = match record.start_uptime {
            Some(start) => Since::by_then(ports.clock().uptime().saturating_sub(start), moment),
            None => Since::new(record.start_time.min(moment.now), moment),
        };
        let has_probes = record.pod.all_containers().any(|container| !container.probes.is_empty());
        let ended = removal.is_some() || ending.is_some() || record.finished.is_some();
        Self {
            phase: if ended { WorkerPhase::Terminating } else { WorkerPhase::Syncing },
            measuring: Measuring::of(&record.pod),
            released: Released {
                devices: record.pod.spec.extended_resources().is_empty(),
                ..Released::default()
            },
            devices: Waiting::of(&record.pod, &board),
            stopping: ending::resumed(&record, &observed, moment),
            has_probes,
            sandbox: observed.sandbox,
            past,
            ages: Ages::default(),
            started,
            kept: Kept::default(),
            keep_at: None,
            status: record.seen.clone(),
            ports,
            inbox,
            board,
            record,
            unsaved: !recorded,
            recorded,
            removal,
            deadline: removal.into_iter().chain(ending).min(),
            prepared: Prepared::default(),
            back_off: BTreeMap::new(),
            failing: BTreeMap::new(),
            acting: Acting::default(),
            stale: false,
            outdated: Vec::new(),
            added: Vec::new(),
            probed: Vec::new(),
            published: None,
            again: false,
        }
    }

    /// Publishes what is seen of the pod before anything is done.
    pub(crate) fn announce(&mut self) {
        let observed = self.observe();
        let now = self.ports.clock().now();
        self.publish(&observed, now);
    }

    /// Works until the pod is gone or the agent ends.
    pub(crate) async fn run(&mut self) -> End {
        loop {
            let orders = self.inbox.take();
            if orders.detach {
                return End::Detached;
            }
            if let Some(grace) = orders.terminate {
                self.accept_deletion(grace);
            }
            if let Some(eviction) = orders.evict {
                self.accept_eviction(eviction);
            }
            self.again |= orders.begin_again;
            if orders.ports_free {
                self.have_ports();
            }
            if orders.retry_images {
                self.failing.retain(|step, _| !matches!(step, Step::Image(_)));
            }
            if orders.devices_changed {
                self.devices_changed();
            }
            if orders.config_changed {
                self.config_changed();
            }
            for addition in self.inbox.take_additions() {
                self.accept_addition(addition);
            }
            let wake = self.advance();
            if self.phase == WorkerPhase::Gone {
                return End::Gone;
            }
            if self.again && self.record.begins_again() && self.is_settled() {
                return End::Again(Box::new(self.record.clone()));
            }
            tokio::select! {
                () = self.inbox.wait() => {}
                (action, result) = self.acting.next() => self.finish(action, result),
                () = self.devices.freed() => {}
                () = sleep_until(wake.unwrap_or_else(Instant::now)), if wake.is_some() => {}
            }
        }
    }

    /// What the configuration may have been the reason for is not held against it any more.
    fn config_changed(&mut self) {
        self.failing.retain(|step, _| !step.reads_config());
        self.outdated = self.acting.steps().filter(|step| step.reads_config()).collect();
        self.stale = true;
    }

    /// Nobody has the ports of the host any more that the pod lacks. What is made of it from now on is on record as
    /// a pod's that has them.
    fn have_ports(&mut self) {
        self.again |= self.record.lacks_ports();
        if std::mem::take(&mut self.record.waits_for_ports) {
            let moment = self.moment();
            self.record.start_time = moment.now;
            self.record.start_uptime = Some(self.ports.clock().uptime());
            self.started = Since::by_then(Duration::ZERO, moment);
            // One that is being written does not say so yet.
            self.acting.give_up(Step::SaveRecord);
            self.unsaved = true;
            self.recorded = false;
        }
    }

    /// Goes to a later phase and gives up what the one before had under way.
    fn enter(&mut self, phase: WorkerPhase) {
        tracing::debug!(pod = %self.record.pod.key, uid = %self.record.pod.uid, ?phase, "entering phase");
        self.phase = phase;
        self.give_up(|step| match step {
            Step::PreStop(_) | Step::Stop(_) => phase == WorkerPhase::Terminating,
            // It cannot be taken back.
            Step::Checkpoint => true,
            _ => false,
        });
        self.failing.clear();
        self.back_off.clear();
        self.prepared = Prepared::default();
    }

    /// Gives up what is under way and not to go on; a record that was not written is written again.
    fn give_up(&mut self, goes_on: impl Fn(Step) -> bool) {
        self.unsaved |= self.acting.contains(Step::SaveRecord) && !goes_on(Step::SaveRecord);
        self.stale |= self.acting.contains(Step::RefreshVolumes) && !goes_on(Step::RefreshVolumes);
        self.outdated.retain(|step| goes_on(*step));
        self.acting.retain(goes_on);
    }

    /// Takes every step that can be taken now. When to look again if nothing happens.
    fn advance(&mut self) -> Option<Instant> {
        let moment = self.moment();
        let observed = self.observe();
        self.note(&observed, moment);
        self.follow_probes(&observed);
        let (mut actions, mut timer) = (Vec::new(), Timer::default());
        // Nothing is made before the pod is on record, or a restart of the agent would not find it.
        if self.phase == WorkerPhase::Syncing
            && self.recorded
            && !self.record.waits_for_ports
            && self.lacks_devices()
        {
            actions = self.ask_for_devices();
        } else if self.phase == WorkerPhase::Syncing && self.recorded && !self.record.waits_for_ports {
            actions = self.sync(&observed, moment, &mut timer);
            if self.stale && self.phase == WorkerPhase::Syncing {
                actions.push(Action::RefreshVolumes);
            }
            if self.phase == WorkerPhase::Syncing {
                actions.extend(self.measure(&observed, moment, &mut timer));
            }
        }
        if self.phase == WorkerPhase::Terminating {
            actions = self.terminate(&observed, moment, &mut timer);
        }
        if self.phase == WorkerPhase::Terminated {
            let deleted = self.record.deletion.is_some();
            let saving = self.acting.contains(Step::SaveRecord);
            let begins_again = self.record.begins_again();
            actions = plan::release(self.released, !self.unsaved && !saving, deleted, begins_again);
            // A record being written would come back after it was removed.
            let writing = saving || self.acting.contains(Step::Checkpoint);
            actions.retain(|action| !(writing && *action == Action::ForgetRecord));
            if deleted && self.released.record {
                self.phase = WorkerPhase::Gone;
                return None;
            }
        }
        if self.unsaved && !self.is_leaving() {
            actions.push(Action::SaveRecord);
        }
        self.begin(actions, &observed, moment);
        self.tell_pull_back_off(moment, &mut timer);
        self.publish(&observed, moment.now);
        let mut actions = self.keep(moment, &mut timer);
        if self.unsaved && !self.is_leaving() {
            actions.push(Action::SaveRecord);
        }
        self.begin(actions, &observed, moment);
        let retry = self.failing.values().map(|failing| failing.not_before);
        let retry = retry.filter(|at| *at > Instant::now()).min();
        let timer = timer.0.map(|after| moment.instant + after);
        retry.into_iter().chain(timer).min()
    }

    /// Whether the record's turn to be removed has come.
    fn is_leaving(&self) -> bool {
        let released = self.released;
        self.record.deletion.is_some() && released.devices && released.volumes && released.logs
    }

    /// Takes note of what happened without the worker's doing.
    fn note(&mut self, observed: &Observed, moment: Moment) {
        self.ages.see(observed, moment);
        let age = |container: &ObservedContainer| self.ages.of(container, moment);
        self.unsaved |= backoff::note_long_runs(observed, age, &mut self.record.streak_base);
        // Of a terminated pod the sandbox is being removed, and ends with that.
        let died = observed.sandbox == SandboxState::Dead && self.sandbox == SandboxState::Ready;
        if died && self.phase != WorkerPhase::Terminated {
            // What was begun for the old sandbox must not come out in the new one.
            self.give_up(|step| step == Step::Checkpoint);
            let message = "Pod sandbox changed, it will be killed and re-created.".to_owned();
            self.event(EventType::Normal, "SandboxChanged", None, message);
        }
        self.sandbox = observed.sandbox;
        let find = |id: ContainerId| observed.containers.iter().find(|container| container.id == id);
        let lives = |id: ContainerId| find(id).is_some_and(|container| container.is_live());
        self.stopping.retain(|id, _| lives(*id));
        self.record.progress.retain(|id, _| find(*id).is_some());
        // A hook ends with its container.
        self.acting.retain(|step| match step {
            Step::PostStart(id) | Step::PreStop(id) => lives(id),
            _ => true,
        });
        self.failing.retain(|step, _| match step {
            Step::Start(id) | Step::Stop(id) => lives(*id),
            Step::Remove(id) => find(*id).is_some(),
            _ => true,
        });
    }

    /// What is there of the pod, and what was there and is no more.
    fn observe(&mut self) -> Observed {
        let mut observed = self.ports.runtime().observe(&self.record.pod.uid);
        let containers = &observed.containers;
        self.past.retain(|past| {
            // By a run that ended since, or by what the runtime came to know of it after all.
            let replaces = |one: &&ObservedContainer| {
                one.attempt == past.attempt || one.attempt > past.attempt && !one.is_live()
            };
            let mut same = containers.iter().filter(|one| one.name == past.name);
            !same.any(|one| replaces(&one))
        });
        observed.containers.splice(0..0, self.past.iter().cloned());
        observed
    }

    fn scene<'a>(&'a self, observed: &'a Observed) -> Scene<'a> {
        Scene {
            pod: &self.record.pod,
            observed,
            progress: &self.record.progress,
            round: &self.record.round,
            restarting: self.record.restarting,
        }
    }

    fn moment(&self) -> Moment {
        Moment { now: self.ports.clock().now(), instant: Instant::now() }
    }

    fn event(&self, kind: EventType, reason: &str, container: Option<&Name>, message: String) {
        self.ports.events().record(&self.record.pod, PodEvent { kind, reason, message, container });
    }
}

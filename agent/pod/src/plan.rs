//! What is to be done next: a function of the pod, of what is there and of the time.
//!
//! The plan names every step that could be taken now; those under way are the worker's business. A
//! plan that is carried out leads to a state whose plan is empty, unless a timer is set.

use std::collections::BTreeMap;
use std::time::Duration;

use coracle_model::{Pod, PodPhase};
use jiff::Timestamp;

use crate::action::{Action, Index, Step};
use crate::backoff::{self, CrashLoop};
use crate::ports::{ImageRef, Observed, ObservedContainer, ObservedState, SandboxState};
use crate::view::{View, is_current};

/// What was made ready for the containers about to be created. Forgotten when none is.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Prepared {
    /// The volumes can be mounted.
    pub(crate) volumes: bool,
    /// Images, each for one run of one container.
    pub(crate) images: BTreeMap<Index, (u32, ImageRef)>,
}

/// What the plan of a pod that is to run rests on.
pub(crate) struct Facts<'a> {
    pub(crate) pod: &'a Pod,
    pub(crate) observed: &'a Observed,
    pub(crate) prepared: &'a Prepared,
    pub(crate) streak_base: &'a BTreeMap<String, u32>,
    /// Steps that failed and are not to be tried yet.
    pub(crate) held: &'a dyn Fn(Step) -> bool,
    pub(crate) now: Timestamp,
}

/// What is to be done.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Plan {
    /// All of them may be taken at the same time.
    pub(crate) actions: Vec<Action>,
    /// When the plan changes by itself.
    pub(crate) wake_after: Option<Duration>,
    /// The containers that wait before they are started again.
    pub(crate) back_off: BTreeMap<Index, CrashLoop>,
    /// Some container is to be started, now or once it is its turn: what was prepared is still needed.
    pub(crate) starting: bool,
    /// The pod has come to its end: nothing of it runs, nothing will be started again.
    pub(crate) outcome: Option<PodPhase>,
}

/// Takes a pod towards running: sandbox, volumes and images side by side, then the init containers
/// one after another, then the others.
pub(crate) fn sync(facts: &Facts<'_>) -> Plan {
    let pod = facts.pod;
    let views: Vec<View<'_>> =
        pod.all_containers().map(|container| View::of(facts.observed, &container.name)).collect();
    let mut plan = Plan::default();
    for view in &views {
        // Of two that live the one kept is the later; the other is what a lost answer left behind.
        plan.actions.extend(view.surplus.iter().map(|surplus| Action::Stop(surplus.id, Duration::ZERO, 0)));
        plan.actions.extend(view.older.iter().map(|older| Action::Remove(older.id)));
    }

    if facts.observed.sandbox != SandboxState::Ready && !facts.observed.containers.is_empty() {
        // The sandbox died. What still lives of it ends before there is a new one.
        let stranded: Vec<_> = views.iter().filter_map(|view| view.live).collect();
        if !stranded.is_empty() {
            plan.actions.extend(stranded.iter().map(|live| Action::Stop(live.id, Duration::ZERO, 0)));
            return plan;
        }
        plan.outcome = outcome_without_sandbox(facts, &views);
        if plan.outcome.is_some() {
            return plan;
        }
    }

    let (init, apps) = views.split_at(pod.spec.init_containers.len());
    let mut next = Vec::new();
    match pending_init(facts, init, apps) {
        Init::Completed => {
            next.extend(init.len()..views.len());
            let ended = |view: &View<'_>| !runs_or_will(facts, view);
            if apps.iter().all(ended) {
                plan.outcome = Some(result(apps));
                return plan;
            }
        }
        Init::Pending(index) => next.push(index),
        Init::Failed => {
            plan.outcome = Some(PodPhase::Failed);
            return plan;
        }
    }

    let mut may_start = true;
    for index in next {
        may_start &= advance(facts, index, &views[index], may_start, &mut plan);
    }
    // What no run has needed yet is fetched while others are still on their way.
    for (index, _) in views.iter().enumerate().filter(|(_, view)| view.latest().is_none()) {
        plan.starting = true;
        if image(facts, index, 0).is_none() && !plan.names(Step::Image(index)) {
            plan.push(facts, Action::EnsureImage(index, 0));
        }
    }
    if plan.starting {
        if facts.observed.sandbox != SandboxState::Ready {
            plan.push(facts, Action::EnsureSandbox);
        }
        if !facts.prepared.volumes {
            plan.push(facts, Action::EnsureVolumes);
        }
    }
    plan
}

/// Ends every container that is left, side by side.
pub(crate) fn terminate(observed: &Observed, grace_left: Duration, round: u32) -> Vec<Action> {
    let live = observed.containers.iter().filter(|container| container.is_live());
    live.map(|container| Action::Stop(container.id, grace_left, round)).collect()
}

/// What of a terminated pod was released.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Released {
    pub(crate) sandbox: bool,
    pub(crate) volumes: bool,
    pub(crate) logs: bool,
    pub(crate) record: bool,
}

/// Releases what a terminated pod has. `recorded`: its end is on record, so that its containers are no
/// longer needed to tell it. `deleted`: its logs and its record go, too.
pub(crate) fn release(released: Released, recorded: bool, deleted: bool) -> Vec<Action> {
    let mut actions = Vec::new();
    if !released.sandbox {
        // A pod that is only at its end is still shown; one that is deleted does not wait for a full disk.
        if recorded || deleted {
            actions.push(Action::RemoveSandbox);
        }
        return actions;
    }
    if !released.volumes {
        actions.push(Action::ReleaseVolumes);
    }
    if deleted && !released.logs {
        actions.push(Action::ReleaseLogs);
    }
    if deleted && released.volumes && released.logs && !released.record {
        actions.push(Action::ForgetRecord);
    }
    actions
}

/// How far the init containers are.
enum Init {
    Completed,
    /// The one whose turn it is.
    Pending(Index),
    /// One failed and is not started again.
    Failed,
}

fn pending_init(facts: &Facts<'_>, init: &[View<'_>], apps: &[View<'_>]) -> Init {
    // Once an app container was created in this sandbox the init containers had completed in it, whatever
    // became of their records.
    if apps.iter().any(|view| view.latest().is_some_and(|app| is_current(facts.observed, app))) {
        return Init::Completed;
    }
    for (index, view) in init.iter().enumerate() {
        let current = view.latest().filter(|latest| is_current(facts.observed, latest));
        match current {
            Some(done) if done.succeeded() => {}
            Some(ended) if !ended.is_live() && !restarts_init(facts, ended) => return Init::Failed,
            _ => return Init::Pending(index),
        }
    }
    Init::Completed
}

/// Takes one container a step further. Whether those after it in the specification may start: as in the
/// kubelet they start in order, but one that waits or fails holds up no other.
fn advance(facts: &Facts<'_>, index: Index, view: &View<'_>, may_start: bool, plan: &mut Plan) -> bool {
    if let Some(live) = view.live {
        if !is_current(facts.observed, live) {
            plan.actions.push(Action::Stop(live.id, Duration::ZERO, 0));
        } else if live.state == ObservedState::Created {
            if may_start {
                plan.push(facts, Action::Start(index, live.id));
            }
            return (facts.held)(Step::Start(live.id));
        }
        return true;
    }
    if let Some(dead) = view.dead {
        if !will_restart(facts, index, dead) {
            return true;
        }
        if let Some(back_off) = backoff::crash_loop(dead, facts.streak_base, facts.now) {
            plan.wake_after =
                Some(plan.wake_after.map_or(back_off.remaining, |wake| wake.min(back_off.remaining)));
            plan.back_off.insert(index, back_off);
            return true;
        }
    }
    plan.starting = true;
    let Some(image) = image(facts, index, view.next_attempt) else {
        plan.push(facts, Action::EnsureImage(index, view.next_attempt));
        return true;
    };
    if facts.observed.sandbox == SandboxState::Ready && facts.prepared.volumes {
        plan.push(facts, Action::Create(index, view.next_attempt, image.clone()));
        return (facts.held)(Step::Create(index));
    }
    true
}

fn will_restart(facts: &Facts<'_>, index: Index, dead: &ObservedContainer) -> bool {
    if index < facts.pod.spec.init_containers.len() {
        // One of an older sandbox runs again even if it had succeeded: that is the rule for a new sandbox.
        return !is_current(facts.observed, dead) || restarts_init(facts, dead);
    }
    restarts(facts, dead)
}

/// Whether an app container that ended is started again.
fn restarts(facts: &Facts<'_>, dead: &ObservedContainer) -> bool {
    exit_code(dead).is_some_and(|code| facts.pod.spec.restart_policy.restarts(code))
}

/// An init container is started again only after a failure, and not when the policy is Never.
fn restarts_init(facts: &Facts<'_>, dead: &ObservedContainer) -> bool {
    !dead.succeeded() && restarts(facts, dead)
}

fn runs_or_will(facts: &Facts<'_>, view: &View<'_>) -> bool {
    view.live.is_some() || view.dead.is_none_or(|dead| restarts(facts, dead))
}

fn exit_code(container: &ObservedContainer) -> Option<i32> {
    match container.state {
        ObservedState::Exited { exit_code, .. } => Some(exit_code),
        _ => None,
    }
}

fn image<'a>(facts: &Facts<'a>, index: Index, attempt: u32) -> Option<&'a ImageRef> {
    facts.prepared.images.get(&index).filter(|(of, _)| *of == attempt).map(|(_, image)| image)
}

/// Whether the pod ends with its sandbox. As in the kubelet: never restarted means that no new sandbox is
/// made once there were containers, and none is made for containers that have all succeeded.
fn outcome_without_sandbox(facts: &Facts<'_>, views: &[View<'_>]) -> Option<PodPhase> {
    let apps = &views[facts.pod.spec.init_containers.len()..];
    let over = facts.pod.spec.restart_policy == coracle_model::RestartPolicy::Never
        || apps.iter().all(|view| !runs_or_will(facts, view));
    over.then(|| result(apps))
}

fn result(apps: &[View<'_>]) -> PodPhase {
    let succeeded = apps.iter().all(|view| view.dead.is_some_and(ObservedContainer::succeeded));
    if succeeded { PodPhase::Succeeded } else { PodPhase::Failed }
}

// === impl Plan ===

impl Plan {
    /// Adds a step, unless it failed and its time has not come.
    fn push(&mut self, facts: &Facts<'_>, action: Action) {
        if !(facts.held)(action.step()) {
            self.actions.push(action);
        }
    }

    fn names(&self, step: Step) -> bool {
        self.actions.iter().any(|action| action.step() == step)
    }
}

//! What is to be done next: a function of the pod, of what is there and of the time.
//!
//! The plan names every step that could be taken now; those under way are the worker's business. A
//! plan that is carried out leads to a state whose plan is empty, unless a timer is set.

mod ephemeral;
mod init;
mod release;
mod stop;

use std::collections::BTreeMap;
use std::time::Duration;

use coracle_model::{ContainerId, PodPhase, RestartPolicy};

use self::init::{Init, pending_init};
pub(crate) use self::release::{Released, release};
pub(crate) use self::stop::{MINIMUM_GRACE, Stop, Stops, terminate};
use crate::action::{Action, Index, Step};
use crate::age::Age;
use crate::backoff::{self, CrashLoop};
use crate::ports::{ImageRef, ObservedContainer, ObservedState, SandboxState};
use crate::record::StopCause;
use crate::scene::{Part, Role, Scene};
use crate::view::View;

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
    pub(crate) scene: Scene<'a>,
    pub(crate) prepared: &'a Prepared,
    pub(crate) streak_base: &'a BTreeMap<String, u32>,
    /// The containers that are being ended.
    pub(crate) stops: &'a Stops,
    /// Steps that failed and are not to be tried yet.
    pub(crate) held: &'a dyn Fn(Step) -> bool,
    /// How long containers that ended have run, and how long ago they ended.
    pub(crate) age: &'a dyn Fn(&ObservedContainer) -> Age,
}

/// What is to be done.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Plan {
    /// All of them may be taken at the same time.
    pub(crate) actions: Vec<Action>,
    /// Running containers that are to be ended, and why. The plan is to be made again with their ends.
    pub(crate) stops: Vec<(ContainerId, StopCause)>,
    /// All containers are ended, to be started again.
    pub(crate) restarting: Option<Restarting>,
    /// When the plan changes by itself.
    pub(crate) timer: Timer,
    /// The containers that wait before they are started again.
    pub(crate) back_off: BTreeMap<Index, CrashLoop>,
    /// Some container is to be started, now or once it is its turn: what was prepared is still needed.
    pub(crate) starting: bool,
    /// The pod has come to its end: no app container of it runs, none will be started again.
    pub(crate) outcome: Option<PodPhase>,
}

/// How far a restart of all containers is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Restarting {
    /// Some containers still live.
    Ending,
    /// None does: the pod begins with its init containers again.
    Ended,
}

/// The time after which a plan changes by itself; the earliest of those that were set.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Timer(pub(crate) Option<Duration>);

/// Takes a pod towards running: sandbox, volumes and images side by side, then the init containers
/// one after another, then the others.
pub(crate) fn sync(facts: &Facts<'_>) -> Plan {
    let scene = &facts.scene;
    let parts: Vec<_> = scene.parts().collect();
    let views = scene.views();
    let mut plan = Plan::default();
    for view in &views {
        // Of two that live the one kept is the later; the other is what a lost answer left behind.
        plan.actions.extend(view.surplus.iter().map(|surplus| Action::Stop(surplus.id, Duration::ZERO)));
        plan.actions.extend(view.older.iter().map(|older| Action::Remove(older.id)));
    }

    if scene.restarting || parts.iter().zip(&views).any(|(part, view)| restarts_all(scene, *part, view)) {
        restart_all(facts, &parts, &views, &mut plan);
        return plan;
    }

    if scene.observed.sandbox != SandboxState::Ready && !scene.observed.containers.is_empty() {
        // The sandbox died. What still lives of it ends before there is a new one.
        let stranded: Vec<_> = views.iter().filter_map(|view| view.live).collect();
        if !stranded.is_empty() {
            plan.actions.extend(stranded.iter().map(|live| Action::Stop(live.id, Duration::ZERO)));
            return plan;
        }
        plan.outcome = outcome_without_sandbox(facts, &parts, &views);
        if plan.outcome.is_some() {
            return plan;
        }
    }

    let mut next = Vec::new();
    match pending_init(scene, &parts, &views) {
        Init::Failed => {
            plan.outcome = Some(PodPhase::Failed);
            return plan;
        }
        Init::Pending(inits) => next.extend(inits),
        Init::Completed(sidecars) => {
            let apps = parts.iter().zip(&views).filter(|(part, _)| part.role == Role::App);
            if apps.clone().all(|(part, view)| !runs_or_will(scene, *part, view)) {
                plan.outcome = Some(result(apps.map(|(_, view)| view)));
                return plan;
            }
            next.extend(sidecars);
            next.extend(apps.map(|(part, _)| part.index));
        }
    }

    ephemeral::advance_all(facts, &parts, &views, &mut plan);
    let mut may_start = true;
    for index in next {
        may_start &= advance(facts, parts[index], &views[index], may_start, &mut plan);
    }
    // What no run has needed yet is fetched while others are still on their way.
    for (index, _) in views.iter().enumerate().filter(|(_, view)| view.latest().is_none()) {
        plan.starting = true;
        if image(facts, index, 0).is_none() && !plan.names(Step::Image(index)) {
            plan.push(facts, Action::EnsureImage(index, 0));
        }
    }
    if plan.starting {
        if scene.observed.sandbox != SandboxState::Ready {
            plan.push(facts, Action::EnsureSandbox);
        }
        if !facts.prepared.volumes {
            plan.push(facts, Action::EnsureVolumes);
        }
    }
    plan
}

/// Takes one container a step further. Whether those after it in the specification may start: as in the
/// kubelet they start in order, each once the one before was started and its postStart hook carried out, but
/// one that waits or fails holds up no other.
fn advance(facts: &Facts<'_>, part: Part<'_>, view: &View<'_>, may_start: bool, plan: &mut Plan) -> bool {
    let scene = &facts.scene;
    if let Some(live) = view.live {
        return advance_live(facts, part, live, may_start, plan);
    }
    if let Some(dead) = view.dead {
        if !will_restart(scene, part, dead) {
            return true;
        }
        // Init containers begin anew in a new sandbox.
        let anew = part.role.is_init() && !scene.is_current(dead) && !scene.is_left_behind(dead);
        let back_off = backoff::crash_loop(dead, (facts.age)(dead), facts.streak_base);
        if let Some(back_off) = back_off.filter(|_| !anew) {
            plan.timer.wake_in(back_off.remaining);
            plan.back_off.insert(part.index, back_off);
            return true;
        }
    }
    make(facts, part, view, plan)
}

/// Takes the steps up to a container that is created. Whether those after it may start.
fn make(facts: &Facts<'_>, part: Part<'_>, view: &View<'_>, plan: &mut Plan) -> bool {
    plan.starting = true;
    let Some(image) = image(facts, part.index, view.next_attempt) else {
        plan.push(facts, Action::EnsureImage(part.index, view.next_attempt));
        return true;
    };
    if facts.scene.observed.sandbox == SandboxState::Ready && facts.prepared.volumes {
        plan.push(facts, Action::Create(part.index, view.next_attempt, image.clone()));
        return (facts.held)(Step::Create(part.index));
    }
    true
}

/// Whether the last run of a container has ended as one of its rules describes that restarts all of them.
fn restarts_all(scene: &Scene<'_>, part: Part<'_>, view: &View<'_>) -> bool {
    let ended = view.dead.filter(|dead| view.live.is_none() && !scene.is_left_behind(dead));
    ended.is_some_and(|ended| scene.restarts_all(part, ended))
}

/// Ends all containers but the ephemeral ones, which would not come again, side by side: no preStop hook, and only
/// the least grace period, as in the kubelet.
fn restart_all(facts: &Facts<'_>, parts: &[Part<'_>], views: &[View<'_>], plan: &mut Plan) {
    let surplus = views.iter().any(|view| !view.surplus.is_empty());
    plan.restarting = Some(if surplus { Restarting::Ending } else { Restarting::Ended });
    let restarted = parts.iter().zip(views).filter(|(part, _)| part.role != Role::Ephemeral);
    for (part, live) in restarted.filter_map(|(part, view)| Some((*part, view.live?))) {
        plan.restarting = Some(Restarting::Ending);
        let ordered = facts.scene.stop_cause(live.id) == Some(&StopCause::RestartAll);
        match facts.stops.get(&live.id) {
            Some(order) if ordered => {
                plan.actions.extend(stop::stop(Some(part), live, order, true, &mut plan.timer));
            }
            _ => plan.stops.push((live.id, StopCause::RestartAll)),
        }
    }
}

fn advance_live(
    facts: &Facts<'_>,
    part: Part<'_>,
    live: &ObservedContainer,
    may_start: bool,
    plan: &mut Plan,
) -> bool {
    let scene = &facts.scene;
    if !scene.is_current(live) {
        plan.actions.push(Action::Stop(live.id, Duration::ZERO));
        return true;
    }
    if live.state == ObservedState::Created {
        if may_start {
            plan.push(facts, Action::Start(part.index, live.id));
        }
        return (facts.held)(Step::Start(live.id));
    }
    if let Some(order) = facts.stops.get(&live.id) {
        plan.actions.extend(stop::stop(Some(part), live, order, true, &mut plan.timer));
        return true;
    }
    if let Some(cause) = cause_to_stop(scene, live) {
        plan.stops.push((live.id, cause));
        return true;
    }
    if scene.awaits_post_start(part.spec, live) {
        plan.actions.push(Action::PostStart(part.index, live.id));
        return false;
    }
    true
}

/// Why a container that runs is to be ended: what its probes have found.
fn cause_to_stop(scene: &Scene<'_>, live: &ObservedContainer) -> Option<StopCause> {
    let failed = scene.progress.get(&live.id)?.findings.as_ref()?.failed.as_ref()?;
    Some(StopCause::Probe(failed.kind))
}

fn will_restart(scene: &Scene<'_>, part: Part<'_>, dead: &ObservedContainer) -> bool {
    // An init container of an older sandbox runs again even if it had succeeded: that is the rule for a new
    // sandbox.
    part.role.is_init() && !scene.is_current(dead) || scene.restarts(part, dead)
}

fn runs_or_will(scene: &Scene<'_>, part: Part<'_>, view: &View<'_>) -> bool {
    view.live.is_some() || view.dead.is_none_or(|dead| scene.restarts(part, dead))
}

fn image<'a>(facts: &Facts<'a>, index: Index, attempt: u32) -> Option<&'a ImageRef> {
    facts.prepared.images.get(&index).filter(|(of, _)| *of == attempt).map(|(_, image)| image)
}

/// Whether the pod ends with its sandbox. As in the kubelet: a pod that is never restarted gets no new
/// sandbox once there were containers, unless one of them has a policy of its own that starts it again, and
/// none is made for containers that have all ended for good.
fn outcome_without_sandbox(facts: &Facts<'_>, parts: &[Part<'_>], views: &[View<'_>]) -> Option<PodPhase> {
    let scene = &facts.scene;
    let apps = || parts.iter().zip(views).filter(|(part, _)| part.role == Role::App);
    let restarted =
        |(part, view): (&Part<'_>, &View<'_>)| view.dead.is_some_and(|dead| scene.restarts(*part, dead));
    let never = scene.pod.spec.restart_policy == RestartPolicy::Never && !apps().any(restarted);
    let over = never || apps().all(|(part, view)| !runs_or_will(scene, *part, view));
    over.then(|| result(apps().map(|(_, view)| view)))
}

fn result<'a>(mut apps: impl Iterator<Item = &'a View<'a>>) -> PodPhase {
    let succeeded = apps.all(|view| view.dead.is_some_and(ObservedContainer::succeeded));
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

// === impl Timer ===

impl Timer {
    /// The plan changes after this time, if not before.
    pub(crate) fn wake_in(&mut self, after: Duration) {
        self.0 = Some(self.0.map_or(after, |before| before.min(after)));
    }
}

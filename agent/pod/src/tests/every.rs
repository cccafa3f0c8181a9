//! Every combination of policies and container states: what the plan may do, and must.

use std::collections::BTreeMap;

use coracle_model::{Pod, PodPhase, RestartPolicy};

use super::planning::{plan_with, ready};
use super::values::{at, created, exited, pod, probe, running};
use crate::action::Action;
use crate::plan::{Plan, Stop, Timer, terminate};
use crate::ports::{Findings, Observed, ObservedContainer};
use crate::record::Progress;
use crate::scene::Scene;

/// A state a container can be in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Absent,
    Created,
    /// And whether its startup probe has succeeded.
    Running(bool),
    Exited(i32),
}

const STATES: [State; 6] = [
    State::Absent,
    State::Created,
    State::Running(false),
    State::Running(true),
    State::Exited(0),
    State::Exited(1),
];
const POLICIES: [RestartPolicy; 3] = [RestartPolicy::Always, RestartPolicy::OnFailure, RestartPolicy::Never];
const NAMES: [&str; 3] = ["init", "proxy", "web"];

/// A pod of one init container, one sidecar with a startup probe, and one app container.
struct Case {
    policy: RestartPolicy,
    own: Option<RestartPolicy>,
    init: State,
    sidecar: State,
    app: State,
}

impl Case {
    fn all() -> impl Iterator<Item = Self> {
        let own = || std::iter::once(None).chain(POLICIES.map(Some));
        let places = move |policy| own().flat_map(move |own| STATES.map(move |init| (policy, own, init)));
        POLICIES.into_iter().flat_map(places).flat_map(|(policy, own, init)| {
            let rest = STATES.into_iter().flat_map(|sidecar| STATES.map(|app| (sidecar, app)));
            rest.map(move |(sidecar, app)| Self { policy, own, init, sidecar, app })
        })
    }

    fn states(&self) -> [State; 3] {
        [self.init, self.sidecar, self.app]
    }

    fn pod(&self) -> Pod {
        let mut pod = pod("a", self.policy, &NAMES[..2], &NAMES[2..]);
        pod.spec.init_containers[1].restart_policy = Some(RestartPolicy::Always);
        pod.spec.init_containers[1].probes.startup = Some(probe());
        pod.spec.containers[0].restart_policy = self.own;
        pod
    }

    fn observed(&self) -> Observed {
        let one = |(name, state)| {
            Some(match state {
                State::Absent => return None,
                State::Created => created(name, 0),
                State::Running(_) => running(name, 0),
                // Long ago: no back-off is left.
                State::Exited(code) => exited(name, 0, code).ran(at(0), at(1)),
            })
        };
        ready(NAMES.into_iter().zip(self.states()).filter_map(one).collect())
    }

    fn progress(&self) -> BTreeMap<coracle_model::ContainerId, Progress> {
        let findings = Findings { started: self.sidecar == State::Running(true), ready: false, failed: None };
        let progress = Progress { findings: Some(findings), ..Progress::default() };
        BTreeMap::from([(running("proxy", 0).id, progress)])
    }

    fn plan(&self) -> Plan {
        plan_with(&self.pod(), &self.observed(), &self.progress(), &BTreeMap::new())
    }

    /// Whether the app container, having ended so, is started again.
    fn restarts(&self) -> bool {
        match self.app {
            State::Exited(code) => self.own.unwrap_or(self.policy).restarts(code),
            _ => true,
        }
    }

    fn text(&self) -> String {
        format!("{:?} {:?} {:?}", self.policy, self.own, self.states())
    }
}

/// The container an action makes, starts or ends.
fn about(action: &Action, observed: &Observed) -> Option<String> {
    let name = |id| {
        let found = observed.containers.iter().find(|container: &&ObservedContainer| container.id == id);
        found.unwrap().name.clone()
    };
    match action {
        Action::Create(index, ..) => Some(NAMES[*index].to_owned()),
        Action::Start(_, id) | Action::PostStart(_, id) | Action::Stop(id, _) => Some(name(*id)),
        _ => None,
    }
}

#[test]
fn nothing_is_made_or_started_before_its_turn() {
    for case in Case::all() {
        let (plan, text) = (case.plan(), case.text());
        let observed = case.observed();
        let named: Vec<String> = plan.actions.iter().filter_map(|action| about(action, &observed)).collect();
        let does = |name: &str| named.iter().any(|it| it == name);

        // An app container that is there shows that those before it were through.
        let initialized = case.app != State::Absent;
        let init_done = case.init == State::Exited(0);
        let proxy_done = case.sidecar == State::Running(true);
        // A sidecar that is there shows that the init container before it was through.
        let first_done = init_done || case.sidecar != State::Absent;
        if does("web") {
            assert!(initialized || first_done && proxy_done, "{text}: {named:?}");
        }
        if does("proxy") {
            assert!(initialized || first_done, "{text}: {named:?}");
        }
        if does("init") {
            assert!(!initialized && case.sidecar == State::Absent && !init_done, "{text}: {named:?}");
        }
        // At most one action of each container, and none of one that runs and is left alone.
        let mut once = named.clone();
        once.sort();
        once.dedup();
        assert_eq!(once.len(), named.len(), "{text}: {named:?}");
        for (name, state) in NAMES.into_iter().zip(case.states()) {
            assert!(!does(name) || !matches!(state, State::Running(_)), "{text}: {named:?}");
        }
    }
}

#[test]
fn whatever_waits_for_nothing_is_done() {
    for case in Case::all() {
        let (plan, text) = (case.plan(), case.text());
        if plan.outcome.is_some() {
            assert_eq!(plan.actions, [], "{text}");
            continue;
        }
        // Somebody runs that is waited for, or something is to be done.
        let runs = case.states().iter().any(|state| matches!(state, State::Running(_)));
        let acts = plan.actions.iter().any(|action| !matches!(action, Action::EnsureImage(..)));
        assert!(runs || acts, "{text}: {plan:?}");
        // A sidecar is kept running, whatever its exit code.
        if matches!(case.sidecar, State::Exited(_)) {
            assert!(plan.actions.iter().any(|action| matches!(action, Action::Create(1, 1, _))), "{text}");
        }
    }
}

#[test]
fn a_pod_comes_to_its_end_when_its_app_containers_have_or_it_cannot_be_initialized() {
    for case in Case::all() {
        let expected = match (case.app, case.sidecar, case.init) {
            (State::Exited(code), ..) if !case.restarts() => {
                Some(if code == 0 { PodPhase::Succeeded } else { PodPhase::Failed })
            }
            (State::Absent, State::Absent, State::Exited(1)) if case.policy == RestartPolicy::Never => {
                Some(PodPhase::Failed)
            }
            _ => None,
        };
        assert_eq!(case.plan().outcome, expected, "{}", case.text());
    }
}

#[test]
fn a_pod_that_ends_only_ends_what_lives_and_sidecars_last() {
    for case in Case::all() {
        let (pod, observed, progress, round) =
            (case.pod(), case.observed(), case.progress(), BTreeMap::new());
        let minute = std::time::Duration::from_secs(60);
        let stops = observed
            .containers
            .iter()
            .map(|one| (one.id, Stop { left: minute, ..Stop::default() }))
            .collect();
        let scene =
            Scene { pod: &pod, observed: &observed, progress: &progress, round: &round, restarting: false };
        let actions = terminate(&scene, &stops, &mut Timer::default());
        let named: Vec<String> = actions.iter().filter_map(|action| about(action, &observed)).collect();
        assert_eq!(named.len(), actions.len(), "{}: nothing is made", case.text());
        let lives = |state| matches!(state, State::Created | State::Running(_));
        for (name, state) in NAMES.into_iter().zip(case.states()) {
            let waits = name == "proxy" && lives(case.app) && state != State::Created;
            let ended = named.iter().any(|it| it == name);
            assert_eq!(ended, lives(state) && !waits, "{}: {name} in {named:?}", case.text());
        }
    }
}

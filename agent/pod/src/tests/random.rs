//! Random lives: whatever happens in whatever order, a pod is well treated and leaves nothing behind.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use coracle_model::{
    Handler, Lifecycle, ManifestSource, Pod, PodPhase, PodUid, ProbeKind, Probes, RestartAction,
    RestartPolicy, RestartRule,
};
use proptest::prelude::*;
use tokio::time::{sleep, timeout};

use super::fake::devices::gpu;
use super::fake::{Fake, VERBS, Verb};
use super::values::{ephemeral, pod, probe};
use crate::ports::ProbeFailed;
use crate::{Eviction, Pods, WorkerPhase};

const NAMES: [&str; 5] = ["one", "proxy", "two", "web", "log"];
const EPHEMERAL: &str = "debugger";

/// What kind of a pod it is.
#[derive(Clone, Copy, Debug)]
struct Kind {
    policy: RestartPolicy,
    own_policy: Option<RestartPolicy>,
    sidecar: bool,
    probes: bool,
    hooks: bool,
    rules: bool,
    devices: bool,
}

#[derive(Clone, Debug)]
enum Happening {
    Exit(usize, i32),
    KillSandbox,
    Fail(Verb, u32),
    Hang(Verb),
    Heal,
    Wait(u64),
    ConfigChanged,
    RestartAgent,
    Reboot,
    Terminate(u64),
    Desire,
    Ignore(bool),
    /// The node shuts down, and gives the pod so many seconds.
    Shutdown(u64),
    ShutdownOver,
    /// The probes of a container say that it has started, and whether it is ready.
    Find(usize, bool),
    /// An ephemeral container is asked for: whether it has a target.
    Debug(bool),
    /// The plugin comes, with so many devices, or goes.
    Plug(Option<usize>),
    /// A probe fails for good.
    Fails(usize, ProbeKind, Option<u64>),
}

fn happening() -> impl Strategy<Value = Happening> {
    let verb = || prop::sample::select(VERBS.to_vec());
    prop_oneof![
        6 => (0..=NAMES.len(), prop_oneof![Just(0), Just(1), Just(137), Just(42)]).prop_map(|(name, code)| Happening::Exit(name, code)),
        1 => Just(Happening::KillSandbox),
        2 => (verb(), 1..4u32).prop_map(|(verb, times)| Happening::Fail(verb, times)),
        1 => verb().prop_map(Happening::Hang),
        2 => Just(Happening::Heal),
        // In milliseconds: within calls, between them, through back-offs, and past the end of a crash loop.
        4 => prop_oneof![0..5u64, 5..200u64, 1_000..60_000u64, Just(700_000)].prop_map(Happening::Wait),
        1 => Just(Happening::ConfigChanged),
        1 => Just(Happening::RestartAgent),
        1 => Just(Happening::Reboot),
        1 => prop_oneof![Just(0), Just(1), Just(60)].prop_map(Happening::Terminate),
        1 => Just(Happening::Desire),
        1 => any::<bool>().prop_map(Happening::Debug),
        1 => any::<bool>().prop_map(Happening::Ignore),
        1 => prop_oneof![Just(0), Just(1), Just(60)].prop_map(Happening::Shutdown),
        2 => Just(Happening::ShutdownOver),
        2 => prop::option::of(0..4usize).prop_map(Happening::Plug),
        2 => (0..NAMES.len(), any::<bool>()).prop_map(|(name, ready)| Happening::Find(name, ready)),
        1 => (0..NAMES.len(), prop::sample::select(vec![ProbeKind::Startup, ProbeKind::Liveness]), prop::option::of(0..90u64))
            .prop_map(|(name, kind, grace)| Happening::Fails(name, kind, grace)),
    ]
}

fn kind() -> impl Strategy<Value = Kind> {
    let policy =
        || prop::sample::select(vec![RestartPolicy::Always, RestartPolicy::OnFailure, RestartPolicy::Never]);
    let flags = (any::<bool>(), any::<bool>(), any::<bool>(), any::<bool>(), any::<bool>());
    (policy(), prop::option::of(policy()), flags).prop_map(|(policy, own_policy, flags)| {
        let (sidecar, probes, hooks, rules, devices) = flags;
        Kind { policy, own_policy, sidecar, probes, hooks, rules, devices }
    })
}

impl Kind {
    fn pod(self) -> Pod {
        let mut pod = pod("a", self.policy, &NAMES[..3], &NAMES[3..]);
        let (inits, apps) = (&mut pod.spec.init_containers, &mut pod.spec.containers);
        apps[0].restart_policy = self.own_policy;
        if self.sidecar {
            inits[1].restart_policy = Some(RestartPolicy::Always);
        }
        if self.rules {
            apps[0].restart_policy.get_or_insert(RestartPolicy::Never);
            let action = RestartAction::RestartAllContainers;
            apps[0].restart_rules = vec![RestartRule { action, among: true, exit_codes: vec![42] }];
        }
        for container in inits[..2].iter_mut().chain(&mut apps[..1]).filter(|_| self.devices) {
            container.resources.extended.insert(gpu(), 1);
        }
        let sidecar = inits.get_mut(1).filter(|_| self.sidecar);
        for container in sidecar.into_iter().chain(apps.first_mut()) {
            if self.probes {
                container.probes =
                    Probes { startup: Some(probe()), liveness: Some(probe()), readiness: Some(probe()) };
            }
            if self.hooks {
                let sleep = |seconds| Some(Handler::Sleep(Duration::from_secs(seconds)));
                container.lifecycle =
                    Lifecycle { post_start: sleep(2), pre_stop: sleep(20), stop_signal: None };
            }
        }
        pod
    }
}

/// What was seen of one life of a pod, held against what is seen next.
#[derive(Default)]
struct Witness {
    /// A shutdown of the node is over: an end that it was the reason for is taken back.
    passing: bool,
    restarts: BTreeMap<String, u32>,
    ended: Option<PodPhase>,
    phase: Option<WorkerPhase>,
}

impl Witness {
    fn look(&mut self, pods: &Pods<Fake>, uid: &PodUid) {
        let Some(seen) = pods.get(uid) else {
            // Gone: what comes next is another life.
            *self = Self::default();
            return;
        };
        if self.phase.is_some_and(|before| before > seen.phase) {
            assert!(self.phase >= Some(WorkerPhase::Terminating) && seen.phase == WorkerPhase::Syncing);
            *self = Self::default();
        }
        self.phase = Some(seen.phase);
        if let Some(ended) = self.ended.filter(|_| !self.passing) {
            assert_eq!(seen.status.phase, ended, "an end was taken back");
        }
        self.ended = Some(seen.status.phase).filter(|phase| phase.is_terminal());
        for container in seen.status.all_containers() {
            let before = self.restarts.insert(container.name.clone(), container.restart_count);
            assert!(before.is_none_or(|before| before <= container.restart_count), "restarts were forgotten");
        }
    }
}

async fn live(kind: Kind, happenings: Vec<Happening>) {
    let fake = Fake::new();
    let uid: PodUid = "a".parse().unwrap();
    let desired = Arc::new(kind.pod());
    let mut pods = Pods::new(Arc::clone(&fake));
    let mut witness = Witness::default();
    let manifest = ManifestSource::from(Path::new("/m/a.yaml"));
    let desire = |pods: &Pods<Fake>| {
        pods.set_desired(Arc::clone(&desired), Some(manifest.clone())).unwrap();
    };
    fake.with(|state| state.inventory.plug(2));
    desire(&pods);
    for happening in happenings {
        match happening {
            Happening::Exit(name, code) => {
                let name = NAMES.get(name).unwrap_or(&EPHEMERAL);
                fake.exit(&pods, &uid, name, code);
            }
            Happening::KillSandbox => fake.kill_sandbox(&pods, &uid),
            Happening::Fail(verb, times) => fake.fail(verb, times),
            Happening::Hang(verb) => fake.hang(verb),
            Happening::Heal => fake.heal(),
            Happening::Wait(milliseconds) => sleep(Duration::from_millis(milliseconds)).await,
            Happening::ConfigChanged => pods.config_changed(&uid),
            Happening::RestartAgent => {
                pods.detach().await;
                fake.forget_agent();
                let finished = fake.with(|state| {
                    let known = state.records.values().chain(state.checkpoints.values());
                    known.map(|record| record.finished.is_some()).next()
                });
                if witness.phase >= Some(WorkerPhase::Terminating) && finished != Some(true) {
                    // Its end could not be put on record: the next agent does not know how it was.
                    witness = Witness::default();
                }
                // The phase is reached again, and until then what it ended with is not its last word.
                witness.phase = None;
                witness.ended = None;
                pods = fake.take_over();
            }
            Happening::Reboot => {
                pods.detach().await;
                fake.reboot();
                // What was seen within the last second may be lost, an end that is on record is not.
                let ended = fake.with(|state| {
                    let record = state.checkpoints.get(&uid).filter(|it| !it.begins_again())?;
                    record.finished.as_ref().map(|it| it.phase)
                });
                witness = Witness { ended, ..Witness::default() };
                pods = fake.take_over();
                desire(&pods);
            }
            Happening::Terminate(grace) => {
                pods.terminate(&uid, Some(Duration::from_secs(grace)));
            }
            Happening::Desire => desire(&pods),
            Happening::Shutdown(grace) => {
                pods.set_shutting_down(true);
                pods.evict(&uid, Eviction::node_shutdown(Duration::from_secs(grace)));
            }
            Happening::ShutdownOver => {
                pods.set_shutting_down(false);
                witness.passing = true;
            }
            Happening::Debug(targeted) => {
                let (pods, uid) = (pods.clone(), uid.clone());
                let container = ephemeral(EPHEMERAL, targeted.then_some("web"));
                tokio::spawn(async move { pods.add_ephemeral(&uid, container).await });
            }
            Happening::Ignore(ignore) => {
                fake.with(|state| state.obey = (!ignore).then_some(Duration::from_millis(20)));
            }
            Happening::Find(name, ready) => {
                let found = |findings: &mut crate::ports::Findings| {
                    (findings.started, findings.ready) = (true, ready)
                };
                fake.find(&pods, &uid, NAMES[name], found);
            }
            Happening::Plug(count) => {
                fake.with(|state| match count {
                    Some(count) => state.inventory.plug(count),
                    None => state.inventory.plugins.clear(),
                });
                pods.devices_changed(&gpu());
            }
            Happening::Fails(name, kind, grace) => {
                let failed = Some(ProbeFailed { kind, grace: grace.map(Duration::from_secs) });
                fake.find(&pods, &uid, NAMES[name], |findings| findings.failed = failed);
            }
        }
        // Let what is ready run, and nothing more.
        tokio::task::yield_now().await;
        witness.look(&pods, &uid);
        fake.with(|state| assert_eq!(state.violations, Vec::<String>::new()));
    }

    fake.heal();
    sleep(Duration::from_secs(1000)).await;
    let calls = fake.with(|state| state.calls.len());
    pods.notify(&uid);
    sleep(Duration::from_secs(1000)).await;
    assert_eq!(fake.with(|state| state.calls.len()), calls, "a settled pod is left alone");

    timeout(Duration::from_secs(1000), pods.terminate_all(None)).await.expect("all pods go");
    fake.with(|state| {
        assert_eq!(state.violations, Vec::<String>::new());
    });
    assert_eq!(fake.leftovers(), Vec::<String>::new());
}

proptest! {
    #![proptest_config(ProptestConfig {
        cases: 512,
        // What it finds becomes a story with a name, not a seed.
        failure_persistence: None,
        ..ProptestConfig::default()
    })]

    #[test]
    fn whatever_happens_a_pod_is_well_treated(
        kind in kind(),
        happenings in prop::collection::vec(happening(), 1..60),
    ) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build().unwrap();
        runtime.block_on(live(kind, happenings));
    }
}

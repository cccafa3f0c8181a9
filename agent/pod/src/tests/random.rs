//! Random lives: whatever happens in whatever order, a pod is well treated and leaves nothing behind.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use coracle_model::{PodPhase, PodUid, RestartPolicy};
use proptest::prelude::*;
use tokio::time::{sleep, timeout};

use super::fake::{Fake, VERBS, Verb};
use super::values::pod;
use crate::{Pods, WorkerPhase};

const NAMES: [&str; 4] = ["one", "two", "web", "log"];

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
    Terminate(u64),
    Desire,
    Ignore(bool),
}

fn happening() -> impl Strategy<Value = Happening> {
    let verb = || prop::sample::select(VERBS.to_vec());
    prop_oneof![
        6 => (0..NAMES.len(), prop_oneof![Just(0), Just(1), Just(137)]).prop_map(|(name, code)| Happening::Exit(name, code)),
        1 => Just(Happening::KillSandbox),
        2 => (verb(), 1..4u32).prop_map(|(verb, times)| Happening::Fail(verb, times)),
        1 => verb().prop_map(Happening::Hang),
        2 => Just(Happening::Heal),
        // In milliseconds: within calls, between them, through back-offs, and past the end of a crash loop.
        4 => prop_oneof![0..5u64, 5..200u64, 1_000..60_000u64, Just(700_000)].prop_map(Happening::Wait),
        1 => Just(Happening::ConfigChanged),
        1 => Just(Happening::RestartAgent),
        1 => prop_oneof![Just(0), Just(1), Just(60)].prop_map(Happening::Terminate),
        1 => Just(Happening::Desire),
        1 => any::<bool>().prop_map(Happening::Ignore),
    ]
}

/// What was seen of one life of a pod, held against what is seen next.
#[derive(Default)]
struct Witness {
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
        if let Some(ended) = self.ended {
            assert_eq!(seen.status.phase, ended, "an end was taken back");
        }
        self.ended = Some(seen.status.phase).filter(|phase| phase.is_terminal());
        for container in seen.status.init_container_statuses.iter().chain(&seen.status.container_statuses) {
            let before = self.restarts.insert(container.name.clone(), container.restart_count);
            assert!(before.is_none_or(|before| before <= container.restart_count), "restarts were forgotten");
        }
    }
}

async fn live(policy: RestartPolicy, happenings: Vec<Happening>) {
    let fake = Fake::new();
    let uid: PodUid = "a".parse().unwrap();
    let desired = Arc::new(pod("a", policy, &NAMES[..2], &NAMES[2..]));
    let mut pods = Pods::new(Arc::clone(&fake));
    let mut witness = Witness::default();
    pods.set_desired(Arc::clone(&desired), None).unwrap();
    for happening in happenings {
        match happening {
            Happening::Exit(name, code) => drop(fake.exit(&pods, &uid, NAMES[name], code)),
            Happening::KillSandbox => fake.kill_sandbox(&pods, &uid),
            Happening::Fail(verb, times) => fake.fail(verb, times),
            Happening::Hang(verb) => fake.hang(verb),
            Happening::Heal => fake.heal(),
            Happening::Wait(milliseconds) => sleep(Duration::from_millis(milliseconds)).await,
            Happening::ConfigChanged => pods.config_changed(&uid),
            Happening::RestartAgent => {
                pods.detach().await;
                pods = Pods::new(Arc::clone(&fake));
                let records: Vec<_> = fake.with(|state| state.records.values().cloned().collect());
                if witness.phase >= Some(WorkerPhase::Terminating)
                    && records.iter().all(|record| record.finished.is_none())
                {
                    // Its end could not be put on record: the next agent does not know how it was.
                    witness = Witness::default();
                }
                // The phase is reached again, and until then what it ended with is not its last word.
                witness.phase = None;
                witness.ended = None;
                records.into_iter().for_each(|record| pods.adopt(record).unwrap());
            }
            Happening::Terminate(grace) => {
                pods.terminate(&uid, Some(Duration::from_secs(grace)));
            }
            Happening::Desire => pods.set_desired(Arc::clone(&desired), None).unwrap(),
            Happening::Ignore(ignore) => {
                fake.with(|state| state.obey = (!ignore).then_some(Duration::from_millis(20)));
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
        policy in prop::sample::select(vec![RestartPolicy::Always, RestartPolicy::OnFailure, RestartPolicy::Never]),
        happenings in prop::collection::vec(happening(), 1..60),
    ) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build().unwrap();
        runtime.block_on(live(policy, happenings));
    }
}

//! Manager and plugin as processes of their own, killed at any moment: no device is two pods', and none is lost.
//!
//! This process is the node's other half: it keeps what pods were told is their own, as records of pods do, and gives that to
//! each new manager.

mod processes;

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use coracle_model::{PodDevices, PodUid};
use coracle_tests::random::Random;

use self::processes::{Killed, Manager, PluginProcess, Said, Verb};
use super::*;

const PODS: u64 = 5;
/// How many devices the plugin has.
pub(crate) const DEVICES: u64 = 6;

/// How often something happens: 40 times by default, by `CORACLE_DEVICE_KILLS` more often.
fn rounds() -> u64 {
    std::env::var("CORACLE_DEVICE_KILLS").ok().and_then(|text| text.parse().ok()).unwrap_or(40)
}

struct World {
    directory: TempDir,
    random: Random,
    manager: Option<Manager>,
    plugin: Option<PluginProcess>,
    /// What pods were told is their own.
    told: BTreeMap<PodUid, PodDevices>,
    /// How often pods got devices, and how often a manager began to which some were told.
    given: u64,
    kept: u64,
}

fn uid(at: u64) -> PodUid {
    format!("p{at}").parse().unwrap()
}

impl World {
    /// The manager there is, or a new one: it knows what pods have before any plugin is back.
    async fn manager(&mut self) -> &mut Manager {
        if self.manager.is_none() {
            let mut manager = Manager::start(self.directory.path(), &self.told).await;
            for at in 0..PODS {
                let uid = uid(at);
                let has = manager.ask(Verb::Given { pod: uid.to_string() }).await.unwrap();
                assert_eq!(has, Said::Given(self.told.get(&uid).cloned().unwrap_or_default()), "{uid}");
            }
            self.manager = Some(manager);
            self.kept += u64::from(!self.told.is_empty());
            // Some pods ask before a plugin is back, and some when it is.
            if self.plugin.is_some() && self.random.below(2) == 0 {
                tokio::time::sleep(Duration::from_millis(40)).await;
            }
        }
        self.manager.as_mut().unwrap()
    }

    /// What some of the pods want, all at once.
    fn wishes(&mut self) -> Vec<(PodUid, Verb)> {
        let mut wishes = Vec::new();
        for at in 0..PODS {
            let pod = uid(at);
            let verb = match (self.random.below(4), self.told.contains_key(&pod)) {
                (0, true) => Verb::Release { pod: pod.to_string() },
                (0 | 1, _) => {
                    let (count, init) = (self.random.below(3) + 1, self.random.below(3));
                    Verb::Allocate { pod: pod.to_string(), count, init }
                }
                _ => continue,
            };
            wishes.push((pod, verb));
        }
        wishes
    }

    async fn round(&mut self) {
        match (&self.plugin, self.random.below(6)) {
            (None, 0..3) => {
                let kind = ["well", "well", "well", "fails", "hangs"][self.random.below(5) as usize];
                self.plugin = Some(PluginProcess::start(self.directory.path(), kind));
            }
            (Some(_), 0) => self.plugin = None,
            _ => {}
        }
        self.manager().await;
        let wishes = self.wishes();
        let pause = Duration::from_micros(self.random.below(8000));
        let fate = self.random.below(5);
        let Self { manager: Some(manager), .. } = self else { return };
        let mut asked = BTreeMap::new();
        for (pod, verb) in wishes {
            asked.insert(manager.send(&verb).await, (pod, verb));
        }
        match fate {
            0 | 1 => {
                tokio::time::sleep(pause).await;
                manager.kill().await;
            }
            2 => {
                tokio::time::sleep(pause).await;
                self.plugin = None;
            }
            _ => {}
        }
        while !asked.is_empty() {
            match manager.answer().await {
                Ok((id, said)) => {
                    let (pod, verb) = asked.remove(&id).expect("it was asked that");
                    self.given +=
                        u64::from(matches!((&verb, &said), (Verb::Allocate { .. }, Said::Given(_))));
                    heard(&mut self.told, pod, &verb, said);
                }
                Err(Killed) => break,
            }
        }
        // Of what was not answered nobody knows whether it was done. A pod that was to be no more may be on record still.
        for (pod, verb) in asked.into_values() {
            if matches!(verb, Verb::Release { .. }) && self.random.below(2) == 0 {
                self.told.remove(&pod);
            }
        }
        if fate < 2 {
            self.manager = None;
        }
        let mut taken = BTreeSet::new();
        for (uid, given) in &self.told {
            let all: BTreeSet<&String> = given.values().flat_map(|one| one.values().flatten()).collect();
            for device in all {
                assert!(taken.insert(device.clone()), "{device} is {uid}'s and another's");
            }
        }
    }

    /// Nothing is lost of all that happened: everything can be given, and nothing is left open.
    async fn end(mut self) {
        self.plugin = None;
        self.manager().await;
        for uid in std::mem::take(&mut self.told).into_keys() {
            let released = self.manager().await.ask(Verb::Release { pod: uid.to_string() }).await;
            assert_eq!(released, Ok(Said::Given(PodDevices::new())));
        }
        self.plugin = Some(PluginProcess::start(self.directory.path(), "well"));
        let all = Verb::Allocate { pod: "last".to_owned(), count: DEVICES, init: 0 };
        let manager = self.manager().await;
        let given = tokio::time::timeout(LONG, async {
            loop {
                match manager.ask(all.clone()).await.unwrap() {
                    Said::Given(given) => break given,
                    Said::Refused(_) => tokio::time::sleep(Duration::from_millis(20)).await,
                    Said::Descriptors(_) => unreachable!("it was not asked"),
                }
            }
        });
        let given = given.await.expect("all devices are free");
        assert_eq!(given.values().flat_map(|one| one.values().flatten()).count() as u64, DEVICES);
        let few = tokio::time::timeout(LONG, async {
            // The connection with the plugin.
            while manager.descriptors().await > manager.at_first + 1 {
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        });
        let ended = few.await;
        let (now, first) = (manager.descriptors().await, manager.at_first);
        assert!(ended.is_ok(), "{now} descriptors are open, and were {first} when the manager began");
    }
}

/// What a pod was told.
fn heard(told: &mut BTreeMap<PodUid, PodDevices>, pod: PodUid, verb: &Verb, said: Said) {
    match (verb, said) {
        (Verb::Allocate { .. }, Said::Given(given)) => {
            let before = told.insert(pod.clone(), given.clone());
            assert!(before.is_none_or(|before| before == given), "{pod} has others than before");
        }
        (Verb::Allocate { .. }, Said::Refused(why)) => {
            assert!(!told.contains_key(&pod), "{pod} has devices, and asked again was told: {why}");
        }
        (Verb::Release { .. }, Said::Given(_)) => drop(told.remove(&pod)),
        (verb, said) => panic!("{verb:?} was answered {said:?}"),
    }
}

#[tokio::test]
async fn whoever_is_killed_at_any_moment_no_device_is_two_pods_and_none_is_lost() {
    let mut world = World {
        directory: tempfile::tempdir().unwrap(),
        random: Random::new(),
        manager: None,
        plugin: None,
        told: BTreeMap::new(),
        given: 0,
        kept: 0,
    };
    for _ in 0..rounds() {
        world.round().await;
    }
    println!("pods got devices {} times, and kept some over {} managers", world.given, world.kept);
    world.end().await;
}

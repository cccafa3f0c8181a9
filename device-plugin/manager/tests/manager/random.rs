//! Whatever happens in whatever order, no device is two pods', and no pod loses what it was told is its own.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use coracle_device_api::deviceplugin::{DevicePluginOptions, HEALTHY, UNHEALTHY};
use coracle_model::{PodDevices, PodUid};
use proptest::prelude::*;

use super::*;
use coracle_scripted_plugin::{Does, Plugin, Script, device};

/// How many devices there are, and how many pods may be.
const DEVICES: u8 = 6;
const PODS: u8 = 5;

/// What happens.
#[derive(Clone, Copy, Debug)]
enum Step {
    /// A pod asks for so many devices; an init container of it for others.
    Allocate(u8, u64, u64),
    /// A pod asks, and is given up while it does.
    GiveUp(u8, u64),
    Release(u8),
    /// A plugin comes, the one that was there goes.
    Plugin,
    PluginGoes,
    /// Which devices are healthy, by bits, and how many there are.
    Devices(u8, u8),
    Does(Does),
    /// The manager is killed; its checkpoint is damaged, or not.
    Restart(bool),
}

fn step() -> impl Strategy<Value = Step> {
    let does = prop_oneof![
        Just(Does::Answer),
        Just(Does::Fail("the device is on fire")),
        Just(Does::Lie),
        Just(Does::Hang)
    ];
    prop_oneof![
        6 => (0..PODS, 0..4_u64, 0..3_u64).prop_map(|(pod, count, init)| Step::Allocate(pod, count, init)),
        1 => (0..PODS, 1..4_u64).prop_map(|(pod, count)| Step::GiveUp(pod, count)),
        3 => (0..PODS).prop_map(Step::Release),
        2 => Just(Step::Plugin),
        1 => Just(Step::PluginGoes),
        2 => (any::<u8>(), 0..=DEVICES).prop_map(|(healthy, count)| Step::Devices(healthy, count)),
        1 => does.prop_map(Step::Does),
        2 => any::<bool>().prop_map(Step::Restart),
    ]
}

struct World {
    node: Node,
    plugin: Option<Plugin>,
    does: Does,
    /// What pods were told is their own.
    told: BTreeMap<PodUid, PodDevices>,
}

impl World {
    async fn step(mut self, step: Step) -> Self {
        match step {
            Step::Allocate(at, count, init) => {
                let pod = asking(at, count, init);
                // That nobody gets devices from a plugin that hangs takes its whole deadline, and is tested elsewhere.
                let within = if self.does == Does::Hang { Duration::from_millis(20) } else { LONG };
                let given = tokio::time::timeout(within, self.node.manager.allocate(&pod)).await;
                assert!(given.is_ok() || self.does == Does::Hang, "allocation hangs");
                if let Ok(Ok(given)) = given
                    && !given.is_empty()
                {
                    let before = self.told.insert(pod.uid.clone(), given.clone());
                    assert!(before.is_none_or(|before| before == given), "it has others than before");
                }
            }
            Step::GiveUp(at, count) => {
                let pod = asking(at, count, 0);
                let mut asking = Box::pin(self.node.manager.allocate(&pod));
                let now = tokio::time::timeout(Duration::ZERO, &mut asking).await;
                drop(asking);
                if let Ok(Ok(given)) = now {
                    self.told.entry(pod.uid.clone()).or_insert(given);
                }
            }
            Step::Release(at) => {
                let uid = uid(at);
                self.node.manager.release(&uid).await.unwrap();
                self.told.remove(&uid);
            }
            Step::Plugin => {
                drop(self.plugin.take());
                let script = Script {
                    allocate: self.does,
                    prefer: self.does,
                    favourites: vec!["4".to_owned(), "2".to_owned()],
                    options: DevicePluginOptions {
                        get_preferred_allocation_available: self.does != Does::Hang,
                        pre_start_required: false,
                    },
                    ..usual()
                };
                let plugin = Plugin::start(self.node.plugins().join("x.sock"), script, healthy(&[]));
                plugin.register(&self.node.plugins(), RESOURCE).await.unwrap();
                self.plugin = Some(plugin);
                self = self.name(0xff, DEVICES).await;
            }
            Step::PluginGoes => drop(self.plugin.take()),
            Step::Devices(healthy, count) if self.plugin.is_some() => self = self.name(healthy, count).await,
            Step::Devices(..) => {}
            Step::Does(does) => {
                self.does = does;
                if let Some(plugin) = &self.plugin {
                    plugin.script().allocate = does;
                }
            }
            Step::Restart(damaged) => {
                if damaged {
                    let path = self.node.directory.path().join("checkpoint");
                    let mut bytes = std::fs::read(&path).unwrap_or_default();
                    bytes.truncate(bytes.len() / 2);
                    std::fs::write(path, bytes).unwrap();
                }
                self.node = self.node.restarted(&self.told).await;
                self.plugin = None;
            }
        }
        self.holds();
        self
    }

    /// Has the plugin name devices, and waits until that is known.
    async fn name(mut self, healthy: u8, count: u8) -> Self {
        let health = |id: u8| if healthy >> id & 1 == 1 { HEALTHY } else { UNHEALTHY };
        let devices: Vec<_> = (0..count).map(|id| device(&id.to_string(), health(id))).collect();
        let allocatable = devices.iter().filter(|device| device.health == HEALTHY).count();
        if let Some(plugin) = &self.plugin {
            plugin.devices.send_replace(Some(devices));
            self.node.has(count.into(), allocatable).await;
        }
        self
    }

    /// What must be so at any time.
    fn holds(&self) {
        let mut taken = BTreeSet::new();
        for (uid, given) in &self.told {
            assert_eq!(self.node.manager.given(uid).as_ref(), Some(given), "{uid} lost what it has");
            let all: BTreeSet<&String> = given.values().flat_map(|one| one.values().flatten()).collect();
            for device in all {
                assert!(taken.insert(device.clone()), "{device} is two pods'");
            }
        }
        let others: Vec<PodUid> = (0..PODS).map(uid).filter(|uid| !self.told.contains_key(uid)).collect();
        for uid in others {
            assert_eq!(self.node.manager.given(&uid), None, "{uid} has what nobody was told");
        }
    }
}

fn uid(at: u8) -> PodUid {
    format!("p{at}").parse().unwrap()
}

fn asking(at: u8, count: u64, init: u64) -> Pod {
    let mut pod = pod(&format!("p{at}"), count);
    let mut container = pod.spec.containers[0].clone();
    container.name = name("i");
    container.resources.extended.insert(resource(), init);
    pod.spec.init_containers.push(container);
    pod
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 24, max_shrink_iters: 200, ..ProptestConfig::default() })]

    #[test]
    fn no_device_is_two_pods_and_none_is_lost(steps in prop::collection::vec(step(), 1..40)) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let mut world = World {
                node: Node::new().await,
                plugin: None,
                does: Does::Answer,
                told: BTreeMap::new(),
            };
            for step in steps {
                world = world.step(step).await;
            }
        });
    }
}

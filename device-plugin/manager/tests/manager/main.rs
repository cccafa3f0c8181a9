//! The manager against plugins over real sockets: ours, which do everything that is wrong, and a foreign one.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "what fails here has failed the test"
)]

mod allocating;
mod floods;
mod foreign;
mod found;
mod kills;
mod random;
mod restarts;
mod telling;
mod wrong;

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use coracle_device_api::deviceplugin::{ContainerAllocateResponse, DeviceSpec};
use coracle_device_manager::{Amount, Changes, DeviceManager, Options};
use coracle_model::{Container, ExtendedResource, Name, Pod, PodDevices, PodKey, PodSpec, PodUid};
use coracle_scripted_plugin::{Plugin, Script, healthy};
use tempfile::TempDir;

/// Longer than anything takes here.
const LONG: Duration = Duration::from_secs(60);
const RESOURCE: &str = "example.com/x";

/// A manager and its directories, which outlast it.
struct Node {
    directory: TempDir,
    manager: DeviceManager,
    changes: Changes,
}

impl Node {
    async fn new() -> Self {
        Self::with(|_| {}).await
    }

    async fn with(change: impl FnOnce(&mut Options)) -> Self {
        let directory = tempfile::tempdir().unwrap();
        Self::open(directory, &BTreeMap::new(), change).await
    }

    async fn open(
        directory: TempDir,
        known: &BTreeMap<PodUid, PodDevices>,
        change: impl FnOnce(&mut Options),
    ) -> Self {
        let mut options = Options::new(directory.path().join("checkpoint"));
        options.plugin_dir = directory.path().join("plugins");
        options.registry_dir = Some(directory.path().join("registry"));
        change(&mut options);
        let manager = DeviceManager::open(options, known).await.unwrap();
        let changes = manager.watch();
        Self { directory, manager, changes }
    }

    /// Ends the manager without a word, and starts another one, which is told these pods.
    async fn restarted(self, known: &BTreeMap<PodUid, PodDevices>) -> Self {
        let Self { directory, manager, .. } = self;
        drop(manager);
        Self::open(directory, known, |_| {}).await
    }

    fn plugins(&self) -> PathBuf {
        self.directory.path().join("plugins")
    }

    /// Starts a plugin and registers it; returns when its devices are known.
    async fn plugin(&mut self, script: Script, ids: &[&str]) -> Plugin {
        let plugin = Plugin::start(self.plugins().join("x.sock"), script, healthy(ids));
        plugin.register(&self.plugins(), RESOURCE).await.unwrap();
        self.has(ids.len(), ids.len()).await;
        plugin
    }

    /// Waits until the resource has so many devices, and so many healthy ones.
    async fn has(&mut self, capacity: usize, allocatable: usize) {
        let wanted = Amount { capacity: capacity as u64, allocatable: allocatable as u64 };
        self.until(|manager| manager.inventory().get(&resource()) == Some(&wanted)).await;
    }

    async fn until(&mut self, condition: impl Fn(&DeviceManager) -> bool) {
        while !condition(&self.manager) {
            let changed = tokio::time::timeout(LONG, self.changes.next()).await;
            changed.unwrap_or_else(|_| panic!("nothing changes: {:?}", self.manager.inventory()));
        }
    }

    /// What the first container of a pod is given: identifiers, with commas.
    async fn allocate(&self, pod: &Pod) -> Result<String, String> {
        let given = tokio::time::timeout(LONG, self.manager.allocate(pod)).await.expect("allocation ends");
        given.map(|devices| text(&devices)).map_err(|error| error.to_string())
    }
}

/// A plugin that does well: a variable of the devices' names, and a node.
fn usual() -> Script {
    let brings = |ids: &[String]| {
        let mut one = ContainerAllocateResponse::default();
        one.envs.insert("DEVICES".to_owned(), ids.join(","));
        let (host_path, container_path) = ("/dev/null".to_owned(), "/dev/x".to_owned());
        one.devices.push(DeviceSpec { container_path, host_path, permissions: "rw".to_owned() });
        one
    };
    Script { brings: Some(Arc::new(brings)), ..Script::default() }
}

fn text(devices: &PodDevices) -> String {
    let first = devices.values().next().and_then(|resources| resources.values().next());
    first.into_iter().flatten().map(String::as_str).collect::<Vec<_>>().join(",")
}

fn resource() -> ExtendedResource {
    ExtendedResource::new(RESOURCE).unwrap()
}

fn name(text: &str) -> Name {
    Name::label(text).unwrap()
}

/// A pod of one container, `c`, with so many devices.
fn pod(uid: &str, count: u64) -> Pod {
    let mut container = Container::new(name("c"), "i");
    container.resources.extended.insert(resource(), count);
    Pod {
        uid: uid.parse().unwrap(),
        key: PodKey { namespace: name("default"), name: name(uid) },
        labels: BTreeMap::new(),
        annotations: BTreeMap::new(),
        spec: PodSpec::new(vec![container]),
        object: String::new(),
    }
}

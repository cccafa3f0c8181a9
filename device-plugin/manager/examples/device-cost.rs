//! Takes the figures of devices in `docs/benchmarks.md` and prints them as its table. Run by `make bench`.
//!
//! The plugin is this program again, in a process of its own, so that what it costs is not counted.

#![allow(
    clippy::expect_used,
    clippy::unwrap_used,
    reason = "a benchmark whose surroundings fail has no figures to give"
)]

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::process::{Child, Command};
use std::sync::Arc;
use std::time::{Duration, Instant};

use coracle_device_api::deviceplugin::{
    ContainerAllocateResponse, Device, DeviceSpec, HEALTHY, NumaNode, TopologyInfo, UNHEALTHY,
};
use coracle_device_manager::{DeviceManager, Options};
use coracle_model::{Container, ExtendedResource, Name, Pod, PodKey, PodSpec};
use coracle_scripted_plugin::{Plugin, Script};

const RESOURCE: &str = "example.com/x";
const ALLOCATIONS: usize = 1000;
const LONG: Duration = Duration::from_secs(60);
const WATCHED: Duration = Duration::from_secs(20);

#[tokio::main(flavor = "current_thread")]
async fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    if let [directory, devices, rate, changing] = arguments.as_slice() {
        let (count, rate) = (devices.parse().unwrap(), rate.parse().unwrap());
        plugin(Path::new(directory), count, rate, changing.parse().unwrap()).await;
        return;
    }
    println!("| figure | value |\n|---|---|");
    allocations().await;
    updates().await;
}

/// A manager, and a plugin with so many devices that says so many times a second which ones are healthy: the same, or
/// all but another one each time.
struct Scene {
    _directory: tempfile::TempDir,
    manager: DeviceManager,
    plugin: Child,
}

impl Scene {
    async fn new(devices: usize, rate: u32, changing: bool) -> Self {
        // As the agent's own run directory: gone with the machine.
        let directory = tempfile::tempdir_in("/dev/shm").unwrap();
        let plugins = directory.path().join("plugins");
        let mut options = Options::new(directory.path().join("checkpoint"));
        options.plugin_dir.clone_from(&plugins);
        options.registry_dir = None;
        let manager = DeviceManager::open(options, &BTreeMap::new()).await.unwrap();
        let mut changes = manager.watch();
        let mut command = Command::new(std::env::current_exe().unwrap());
        command.arg(&plugins).args([devices.to_string(), rate.to_string(), changing.to_string()]);
        let plugin = command.spawn().unwrap();
        while manager.inventory().get(&resource()).is_none_or(|has| has.capacity != devices as u64) {
            tokio::time::timeout(LONG, changes.next()).await.expect("the plugin comes");
        }
        Self { _directory: directory, manager, plugin }
    }
}

impl Drop for Scene {
    fn drop(&mut self) {
        let _ = self.plugin.kill();
        let _ = self.plugin.wait();
    }
}

async fn allocations() {
    let scene = Scene::new(64, 0, false).await;
    for count in [1, 64] {
        let mut times = Vec::new();
        for at in 0..ALLOCATIONS {
            let pod = pod(&format!("p{at}"), count);
            let start = Instant::now();
            scene.manager.allocate(&pod).await.unwrap();
            scene.manager.prepare(&pod, &name("c")).await.unwrap();
            times.push(start.elapsed());
            scene.manager.release(&pod.uid).await.unwrap();
        }
        times.sort_unstable();
        let at = |share: f64| times[(share * (times.len() - 1) as f64) as usize].as_secs_f64() * 1000.0;
        println!(
            "| {count} of 64 devices for a pod, to what they bring, p50 / p99 / min | {:.2} / {:.2} / {:.2} ms |",
            at(0.5),
            at(0.99),
            at(0.0)
        );
    }
}

async fn updates() {
    for (rate, changing, what) in
        [(0, false, ""), (100, false, " that are alike"), (100, true, ", each other than the one before")]
    {
        let scene = Scene::new(1000, rate, changing).await;
        let mut changes = scene.manager.watch();
        let (start, used) = (Instant::now(), processor_time());
        let mut told = 0;
        while start.elapsed() < WATCHED {
            let left = WATCHED.saturating_sub(start.elapsed());
            told += usize::from(tokio::time::timeout(left, changes.next()).await.is_ok());
        }
        let share = (processor_time() - used).as_secs_f64() / start.elapsed().as_secs_f64();
        println!(
            "| 1,000 devices, {rate} lists a second{what}: of one core | {:.2} %, {:.0} changes told a second |",
            share * 100.0,
            told as f64 / start.elapsed().as_secs_f64()
        );
        drop(scene);
    }
}

/// What this process has used, in hundredths of a second: fields 14 and 15 of proc(5)'s stat.
fn processor_time() -> Duration {
    let stat = fs::read_to_string("/proc/self/stat").unwrap();
    let fields: Vec<&str> = stat.rsplit(')').next().unwrap().split_whitespace().collect();
    let ticks = |at: usize| fields[at - 3].parse::<u64>().unwrap();
    Duration::from_millis((ticks(14) + ticks(15)) * 10)
}

fn resource() -> ExtendedResource {
    ExtendedResource::new(RESOURCE).unwrap()
}

fn name(text: &str) -> Name {
    Name::label(text).unwrap()
}

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

/// A plugin with so many devices, that names them so many times a second: as the last time, or each time another one as
/// unhealthy.
async fn plugin(directory: &Path, count: usize, rate: u32, changing: bool) {
    let brings = |ids: &[String]| {
        let node = |id: &String| DeviceSpec {
            container_path: format!("/dev/{id}"),
            host_path: "/dev/null".to_owned(),
            permissions: "rw".to_owned(),
        };
        ContainerAllocateResponse { devices: ids.iter().map(node).collect(), ..Default::default() }
    };
    let device = |id: usize| Device {
        id: format!("GPU-fef8089b-4820-abfc-e83e-{id:012}"),
        health: HEALTHY.to_owned(),
        topology: Some(TopologyInfo { nodes: vec![NumaNode { id: (id % 2) as i64 }] }),
    };
    let devices: Vec<Device> = (0..count).map(device).collect();
    let script = Script { brings: Some(Arc::new(brings)), ..Script::default() };
    let plugin = Plugin::start(directory.join("x.sock"), script, devices.clone());
    plugin.register(directory, RESOURCE).await.unwrap();
    if rate == 0 {
        std::future::pending::<()>().await;
    }
    let mut ticks = tokio::time::interval(Duration::from_secs(1) / rate);
    for round in 0_usize.. {
        ticks.tick().await;
        let mut devices = devices.clone();
        if changing {
            devices[round % count].health = UNHEALTHY.to_owned();
        }
        plugin.devices.send_replace(Some(devices));
    }
}

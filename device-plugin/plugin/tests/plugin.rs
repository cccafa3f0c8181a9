//! The plugin beside a kubelet: what it offers, tells and answers, and what it does when kubelet or devices go and come.

#![allow(clippy::expect_used, clippy::panic, reason = "what fails here has failed the test")]

mod kubelet;
mod machine;

use std::fs;
use std::time::Duration;

use coracle_device_api::tonic::Code;
use coracle_device_plugin::{Config, Options, run};
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;

use kubelet::{Kubelet, health};
use machine::Machine;

const LONG: Duration = Duration::from_secs(60);

/// A plugin at work.
struct Plugin {
    cancel: CancellationToken,
    task: tokio::task::JoinHandle<Result<(), coracle_device_plugin::PluginError>>,
}

impl Plugin {
    fn start(machine: &Machine, config: &str) -> Self {
        let options = Options {
            plugins_dir: machine.plugins(),
            cdi_dir: machine.path("cdi"),
            root: machine.path("root"),
            hook: vec!["/usr/bin/coracle-device-plugin".into(), "hook".into()],
            config: Config::decode(config.as_bytes(), "test").expect("a configuration"),
        };
        let cancel = CancellationToken::new();
        let task = tokio::spawn(run(options, cancel.clone()));
        Self { cancel, task }
    }

    async fn end(self) {
        self.cancel.cancel();
        let ended = timeout(LONG, self.task).await.expect("it ends").expect("it does not panic");
        ended.expect("it ends well");
    }
}

const SERIAL: &str = "{resources: [{name: coracle.dev/serial, devices: [{paths: [{path: /dev/ttyUSB*}]}]}],
    nvidia: {enabled: false}, amd: {enabled: false}, intel: {enabled: false}}";

#[tokio::test]
async fn a_device_comes_and_goes() {
    let machine = Machine::new();
    machine.node("dev/ttyUSB0");
    let mut kubelet = Kubelet::start(&machine.plugins());
    let plugin = Plugin::start(&machine, SERIAL);
    let registered = kubelet.registered().await;
    assert_eq!(
        (registered.version.as_str(), registered.resource_name.as_str()),
        ("v1beta1", "coracle.dev/serial")
    );
    let mut client = kubelet.client(&registered).await;
    assert!(client.options().await.get_preferred_allocation_available);
    let mut lists = client.watch().await;
    assert_eq!(lists.next().await, health(&[("ttyUSB0", true)]));
    fs::remove_file(machine.path("root/dev/ttyUSB0")).expect("a device less");
    assert_eq!(lists.next().await, health(&[("ttyUSB0", false)]));
    machine.node("dev/ttyUSB1");
    assert_eq!(lists.next().await, health(&[("ttyUSB0", false), ("ttyUSB1", true)]));
    let answer = client.allocate(&[&["ttyUSB1"]]).await.expect("an answer");
    let [container] = &answer[..] else { panic!("one container") };
    let specs: Vec<_> =
        container.devices.iter().map(|it| (it.container_path.as_str(), it.permissions.as_str())).collect();
    assert_eq!(specs, [("/dev/ttyUSB1", "rw")]);
    assert_eq!(
        client.allocate(&[&["ttyUSB0"]]).await.expect_err("it is gone").code(),
        Code::FailedPrecondition
    );
    assert_eq!(client.allocate(&[&["ttyUSB2"]]).await.expect_err("there is none").code(), Code::NotFound);
    machine.node("dev/ttyUSB0");
    assert_eq!(lists.next().await, health(&[("ttyUSB0", true), ("ttyUSB1", true)]));
    plugin.end().await;
    assert!(!machine.plugins().join(&registered.endpoint).exists(), "the socket is removed");
}

#[tokio::test]
async fn nothing_but_the_description_is_left_by_a_plugin_that_ends() {
    let machine = Machine::new();
    machine.nvidia(2);
    // The server of a socket that nobody has connected to ends at once.
    let config = "{resources: [{name: a.b/c, devices: [{paths: [{path: /dev/x}]}]}, {name: a.b/d, devices: [{paths: [{path: /dev/y}]}]}]}";
    let plugin = Plugin::start(&machine, config);
    let sockets = || fs::read_dir(machine.plugins()).map_or(0, Iterator::count);
    until("three sockets", || sockets() == 3).await;
    plugin.end().await;
    assert_eq!(sockets(), 0);
    assert!(machine.path("cdi/coracle-nvidia.json").exists(), "containers that have GPUs may start again");
}

#[tokio::test]
async fn a_description_that_somebody_removes_or_that_had_no_room_is_written_again() {
    let machine = Machine::new();
    machine.nvidia(2);
    // No directory can be made in its place.
    fs::write(machine.path("cdi"), "").expect("a file");
    let plugin = Plugin::start(&machine, "{}");
    let socket = machine.plugins().join("coracle-nvidia.com_gpu.sock");
    until("the resource to be served", || socket.exists()).await;
    fs::remove_file(machine.path("cdi")).expect("no file");
    let description = machine.path("cdi/coracle-nvidia.json");
    until("the description", || description.exists()).await;
    for _ in 0..3 {
        fs::remove_file(&description).expect("no description");
        until("the description again", || description.exists()).await;
    }
    plugin.end().await;
}

/// Waits for a condition.
async fn until(what: &str, holds: impl Fn() -> bool) {
    let waited = timeout(LONG, async {
        while !holds() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    });
    assert!(waited.await.is_ok(), "waited in vain for {what}");
}

#[tokio::test]
async fn a_directory_that_is_not_there_yet_is_waited_for() {
    let machine = Machine::new();
    let mut kubelet = Kubelet::start(&machine.plugins());
    let config = "{resources: [{name: a.b/usb, devices: [{paths: [{path: /dev/bus/usb/*/*}]}]}]}";
    let plugin = Plugin::start(&machine, config);
    let registered = kubelet.registered().await;
    let mut lists = kubelet.client(&registered).await.watch().await;
    assert_eq!(lists.next().await, health(&[]));
    machine.node("dev/bus/usb/001/002");
    assert_eq!(lists.next().await, health(&[("bus-usb-001-002", true)]));
    fs::remove_dir_all(machine.path("root/dev/bus")).expect("no bus");
    assert_eq!(lists.next().await, health(&[("bus-usb-001-002", false)]));
    machine.node("dev/bus/usb/001/002");
    assert_eq!(lists.next().await, health(&[("bus-usb-001-002", true)]));
    plugin.end().await;
}

#[tokio::test]
async fn each_kubelet_that_comes_is_registered_with() {
    let machine = Machine::new();
    machine.node("dev/ttyUSB0");
    // Before there is a kubelet, or a directory of its.
    let plugin = Plugin::start(&machine, SERIAL);
    for _ in 0..3 {
        let mut kubelet = Kubelet::start(&machine.plugins());
        let (_, mut client) = kubelet.connected().await;
        assert_eq!(client.watch().await.next().await, health(&[("ttyUSB0", true)]));
        kubelet.end().await;
    }
    fs::remove_dir_all(machine.plugins()).expect("no directory");
    let mut kubelet = Kubelet::start(&machine.plugins());
    let (registered, mut client) = kubelet.connected().await;
    assert_eq!(client.watch().await.next().await, health(&[("ttyUSB0", true)]));
    // Somebody tidies up.
    let _ = fs::remove_file(machine.plugins().join(&registered.endpoint));
    let (_, mut client) = kubelet.connected().await;
    assert_eq!(client.watch().await.next().await, health(&[("ttyUSB0", true)]));
    plugin.end().await;
}

#[tokio::test]
async fn a_kubelet_that_refuses_is_asked_again() {
    let machine = Machine::new();
    let mut kubelet = Kubelet::refusing(&machine.plugins(), 1);
    let plugin = Plugin::start(&machine, SERIAL);
    let registered = kubelet.registered().await;
    assert_eq!(registered.resource_name, "coracle.dev/serial");
    plugin.end().await;
}

#[tokio::test]
async fn every_resource_has_a_socket() {
    let machine = Machine::new();
    machine.nvidia(2);
    let mut kubelet = Kubelet::start(&machine.plugins());
    let plugin = Plugin::start(
        &machine,
        "resources: [{name: a.b/x, devices: [{paths: [{path: /dev/x}]}]}, {name: a.b/y, devices: [{paths: [{path: /dev/y}]}]}]",
    );
    let mut registered = Vec::new();
    for _ in 0..3 {
        registered.push(kubelet.registered().await);
    }
    registered.sort_by(|a, b| a.resource_name.cmp(&b.resource_name));
    let names: Vec<_> = registered.iter().map(|it| it.resource_name.as_str()).collect();
    assert_eq!(names, ["a.b/x", "a.b/y", "nvidia.com/gpu"]);
    plugin.end().await;
}

#[tokio::test]
async fn a_gpu_is_given_by_its_cdi_name() {
    let machine = Machine::new();
    machine.nvidia(2);
    let mut kubelet = Kubelet::start(&machine.plugins());
    let plugin = Plugin::start(&machine, "");
    let registered = kubelet.registered().await;
    let mut client = kubelet.client(&registered).await;
    let mut lists = client.watch().await;
    let (first, second) = (machine.uuid(0), machine.uuid(1));
    assert_eq!(lists.next().await, health(&[(&first, true), (&second, true)]));
    assert_eq!(client.prefer(&[&first, &second], &[&second], 1).await, [second.as_str()]);
    let answer = client.allocate(&[&[&first], &[&second]]).await.expect("an answer");
    let names: Vec<_> = answer.iter().flat_map(|it| &it.cdi_devices).map(|it| it.name.clone()).collect();
    assert_eq!(
        names,
        [format!("nvidia.coracle.dev/gpu={first}"), format!("nvidia.coracle.dev/gpu={second}")]
    );
    assert!(answer.iter().all(|it| it.devices.is_empty() && it.mounts.is_empty()));
    let specification = fs::read(machine.path("cdi/coracle-nvidia.json")).expect("a specification");
    let specification = coracle_cdi::parse(&specification, "x").expect("a specification");
    let devices: Vec<_> = specification.devices.iter().map(|it| it.name.as_str()).collect();
    assert_eq!(devices, [first.as_str(), second.as_str()]);
    fs::remove_file(machine.path("root/dev/nvidia1")).expect("a node less");
    assert_eq!(lists.next().await, health(&[(&first, true), (&second, false)]));
    plugin.end().await;
}

#[tokio::test]
async fn a_gpu_is_given_by_its_nodes_where_that_is_asked_for() {
    let machine = Machine::new();
    machine.nvidia(1);
    let mut kubelet = Kubelet::start(&machine.plugins());
    let sharing = "sharing: {timeSlicing: {failRequestsGreaterThanOne: true, resources: [{name: nvidia.com/gpu, replicas: 2}]}}";
    let plugin = Plugin::start(&machine, &format!("nvidia: {{deviceListStrategy: device-specs, {sharing}}}"));
    let registered = kubelet.registered().await;
    let mut client = kubelet.client(&registered).await;
    let shares = [format!("{}::0", machine.uuid(0)), format!("{}::1", machine.uuid(0))];
    let mut lists = client.watch().await;
    assert_eq!(lists.next().await, health(&[(&shares[0], true), (&shares[1], true)]));
    let answer = client.allocate(&[&[&shares[1]]]).await.expect("an answer");
    let [container] = &answer[..] else { panic!("one container") };
    let paths: Vec<_> = container.devices.iter().map(|it| it.container_path.as_str()).collect();
    assert!(paths.contains(&"/dev/nvidia0") && paths.contains(&"/dev/nvidiactl"), "{paths:?}");
    assert_eq!(container.envs.get("NVIDIA_VISIBLE_DEVICES").map(String::as_str), Some("void"));
    let refused =
        client.allocate(&[&[&shares[0], &shares[1]]]).await.expect_err("two shares are no more than one");
    assert_eq!(refused.code(), Code::InvalidArgument);
    plugin.end().await;
}

#[tokio::test]
async fn a_driver_that_comes_later_is_seen() {
    let machine = Machine::new();
    fs::create_dir_all(machine.path("root/dev")).expect("a directory");
    let mut kubelet = Kubelet::start(&machine.plugins());
    let plugin = Plugin::start(&machine, "");
    machine.nvidia(1);
    let registered = kubelet.registered().await;
    assert_eq!(registered.resource_name, "nvidia.com/gpu");
    plugin.end().await;
}

#[tokio::test]
async fn partitions_and_errors_are_learned_of_by_nvidias_library() {
    let machine = Machine::new();
    machine.nvidia(2);
    let library = machine.library();
    for (instance, compute) in [(7, 0), (9, 1)] {
        let capability = format!("proc/driver/nvidia/capabilities/gpu1/mig/gi{instance}");
        for (path, minor) in
            [("access".to_owned(), 10 * instance), (format!("ci{compute}/access"), 10 * instance + 1)]
        {
            machine.file(
                &format!("{capability}/{path}"),
                &format!("DeviceFileMinor: {minor}\nDeviceFileMode: 292\n"),
            );
            machine.node(&format!("dev/nvidia-caps/nvidia-cap{minor}"));
        }
    }
    let mut kubelet = Kubelet::start(&machine.plugins());
    let plugin = Plugin::start(&machine, "nvidia: {migStrategy: mixed}");
    let mut lists = std::collections::BTreeMap::new();
    for _ in 0..3 {
        let registered = kubelet.registered().await;
        let mut list = kubelet.client(&registered).await.watch().await;
        let all = list.next().await;
        lists.insert(registered.resource_name, (list, all));
    }
    let small = "MIG-00000000-0000-0000-0000-000000000000";
    let engine = "MIG-00000000-0000-0000-0000-000000000002";
    let names: Vec<_> = lists.keys().map(String::as_str).collect();
    assert_eq!(names, ["nvidia.com/gpu", "nvidia.com/mig-1g.10gb", "nvidia.com/mig-1g.10gb.me"]);
    assert_eq!(lists["nvidia.com/gpu"].1, health(&[(&machine.uuid(0), true)]));
    assert_eq!(lists["nvidia.com/mig-1g.10gb"].1, health(&[(small, true)]));
    let specification = fs::read(machine.path("cdi/coracle-nvidia.json")).expect("a specification");
    let specification = coracle_cdi::parse(&specification, "x").expect("a specification");
    let of_engine = specification.devices.iter().find(|it| it.name == engine).expect("it is described");
    let nodes: Vec<_> = of_engine.container_edits.device_nodes.iter().map(|it| it.path.as_str()).collect();
    assert_eq!(nodes, ["/dev/nvidia1", "/dev/nvidia-caps/nvidia-cap90", "/dev/nvidia-caps/nvidia-cap91"]);
    // A program's error changes nothing, a critical one does.
    fs::write(library.join("xid"), "1 31\n").expect("an error");
    let seen = async {
        while library.join("xid").exists() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    timeout(LONG, seen).await.expect("the error is read");
    fs::write(library.join("xid"), "1 79\n").expect("an error");
    let (list, _) = lists.get_mut("nvidia.com/mig-1g.10gb.me").expect("it is offered");
    assert_eq!(list.next().await, health(&[(engine, false)]));
    plugin.end().await;
}

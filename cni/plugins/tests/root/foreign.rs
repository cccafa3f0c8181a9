//! Our plugins under a runtime that is not ours (`driver.py`), alone and together with Debian's.

use std::fs;
use std::net::{IpAddr, SocketAddr};
use std::os::unix::fs::symlink;
use std::path::Path;
use std::process::Command;

use coracle_cni_plugins::PLUGINS;
use serde_json::{Value, json};
use tempfile::TempDir;

use super::harness::{Node, Pod, eventually, on_a_node, reaches};

/// The runtime, in Python.
const DRIVER: &str = include_str!("driver.py");
/// The program of our plugins.
const OURS: &str = env!("CARGO_BIN_EXE_coracle-cni");
/// Where Debian's package installs plugins.
const DEBIAN: &str = "/usr/lib/cni";
/// What a port of the host leads to.
const PORT: u16 = 80;

/// A runtime, with a list of plugins and where their programs are.
struct Runtime {
    bin: TempDir,
    list: Value,
}

/// What a verb came to.
#[derive(Debug)]
struct Outcome(Value);

// === impl Runtime ===

impl Runtime {
    /// With our plugins under their names, and Debian's as `debian-*`.
    fn new(list: Value) -> Self {
        let bin = TempDir::new().unwrap();
        for plugin in PLUGINS.0 {
            symlink(OURS, bin.path().join(plugin.kind())).unwrap();
        }
        for plugin in fs::read_dir(DEBIAN).expect("containernetworking-plugins is installed") {
            let name = plugin.unwrap().file_name().into_string().unwrap();
            symlink(Path::new(DEBIAN).join(&name), bin.path().join(format!("debian-{name}"))).unwrap();
        }
        Self { bin, list }
    }

    fn run(&self, verb: &str, more: Value) -> Outcome {
        let mut request = json!({"list": self.list, "path": [self.bin.path()]});
        request.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        let mut python = Command::new("python3");
        let output = python.args(["-c", DRIVER, verb, &request.to_string()]).output().unwrap();
        let stderr = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{verb}: {stderr}");
        let outcome: Value = serde_json::from_slice(&output.stdout).unwrap();
        assert_eq!(outcome.get("broken"), None, "{verb}");
        Outcome(outcome)
    }

    fn of(&self, verb: &str, pod: &Pod, more: Value) -> Outcome {
        let mut request = json!({
            "containerId": pod.id,
            "netns": pod.place.path,
            "args": "IgnoreUnknown=1;K8S_POD_NAME=web",
        });
        request.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        self.run(verb, request)
    }

    fn add(&self, pod: &Pod, capabilities: Value) -> Value {
        self.of("ADD", pod, json!({"capabilities": capabilities})).result()
    }
}

// === impl Outcome ===

impl Outcome {
    fn result(self) -> Value {
        assert_eq!(self.0.get("failed"), None);
        self.0["result"].clone()
    }

    /// The code of the failure.
    fn code(&self) -> u64 {
        self.0["failed"]["code"].as_u64().unwrap_or_else(|| panic!("it has succeeded: {self:?}"))
    }
}

fn addresses(result: &Value) -> Vec<IpAddr> {
    let ips = result["ips"].as_array().unwrap();
    let address = |ip: &Value| ip["address"].as_str().unwrap().split('/').next().unwrap().parse().unwrap();
    ips.iter().map(address).collect()
}

fn list(version: &str, plugins: Vec<Value>) -> Value {
    json!({"cniVersion": version, "name": "net", "plugins": plugins})
}

/// The plugin's own configuration, as the harness makes it.
fn bridge(node: &Node, kind: &str, ipam: &str, bridge: &str) -> Value {
    let more = json!({
        "bridge": bridge, "isGateway": true, "ipMasq": true, "hairpinMode": true, "capabilities": {"mac": true},
    });
    let mut config = node.config(kind, &["10.88.0.0/24", "fd88::/64"], more);
    config["ipam"]["type"] = json!(ipam);
    config["ipam"]["routes"] = json!([{"dst": "0.0.0.0/0"}, {"dst": "::/0"}]);
    config
}

fn portmap() -> Value {
    json!({"type": "portmap", "snat": true, "capabilities": {"portMappings": true}})
}

/// The host's port 8080.
fn mapped() -> Value {
    json!({"portMappings": [{"hostPort": 8080, "containerPort": PORT, "protocol": "tcp"}], "mac": "02:aa:bb:cc:dd:ee"})
}

fn reached_by_its_host_port(pod: &Pod, from: &Pod, result: &Value) {
    for (address, gateway) in addresses(result).into_iter().zip(["10.88.0.1", "fd88::1"]) {
        let listener = pod.place.listen(SocketAddr::new(address, PORT));
        let _near = from.place.connect(SocketAddr::new(gateway.parse().unwrap(), 8080));
        listener.accept().unwrap();
    }
}

fn a_chain_of_ours(node: &Node, version: &str) {
    let runtime = Runtime::new(list(version, vec![bridge(node, "bridge", "host-local", "cni0"), portmap()]));
    for supported in runtime.run("VERSION", json!({})).result().as_array().unwrap() {
        assert_eq!(*supported, json!(["0.4.0", "1.0.0", "1.1.0"]));
    }
    let (first, second) = (Pod::new("first"), Pod::new("second"));
    let result = runtime.add(&first, mapped());
    let other = runtime.add(&second, json!({}));
    assert_eq!((addresses(&result).len(), addresses(&other).len()), (2, 2));
    assert!(first.place.run("ip link show eth0").contains("02:aa:bb:cc:dd:ee"));
    for address in addresses(&result) {
        reaches(&second.place, &first.place, address);
        reaches(&node.place, &first.place, address);
    }
    reached_by_its_host_port(&first, &second, &result);

    let asked = |result: &Value| json!({"result": result, "capabilities": mapped()});
    runtime.of("CHECK", &first, asked(&result)).result();
    first.place.run("ip address delete 10.88.0.2/24 dev eth0");
    assert_ne!(runtime.of("CHECK", &first, asked(&result)).code(), 0);

    if version == "1.1.0" {
        runtime.run("STATUS", json!({})).result();
        runtime.run("GC", json!({"valid": ["first"]})).result();
        assert_eq!(node.given("net"), ["10.88.0.2", "fd88::2"]);
        runtime.run("GC", json!({"valid": []})).result();
    } else {
        // GC and STATUS are not of these versions.
        assert_eq!(runtime.run("STATUS", json!({})).code(), 1);
        assert_eq!(runtime.run("GC", json!({"valid": []})).code(), 1);
        assert_eq!(node.given("net").len(), 4);
    }
    for _ in 0..2 {
        runtime.of("DEL", &first, asked(&result)).result();
    }
    // Without a namespace and a result, as after a crash.
    runtime.of("DEL", &second, json!({"netns": ""})).result();
    assert_eq!(node.given("net"), Vec::<String>::new());
    eventually("the pairs are gone", || !node.place.run("ip -brief link").contains("veth"));
    let again = runtime.add(&first, mapped());
    assert_eq!(addresses(&again).len(), 2);
    runtime.of("DEL", &first, asked(&again)).result();
}

#[test]
fn a_chain_of_ours_with_0_4_0() {
    on_a_node(|node| a_chain_of_ours(node, "0.4.0"));
}

#[test]
fn a_chain_of_ours_with_1_0_0() {
    on_a_node(|node| a_chain_of_ours(node, "1.0.0"));
}

#[test]
fn a_chain_of_ours_with_1_1_0() {
    on_a_node(|node| a_chain_of_ours(node, "1.1.0"));
}

fn a_pair_of_ours(node: &Node, version: &str) {
    let more = json!({"ipMasq": true});
    let mut ptp = node.config("ptp", &["10.88.0.0/24", "fd88::/64"], more);
    ptp["ipam"]["routes"] = json!([{"dst": "0.0.0.0/0"}, {"dst": "::/0"}]);
    let bandwidth = json!({"type": "bandwidth", "capabilities": {"bandwidth": true}});
    let tuning = json!({"type": "tuning", "mtu": 1400, "sysctl": {"net.ipv4.conf.eth0.arp_notify": "1"}});
    let runtime = Runtime::new(list(version, vec![ptp, tuning, portmap(), bandwidth]));
    let (first, second) = (Pod::new("first"), Pod::new("second"));
    let limit = json!({"ingressRate": 1_000_000_000, "ingressBurst": i32::MAX});
    let capabilities = json!({"bandwidth": limit});
    let result = runtime.add(&first, capabilities.clone());
    let other = runtime.add(&second, json!({}));
    for address in addresses(&result) {
        reaches(&second.place, &first.place, address);
    }
    assert!(first.place.run("ip link show eth0").contains("mtu 1400"));
    assert_eq!(first.place.sysctl("ipv4/conf/eth0/arp_notify"), "1");
    let asked = json!({"result": result, "capabilities": capabilities});
    runtime.of("CHECK", &first, asked.clone()).result();
    runtime.of("CHECK", &second, json!({"result": other})).result();
    first.place.run("ip address delete 10.88.0.2/24 dev eth0");
    assert_ne!(runtime.of("CHECK", &first, asked.clone()).code(), 0);
    runtime.of("DEL", &first, asked).result();
    runtime.of("DEL", &second, json!({"netns": ""})).result();
    assert_eq!(node.given("net"), Vec::<String>::new());
    eventually("the pairs are gone", || !node.place.run("ip -brief link").contains("veth"));
}

#[test]
fn a_pair_of_ours_with_0_4_0() {
    on_a_node(|node| a_pair_of_ours(node, "0.4.0"));
}

#[test]
fn a_pair_of_ours_with_1_0_0() {
    on_a_node(|node| a_pair_of_ours(node, "1.0.0"));
}

#[test]
fn a_pair_of_ours_with_1_1_0() {
    on_a_node(|node| a_pair_of_ours(node, "1.1.0"));
}

#[test]
fn a_loopback_of_ours_with_every_version() {
    on_a_node(|_| {
        for version in ["0.4.0", "1.0.0", "1.1.0"] {
            let runtime = Runtime::new(list(version, vec![json!({"type": "loopback"})]));
            let pod = Pod::new("pod");
            let asked = |more: Value| {
                let mut request = json!({"ifname": "lo"});
                request.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
                request
            };
            let result = runtime.of("ADD", &pod, asked(json!({}))).result();
            assert!(pod.place.pings("127.0.0.1".parse().unwrap()));
            runtime.of("CHECK", &pod, asked(json!({"result": result}))).result();
            runtime.of("DEL", &pod, asked(json!({"result": result}))).result();
        }
    });
}

fn mixed(node: &Node, plugins: Vec<Value>) {
    let runtime = Runtime::new(list("1.0.0", plugins));
    let (first, second) = (Pod::new("first"), Pod::new("second"));
    let result = runtime.add(&first, mapped());
    runtime.add(&second, json!({}));
    for address in addresses(&result) {
        reaches(&second.place, &first.place, address);
    }
    reached_by_its_host_port(&first, &second, &result);
    let asked = json!({"result": result, "capabilities": mapped()});
    runtime.of("DEL", &first, asked).result();
    runtime.of("DEL", &second, json!({})).result();
    assert_eq!(node.given("net"), Vec::<String>::new());
}

#[test]
fn debians_bridge_with_our_host_local_and_portmap() {
    on_a_node(|node| mixed(node, vec![bridge(node, "debian-bridge", "host-local", "cni0"), portmap()]));
}

#[test]
fn our_bridge_with_debians_host_local_and_portmap() {
    on_a_node(|node| {
        let mut portmap = portmap();
        portmap["type"] = json!("debian-portmap");
        mixed(node, vec![bridge(node, "bridge", "debian-host-local", "cni0"), portmap]);
    });
}

#[test]
fn the_program_is_the_plugin_of_its_name_its_argument_or_the_configuration() {
    let bin = TempDir::new().unwrap();
    let link = bin.path().join("bridge");
    symlink(OURS, &link).unwrap();
    let missing = |command: &mut Command, config: Value| {
        let input = bin.path().join("config");
        fs::write(&input, config.to_string()).unwrap();
        let output =
            command.env("CNI_COMMAND", "STATUS").stdin(fs::File::open(&input).unwrap()).output().unwrap();
        assert_eq!(output.status.code(), Some(1));
        serde_json::from_slice::<Value>(&output.stdout).unwrap()["msg"].as_str().unwrap().to_owned()
    };
    let config = |kind: &str| json!({"cniVersion": "1.1.0", "name": "net", "type": kind});
    // A configuration without addresses is none of host-local's, which bridge does without.
    let of_host_local = missing(&mut Command::new(OURS), config("host-local"));
    assert!(of_host_local.contains("ipam"), "{of_host_local}");
    assert!(missing(Command::new(OURS).arg("host-local"), config("bridge")).contains("ipam"));
    let unknown = missing(&mut Command::new(OURS), config("painter"));
    assert_eq!(unknown, "\"painter\" is no plugin of this program");
    let output = Command::new(&link).env("CNI_COMMAND", "VERSION").output().unwrap();
    assert!(output.status.success());
}

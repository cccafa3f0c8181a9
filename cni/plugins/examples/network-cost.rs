//! What it costs to attach a pod, in this process and by executing Debian's plugins for the same configuration, and
//! what it costs to change the table of port maps beside other pods.
//!
//! usage: network-cost [PODS]
//!
//! Each pod gets a veth pair on a bridge that is a gateway, an address of each family by host-local, a default route
//! of each, masquerading, and a port of the host. Pods take turns between both ways, so that what else the machine
//! does falls on both alike. Everything is in a network namespace of its own.

#![allow(
    clippy::expect_used,
    clippy::panic,
    clippy::unwrap_used,
    reason = "a benchmark whose surroundings fail has no figures to give"
)]

use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use coracle_cni::{AddResult, Call, NetworkNamespace, PluginConfig};
use coracle_cni_plugins::PLUGINS;
use coracle_nftables::{Entry, Nftables, Owner, PortMap, Protocol};
use coracle_tests::namespaces::Namespace;
use serde_json::{Value, json};

/// Where Debian's package `containernetworking-plugins` has them.
const DEBIAN: &str = "/usr/lib/cni";
/// The newest version that Debian's plugins know.
const VERSION: &str = "1.0.0";

fn main() {
    assert!(rustix::process::geteuid().is_root(), "network-cost makes network namespaces: run it as root");
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    if arguments.first().is_none_or(|first| first != "inside") {
        let mut inside = Command::new("unshare");
        inside.arg("--net").arg(std::env::current_exe().expect("a program knows its own path")).arg("inside");
        let status = inside.args(arguments).status().expect("util-linux is installed");
        std::process::exit(status.code().unwrap_or(1));
    }
    let pods = arguments.get(1).map_or(200, |text| text.parse().expect("usage: network-cost [PODS]"));
    run("ip", &["link", "set", "lo", "up"]);
    attach(pods);
    println!();
    change();
}

fn run(program: &str, arguments: &[&str]) {
    let status = Command::new(program).args(arguments).status();
    assert!(status.unwrap_or_else(|error| panic!("{program}: {error}")).success(), "{program} {arguments:?}");
}

// --- Pods ---

/// One of two networks that differ in their names and addresses alone.
struct Network {
    name: &'static str,
    directory: PathBuf,
    number: u8,
}

impl Network {
    fn new(directory: &Path, name: &'static str, number: u8) -> Self {
        Self { name, directory: directory.join(name), number }
    }

    fn bridge(&self) -> Value {
        json!({
            "cniVersion": VERSION, "name": self.name, "type": "bridge",
            "bridge": self.name, "isGateway": true, "ipMasq": true, "hairpinMode": true,
            "ipam": {
                "type": "host-local",
                "dataDir": self.directory,
                "ranges": [
                    [{"subnet": format!("10.{}.0.0/16", self.number)}],
                    [{"subnet": format!("fd00:{}::/64", self.number)}],
                ],
                "routes": [{"dst": "0.0.0.0/0"}, {"dst": "::/0"}],
            },
        })
    }

    fn portmap(&self, result: Value) -> Value {
        json!({
            "cniVersion": VERSION, "name": self.name, "type": "portmap", "snat": true,
            "runtimeConfig": {"portMappings": [
                {"hostPort": 8000 + u16::from(self.number), "containerPort": 80, "protocol": "tcp"},
            ]},
            "prevResult": result,
        })
    }
}

/// A way to have a verb done for a network's chain.
trait Way {
    fn add(&self, network: &Network, id: &str, namespace: &Namespace) -> Value;
    fn del(&self, network: &Network, id: &str, namespace: &Namespace, result: &Value);
}

/// In this process.
struct Inside;

impl Inside {
    fn call(config: Value, id: &str, namespace: &Namespace) -> Call {
        Call {
            container_id: id.to_owned(),
            netns: Some(NetworkNamespace::new(namespace.path())),
            ifname: "eth0".to_owned(),
            args: Vec::new(),
            path: vec![DEBIAN.into()],
            config: PluginConfig::from_json(config).unwrap(),
            // As the agent says it when a pod goes.
            namespace_ends: true,
            deadline: None,
        }
    }
}

impl Way for Inside {
    fn add(&self, network: &Network, id: &str, namespace: &Namespace) -> Value {
        let json = |result: AddResult| result.to_json(VERSION.parse().unwrap());
        let bridge = PLUGINS.add("bridge", &Self::call(network.bridge(), id, namespace)).unwrap();
        let portmap = Self::call(network.portmap(json(bridge)), id, namespace);
        json(PLUGINS.add("portmap", &portmap).unwrap())
    }

    fn del(&self, network: &Network, id: &str, namespace: &Namespace, result: &Value) {
        PLUGINS.del("portmap", &Self::call(network.portmap(result.clone()), id, namespace)).unwrap();
        let mut bridge = network.bridge();
        bridge["prevResult"] = result.clone();
        PLUGINS.del("bridge", &Self::call(bridge, id, namespace)).unwrap();
    }
}

/// By executing a program for each plugin.
struct Executed;

impl Executed {
    fn execute(verb: &str, config: &Value, id: &str, namespace: &Namespace) -> Value {
        let kind = config["type"].as_str().unwrap();
        let mut plugin = Command::new(Path::new(DEBIAN).join(kind));
        plugin.env_clear().env("PATH", "/usr/sbin:/usr/bin:/sbin:/bin");
        plugin.env("CNI_COMMAND", verb).env("CNI_CONTAINERID", id).env("CNI_NETNS", namespace.path());
        plugin.env("CNI_IFNAME", "eth0").env("CNI_PATH", DEBIAN);
        let plugin = plugin.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn();
        let mut plugin =
            plugin.unwrap_or_else(|error| panic!("{kind}: {error}: see scripts/install-missing bench"));
        plugin.stdin.take().unwrap().write_all(config.to_string().as_bytes()).unwrap();
        let output = plugin.wait_with_output().unwrap();
        let said = String::from_utf8_lossy(&output.stdout);
        assert!(output.status.success(), "{kind} {verb}: {said}");
        if said.trim().is_empty() { Value::Null } else { serde_json::from_str(&said).unwrap() }
    }
}

impl Way for Executed {
    fn add(&self, network: &Network, id: &str, namespace: &Namespace) -> Value {
        let result = Self::execute("ADD", &network.bridge(), id, namespace);
        Self::execute("ADD", &network.portmap(result), id, namespace)
    }

    fn del(&self, network: &Network, id: &str, namespace: &Namespace, result: &Value) {
        Self::execute("DEL", &network.portmap(result.clone()), id, namespace);
        let mut bridge = network.bridge();
        bridge["prevResult"] = result.clone();
        Self::execute("DEL", &bridge, id, namespace);
    }
}

// --- Figures ---

/// The time that this share of the times does not exceed, in milliseconds.
fn quantile(times: &mut [Duration], share: f64) -> f64 {
    times.sort();
    times[((times.len() - 1) as f64 * share).round() as usize].as_secs_f64() * 1e3
}

fn attach(pods: usize) {
    // As the agent has them: where nothing waits for a disk.
    let directory = tempfile::tempdir_in("/dev/shm").unwrap();
    let ways: [(&str, &dyn Way, Network); 2] = [
        ("in the process", &Inside, Network::new(directory.path(), "ours", 1)),
        ("Debian's plugins, executed", &Executed, Network::new(directory.path(), "debians", 2)),
    ];
    let mut adds = [const { Vec::new() }; 2];
    let mut dels = [const { Vec::new() }; 2];
    // The first ones make bridges and tables.
    for number in 0..pods + 5 {
        for (place, (_, way, network)) in ways.iter().enumerate() {
            let namespace = Namespace::new();
            let id = format!("pod{number}");
            let begin = Instant::now();
            let result = way.add(network, &id, &namespace);
            let added = begin.elapsed();
            let begin = Instant::now();
            way.del(network, &id, &namespace, &result);
            let deleted = begin.elapsed();
            drop(namespace);
            if number >= 5 {
                adds[place].push(added);
                dels[place].push(deleted);
            }
        }
    }
    println!("| {pods} pods, one after another | ADD, p50 / p99 / min | DEL, p50 / p99 / min |");
    println!("|---|---|---|");
    let mut middle = [0.0; 2];
    for (place, (what, ..)) in ways.iter().enumerate() {
        let spread = |times: &mut [Duration]| {
            let at: Vec<f64> = [0.5, 0.99, 0.0].map(|share| quantile(times, share)).into();
            format!("{:.2} / {:.2} / {:.2} ms", at[0], at[1], at[2])
        };
        println!("| {what} | {} | {} |", spread(&mut adds[place]), spread(&mut dels[place]));
        middle[place] = quantile(&mut adds[place], 0.5);
    }
    println!("| how much faster, ADD, p50 | {:.1} times | |", middle[1] / middle[0]);
}

/// What a pod with an address of each family and one port has in the table.
fn entries(number: u16) -> Vec<Entry> {
    let [high, low] = number.to_be_bytes();
    let addresses = [format!("10.9.{high}.{low}/16"), format!("fd00:9::{number:x}/64")];
    let (protocol, host_port) = (Protocol::Tcp, 10_000 + number);
    let of = |address: &String| {
        let pod: ipnet::IpNet = address.parse().unwrap();
        [
            Entry::Masquerade(pod),
            Entry::Hairpin { pod, protocol, host_port },
            Entry::Port(PortMap { protocol, host: None, host_port, pod: pod.addr(), pod_port: 80 }),
        ]
    };
    addresses.iter().flat_map(of).collect()
}

fn change() {
    println!("| pods there are | one more added, p50 / p99 | removed, p50 / p99 |");
    println!("|---|---|---|");
    let mut table = Nftables::open().unwrap();
    let owner = |number: u16| Owner::new("change", &format!("pod{number}"), "eth0").unwrap();
    let mut there = 0;
    for pods in [1, 10, 100, 1000] {
        for number in there..pods {
            table.add(&owner(number), &entries(number)).unwrap();
        }
        there = pods;
        let [mut adds, mut removals] = [const { Vec::new() }; 2];
        for _ in 0..500 {
            let begin = Instant::now();
            table.add(&owner(20_000), &entries(20_000)).unwrap();
            adds.push(begin.elapsed());
            let begin = Instant::now();
            table.remove(&owner(20_000), &entries(20_000)).unwrap();
            removals.push(begin.elapsed());
        }
        let spread = |times: &mut [Duration]| {
            format!("{:.0} / {:.0} µs", quantile(times, 0.5) * 1e3, quantile(times, 0.99) * 1e3)
        };
        println!("| {pods} | {} | {} |", spread(&mut adds), spread(&mut removals));
    }
}

//! Our plugins beside the reference plugins, as Debian has them: for the same configuration the same result, and the same
//! interfaces, addresses and routes in the kernel.

use std::io::Write;
use std::path::Path;
use std::process::{Command, Stdio};

use serde_json::{Map, Value, json};
use tempfile::TempDir;

use crate::harness::{Place, Pod, on_a_node};

/// Where Debian's package installs plugins.
const DEBIAN: &str = "/usr/lib/cni";

/// What a pod is given.
const MAC: &str = "02:00:00:00:00:77";

/// A node, its plugins, and a pod on it.
struct Side {
    node: Pod,
    pod: Pod,
    data: TempDir,
    program: String,
}

// === impl Side ===

impl Side {
    fn new(program: String) -> Self {
        let node = Pod::new("node");
        node.place.run("ip link set lo up");
        Self { node, pod: Pod::new("one"), data: TempDir::new_in("/dev/shm").unwrap(), program }
    }

    fn run(&self, verb: &str, config: &Value, previous: Option<&Value>) -> Value {
        let mut config = config.clone();
        if config["ipam"]["type"].is_string() {
            config["ipam"]["dataDir"] = json!(self.data.path());
        }
        if let Some(previous) = previous {
            config["prevResult"] = previous.clone();
        }
        let mut inside = Command::new("nsenter");
        inside.arg(format!("--net={}", self.node.place.path)).arg(&self.program).env("CNI_COMMAND", verb);
        inside.env("CNI_CONTAINERID", &self.pod.id).env("CNI_NETNS", &self.pod.place.path);
        inside.env("CNI_IFNAME", "eth0").env("CNI_PATH", DEBIAN);
        // The reference plugin ptp knows no such thing.
        let mac = if config["type"] == "bridge" { format!(";MAC={MAC}") } else { String::new() };
        inside.env("CNI_ARGS", format!("IgnoreUnknown=1{mac}"));
        let mut inside = inside.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
        inside.stdin.take().unwrap().write_all(config.to_string().as_bytes()).unwrap();
        let output = inside.wait_with_output().unwrap();
        let text = String::from_utf8_lossy(&output.stdout);
        assert!(output.status.success(), "{} {verb}: {text}", self.program);
        if text.trim().is_empty() { Value::Null } else { serde_json::from_str(&text).unwrap() }
    }

    /// What is there: of the pod and of the node.
    fn kernel(&self) -> Value {
        let pod = state(&self.pod.place, "eth0");
        let sysctls = ["ipv4/ip_forward", "ipv6/conf/all/forwarding"];
        let sysctls: Map<String, Value> =
            sysctls.iter().map(|name| ((*name).to_owned(), json!(self.node.place.sysctl(name)))).collect();
        json!({"pod": pod, "bridge": state(&self.node.place, "br"), "host": state(&self.node.place, "veth"), "sysctls": sysctls})
    }
}

fn list(place: &Place, command: &str) -> Vec<Value> {
    let text = place.run(command);
    let Value::Array(all) = serde_json::from_str(&text).unwrap_or(json!([])) else { panic!("{text}") };
    all
}

/// Interfaces whose names begin so, and routes that lead over them.
fn state(place: &Place, prefix: &str) -> Value {
    let mine =
        |value: &Value, field: &str| value[field].as_str().is_some_and(|name| name.starts_with(prefix));
    let links = list(place, "ip -d -j address").into_iter().filter(|link| mine(link, "ifname"));
    let links: Vec<Value> = links
        .map(|link| {
            let addresses = link["addr_info"].as_array().unwrap().iter();
            // Link-local addresses follow from hardware addresses.
            let addresses = addresses.filter(|one| one["scope"] != "link");
            let address =
                |one: &Value| json!([one["local"], one["prefixlen"], one["broadcast"], one["scope"]]);
            let port = &link["linkinfo"]["info_slave_data"];
            json!({
                "flags": configured(&link["flags"]),
                "mtu": link["mtu"],
                "kind": link["linkinfo"]["info_kind"],
                "hairpin": port["hairpin"],
                "isolated": port["isolated"],
                "addresses": addresses.map(address).collect::<Vec<_>>(),
            })
        })
        .collect();
    let mut routes = Vec::new();
    for family in ["-4", "-6"] {
        let all =
            list(place, &format!("ip {family} -j route")).into_iter().filter(|route| mine(route, "dev"));
        let all = all.filter(|route| route["dst"] != "fe80::/64");
        let mut all: Vec<Value> = all
            .map(|mut route| {
                // Names are by chance there, and ours here.
                route.as_object_mut().unwrap().remove("dev");
                // As of the carrier.
                route["flags"].as_array_mut().unwrap().retain(|flag| flag != "linkdown");
                route
            })
            .collect();
        all.sort_by_key(Value::to_string);
        routes.extend(all);
    }
    json!({"links": links, "routes": routes})
}

/// Those flags that say how it is configured. Whether it has a carrier the kernel finds out in its own time.
fn configured(flags: &Value) -> Vec<Value> {
    let mut flags = flags.as_array().unwrap().clone();
    flags.retain(|flag| ["UP", "PROMISC", "ALLMULTI"].iter().any(|configured| flag == configured));
    flags
}

/// A result without what cannot be the same: names and hardware addresses by chance, where the pod is.
fn comparable(mut result: Value) -> Value {
    for interface in result["interfaces"].as_array_mut().into_iter().flatten() {
        let interface = interface.as_object_mut().unwrap();
        if interface.contains_key("sandbox") {
            interface.insert("sandbox".to_owned(), json!("the pod's"));
        }
        if interface["mac"] != MAC {
            interface.insert("mac".to_owned(), json!("some"));
        }
        if interface["name"].as_str().is_some_and(|name| name.starts_with("veth")) {
            interface.insert("name".to_owned(), json!("veth"));
        }
    }
    if result["dns"] == json!({}) {
        result.as_object_mut().unwrap().remove("dns");
    }
    result
}

fn ipam(ranges: &[&str], routes: Value) -> Value {
    let sets: Vec<Value> = ranges.iter().map(|range| json!([{"subnet": range}])).collect();
    json!({"type": "host-local", "ranges": sets, "routes": routes})
}

fn compare(name: &str, kind: &str, version: &str, more: Value) {
    let mut config = json!({"cniVersion": version, "name": "net", "type": kind});
    config.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    let bin = TempDir::new().unwrap();
    let ours = bin.path().join(kind);
    std::os::unix::fs::symlink(env!("CARGO_BIN_EXE_coracle-cni"), &ours).unwrap();
    let debian = Path::new(DEBIAN).join(kind);
    let sides = [debian, ours].map(|program| Side::new(program.to_str().unwrap().to_owned()));
    let results = sides.each_ref().map(|side| side.run("ADD", &config, None));
    let [theirs, ours] = results.clone().map(comparable);
    assert_eq!(ours, theirs, "{name} {version}: result");
    let [theirs, ours] = sides.each_ref().map(Side::kernel);
    assert_eq!(ours, theirs, "{name} {version}: kernel");
    // Each finds what it has made as it should be.
    for (side, result) in sides.iter().zip(&results) {
        // The reference plugin cannot check a network without addresses.
        if config["ipam"]["type"].is_string() {
            side.run("CHECK", &config, Some(result));
        }
        side.run("DEL", &config, Some(result));
    }
    let [theirs, ours] = sides.each_ref().map(Side::kernel);
    assert_eq!(ours, theirs, "{name} {version}: after DEL");
}

#[test]
fn results_and_interfaces_are_those_of_the_reference_plugins() {
    on_a_node(|_| {
        let both = ["10.91.0.0/24", "fd00:91::/64"];
        let defaults = json!([{"dst": "0.0.0.0/0"}, {"dst": "::/0"}]);
        let with = |more: Value| {
            let mut all =
                json!({"bridge": "br0", "dns": {"nameservers": ["192.0.2.53"], "search": ["example"]}});
            all.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
            all
        };
        let gateway = json!({"isGateway": true, "ipam": ipam(&both, defaults.clone())});
        compare("gateway", "bridge", "0.4.0", with(gateway.clone()));
        let bridge = |name: &str, more: Value| compare(name, "bridge", "1.0.0", with(more));
        bridge("gateway", gateway);
        bridge("default gateway", json!({"isDefaultGateway": true, "ipam": ipam(&both, json!([]))}));
        bridge("no gateway", json!({"ipam": ipam(&both, json!([]))}));
        bridge("IPv6 alone", json!({"isDefaultGateway": true, "ipam": ipam(&both[1..], json!([]))}));
        let routes =
            json!([{"dst": "192.168.9.0/24", "gw": "10.91.0.99"}, {"dst": "fd99::/48", "gw": "fd00:91::99"}]);
        bridge("routes", json!({"isGateway": true, "ipam": ipam(&both, routes)}));
        let more =
            json!({"isGateway": true, "mtu": 1400, "hairpinMode": true, "ipam": ipam(&both, json!([]))});
        bridge("hairpin", more);
        bridge(
            "promiscuous",
            json!({"isGateway": true, "promiscMode": true, "ipam": ipam(&both, json!([]))}),
        );
        bridge("link alone", json!({"ipam": {}}));
        let ptp = |name: &str, more: Value| compare(name, "ptp", "1.0.0", more);
        ptp("ptp", json!({"ipam": ipam(&both, defaults)}));
        ptp("ptp with an MTU", json!({"mtu": 1400, "ipam": ipam(&both[..1], json!([]))}));
    });
}

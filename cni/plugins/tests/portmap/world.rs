//! A host with an outside, a bridge and pods.

use std::fs;

use coracle_cni::{AddResult, Call, NetworkNamespace, Plugin, PluginConfig};
use coracle_cni_plugins::Portmap;
use serde_json::{Map, Value, json};

use crate::harness::{Namespace, run};

pub(crate) const HOST4: &str = "192.0.2.1";
pub(crate) const HOST6: &str = "2001:db8::1";
pub(crate) const OUTSIDE4: &str = "192.0.2.2";
pub(crate) const OUTSIDE6: &str = "2001:db8::2";
pub(crate) const BRIDGE4: &str = "10.1.0.1";
pub(crate) const BRIDGE6: &str = "fd00:1::1";

/// The test's own network namespace as a host that forwards, linked with another one.
pub(crate) struct World {
    pub(crate) outside: Namespace,
}

/// A pod on the host's bridge, or alone on a link of its own.
pub(crate) struct Pod {
    pub(crate) namespace: Namespace,
    number: u8,
    /// The host's interfaces of it.
    host_side: Vec<String>,
    /// What its addresses are told with.
    prefixes: [&'static str; 2],
}

impl World {
    pub(crate) fn new() -> Self {
        run("ip link set lo up");
        for (file, value) in [
            ("ipv4/ip_forward", "1"),
            ("ipv6/conf/all/forwarding", "1"),
            ("ipv6/conf/default/accept_dad", "0"),
            ("ipv4/conf/default/rp_filter", "0"),
        ] {
            fs::write(format!("/proc/sys/net/{file}"), value).unwrap();
        }
        let outside = Namespace::new();
        run(&format!("ip link add out0 type veth peer name eth0 netns {}", outside.pid()));
        run("ip link set out0 up");
        run(&format!("ip address add {HOST4}/24 dev out0"));
        run(&format!("ip address add {HOST6}/64 dev out0 nodad"));
        outside.run("ip link set eth0 up");
        outside.run(&format!("ip address add {OUTSIDE4}/24 dev eth0"));
        outside.run(&format!("ip address add {OUTSIDE6}/64 dev eth0 nodad"));
        run("ip link add cni0 type bridge");
        run("ip link set cni0 up");
        run(&format!("ip address add {BRIDGE4}/16 dev cni0"));
        run(&format!("ip address add {BRIDGE6}/64 dev cni0 nodad"));
        Self { outside }
    }

    /// On the bridge: `10.1.0.<number>` and `fd00:1::<number>`.
    pub(crate) fn pod(&self, number: u8) -> Pod {
        let namespace = Namespace::new();
        let veth = format!("veth{number}");
        run(&format!("ip link add {veth} type veth peer name eth0 netns {}", namespace.pid()));
        run(&format!("ip link set {veth} master cni0 up"));
        // Where frames pass the hooks of IP, what a pod sends to itself goes back by the port it came from.
        run(&format!("bridge link set dev {veth} hairpin on"));
        let host_side = vec!["cni0".to_owned(), veth];
        Pod::set_up(namespace, number, host_side, ["/16", "/64"])
    }

    /// As ptp makes it: alone on its link, which the host has the bridge's addresses on, too.
    pub(crate) fn pod_alone(&self, number: u8) -> Pod {
        let namespace = Namespace::new();
        let veth = format!("veth{number}");
        run(&format!("ip link add {veth} type veth peer name eth0 netns {}", namespace.pid()));
        run(&format!("ip link set {veth} up"));
        run(&format!("ip address add {BRIDGE4}/32 dev {veth}"));
        run(&format!("ip address add {BRIDGE6}/128 dev {veth} nodad"));
        run(&format!("ip route add 10.1.0.{number}/32 dev {veth}"));
        run(&format!("ip -6 route add fd00:1::{number}/128 dev {veth}"));
        let pod = Pod::set_up(namespace, number, vec![veth], ["/32", "/128"]);
        pod.namespace.run(&format!("ip route replace {BRIDGE4}/32 dev eth0"));
        pod.namespace.run(&format!("ip route replace default via {BRIDGE4}"));
        pod
    }
}

impl Pod {
    fn set_up(namespace: Namespace, number: u8, host_side: Vec<String>, prefixes: [&'static str; 2]) -> Self {
        namespace.run("ip link set eth0 up");
        namespace.run(&format!("ip address add 10.1.0.{number}{} dev eth0", prefixes[0]));
        namespace.run(&format!("ip address add fd00:1::{number}{} dev eth0 nodad", prefixes[1]));
        namespace.run(&format!("ip route add {BRIDGE4}/32 dev eth0"));
        namespace.run(&format!("ip route add default via {BRIDGE4}"));
        namespace.run(&format!("ip -6 route add {BRIDGE6}/128 dev eth0"));
        namespace.run(&format!("ip -6 route add default via {BRIDGE6}"));
        Self { namespace, number, host_side, prefixes }
    }

    pub(crate) fn v4(&self) -> String {
        format!("10.1.0.{}", self.number)
    }

    pub(crate) fn v6(&self) -> String {
        format!("fd00:1::{}", self.number)
    }

    /// What the plugin before has answered.
    pub(crate) fn result(&self) -> Value {
        let mut interfaces: Vec<Value> = self.host_side.iter().map(|name| json!({ "name": name })).collect();
        interfaces.push(json!({"name": "eth0", "sandbox": self.namespace.path()}));
        let pod = interfaces.len() - 1;
        json!({
            "cniVersion": "1.1.0",
            "interfaces": interfaces,
            "ips": [
                {"address": format!("{}{}", self.v4(), self.prefixes[0]), "interface": pod, "gateway": BRIDGE4},
                {"address": format!("{}{}", self.v6(), self.prefixes[1]), "interface": pod, "gateway": BRIDGE6},
            ],
        })
    }

    /// A call of portmap for this pod.
    pub(crate) fn call(&self, fields: Value, mappings: &Value) -> Call {
        let mut config = json!({
            "cniVersion": "1.1.0", "name": "pods", "type": "portmap",
            "prevResult": self.result(),
            "runtimeConfig": {"portMappings": mappings},
        });
        config.as_object_mut().unwrap().extend(fields.as_object().unwrap_or(&Map::new()).clone());
        Call {
            container_id: format!("pod{}", self.number),
            netns: Some(NetworkNamespace::new(self.namespace.path())),
            ifname: "eth0".to_owned(),
            args: Vec::new(),
            path: Vec::new(),
            config: PluginConfig::from_json(config).unwrap(),
            namespace_ends: false,
            deadline: None,
        }
    }

    /// Maps ports to it.
    pub(crate) fn map(&self, mappings: &Value) -> AddResult {
        Portmap.add(&self.call(json!({}), mappings)).unwrap()
    }
}

/// What portMappings has for a port of the host that leads to port 80.
pub(crate) fn mapping(host_port: u16, protocol: &str, host_ip: &str) -> Value {
    json!({"hostPort": host_port, "containerPort": 80, "protocol": protocol, "hostIP": host_ip})
}

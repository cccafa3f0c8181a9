//! Beyond the node: a router, and a second node behind it.

use std::net::IpAddr;

use serde_json::{Value, json};

use crate::harness::{Node, Place, Pod, eventually, on_a_node, reaches};

/// Links a place with another one by addresses of both families.
fn link(one: &Place, other: &Place, name: &str, networks: [&str; 2]) {
    let pid = other.path.replace("/proc/", "").replace("/ns/net", "");
    one.run(&format!("ip link add {name} type veth peer name {name} netns {pid}"));
    for (place, last) in [(one, 2), (other, 1)] {
        place.run(&format!("ip address add {}{last}/24 dev {name}", networks[0]));
        place.run(&format!("ip address add {}{last}/64 dev {name} nodad", networks[1]));
        place.run(&format!("ip link set {name} up"));
    }
    for place in [one, other] {
        eventually("the link works", || place.run(&format!("ip -o link show {name}")).contains("state UP"));
    }
}

/// Runs a test on a node with a way out over a router, behind which the world is at these addresses.
fn with_a_router(work: impl FnOnce(&Node, &Pod, [IpAddr; 2])) -> impl FnOnce(&Node) {
    move |node| {
        let router = Pod::new("router");
        link(&node.place, &router.place, "up0", ["172.31.0.", "fd00:31::"]);
        for (family, gateway) in [("-4", "172.31.0.1"), ("-6", "fd00:31::1")] {
            node.place.run(&format!("ip {family} route add default via {gateway}"));
        }
        router.place.run("ip link set lo up");
        let world = ["192.0.2.99", "2001:db8::99"];
        for address in world {
            router.place.run(&format!("ip address add {address} dev lo"));
        }
        work(node, &router, world.map(|address| address.parse().unwrap()));
    }
}

fn network(node: &Node, kind: &str, number: u8, masquerade: bool) -> Value {
    let ranges = [format!("10.88.{number}.0/24"), format!("fd00:88:{number}::/64")];
    let more = json!({"name": format!("net{number}"), "bridge": "br", "isDefaultGateway": true, "ipMasq": masquerade});
    let mut config = node.config(kind, &ranges.each_ref().map(String::as_str), more);
    if kind == "ptp" {
        config["ipam"]["routes"] = json!([{"dst": "0.0.0.0/0"}, {"dst": "::/0"}]);
    }
    config
}

#[test]
fn what_leaves_the_network_is_masqueraded_until_the_pod_goes() {
    on_a_node(with_a_router(|node, router, world| {
        for (number, kind) in [(1, "bridge"), (2, "ptp")] {
            let config = network(node, kind, number, true);
            let pods = [Pod::new("one"), Pod::new("two")];
            let results = pods.each_ref().map(|pod| pod.add(&config).unwrap());
            let node_addresses =
                ["172.31.0.2", "fd00:31::2"].map(|address| address.parse::<IpAddr>().unwrap());
            for family in 0..2 {
                // The router knows no way to pods: an answer comes only because it is the node it sees.
                let seen = reaches(&pods[0].place, &router.place, world[family]);
                assert_eq!(seen, node_addresses[family], "{kind}");
                let [one, two] = [0, 1].map(|pod: usize| Pod::addresses(&results[pod])[family]);
                assert_eq!(reaches(&pods[0].place, &pods[1].place, two), one, "{kind}");
                pods[0].check(&config, &results[0]).unwrap();
            }
            // Somebody flushes everything.
            flush_nftables();
            assert!(!pods[0].place.pings(world[0]), "{kind}");
            let error = pods[0].check(&config, &results[0]).unwrap_err();
            assert_eq!(error.code, coracle_cni::code::CHECK_FAILED, "{error}");
            for (pod, result) in pods.iter().zip(&results) {
                let call = pod.call_after(&config, result);
                coracle_cni_plugins::PLUGINS.get(kind).unwrap().repair(&call).unwrap();
                pod.check(&config, result).unwrap();
            }
            assert_eq!(reaches(&pods[1].place, &router.place, world[0]), node_addresses[0], "{kind}");
            // GC and DEL, with a result and without.
            crate::harness::gc(&config, &[("two", "eth0")]).unwrap();
            assert!(!masqueraded().contains(&"one".to_owned()), "{kind}: {:?}", masqueraded());
            coracle_cni_plugins::PLUGINS.del(kind, &pods[1].call_after(&config, &results[1])).unwrap();
            assert_eq!(masqueraded(), [""; 0], "{kind}");
            pods[0].add(&config).unwrap();
            assert_eq!(masqueraded(), ["one"], "{kind}");
            pods[0].del(&config).unwrap();
            assert_eq!(masqueraded(), [""; 0], "{kind}");
        }
    }));
}

/// Containers whose addresses are masqueraded.
fn masqueraded() -> Vec<String> {
    let mut table = coracle_nftables::Nftables::open().unwrap();
    let owners = table.owners(coracle_nftables::Part::Masquerade).unwrap();
    owners.into_iter().map(|owner| owner.container_id().to_owned()).collect()
}

/// As `nft flush ruleset`.
fn flush_nftables() {
    use coracle_netlink::{Batch, Protocol, Socket};
    use netlink_packet_core::NetlinkSerializable;

    /// A message of nfnetlink: its type, and what stands in `nfgenmsg` for the subsystem.
    struct Raw(u16, u16);

    impl NetlinkSerializable for Raw {
        fn message_type(&self) -> u16 {
            self.0
        }
        fn buffer_len(&self) -> usize {
            4
        }
        fn serialize(&self, buffer: &mut [u8]) {
            buffer[2..4].copy_from_slice(&self.1.to_be_bytes());
        }
    }

    // NFNL_SUBSYS_NFTABLES, between NFNL_MSG_BATCH_BEGIN and NFNL_MSG_BATCH_END; NFT_MSG_DELTABLE of all.
    let mut batch = Batch::new();
    batch.push_unacknowledged("begin", 0, &Raw(0x10, 10));
    batch.push("delete all tables", 0, &Raw(10 << 8 | 2, 0));
    batch.push_unacknowledged("end", 0, &Raw(0x11, 10));
    Socket::open(Protocol::Netfilter).unwrap().execute(batch).unwrap();
}

#[test]
fn pods_of_two_nodes_reach_each_other_over_a_router() {
    on_a_node(with_a_router(|node, router, _| {
        for path in ["ipv4/ip_forward", "ipv6/conf/all/forwarding"] {
            router.place.run(&format!("busybox sysctl -w net.{}=1", path.replace('/', ".")));
        }
        let second = Pod::new("second");
        link(&second.place, &router.place, "up1", ["172.32.0.", "fd00:32::"]);
        let config = network(node, "bridge", 1, false);
        let pod = Pod::new("one");
        let result = pod.add(&config).unwrap();
        let there = Pod::new("there");
        let mut other = network(node, "bridge", 2, false);
        other["name"] = json!("net2");
        let other_result = second.place.on(&there, &other);
        for (place, networks, gateways) in [
            (&router.place, ["10.88.1.0/24", "fd00:88:1::/64"], ["172.31.0.2", "fd00:31::2"]),
            (&router.place, ["10.88.2.0/24", "fd00:88:2::/64"], ["172.32.0.2", "fd00:32::2"]),
            (&second.place, ["10.88.0.0/16", "fd00:88::/32"], ["172.32.0.1", "fd00:32::1"]),
            (&second.place, ["172.31.0.0/24", "fd00:31::/64"], ["172.32.0.1", "fd00:32::1"]),
        ] {
            for (network, gateway) in networks.iter().zip(gateways) {
                place.run(&format!("ip route add {network} via {gateway}"));
            }
        }
        for family in 0..2 {
            let [near, far] = [Pod::addresses(&result)[family], Pod::addresses(&other_result)[family]];
            assert_eq!(reaches(&pod.place, &there.place, far), near);
            assert_eq!(reaches(&there.place, &pod.place, near), far);
            reaches(&node.place, &there.place, far);
        }
    }));
}

//! What pods send out, and whom it is seen to come from.

use std::fs;
use std::io::Write;
use std::net::IpAddr;
use std::os::unix::fs::symlink;
use std::process::{Command, Stdio};

use coracle_nftables::{Entry, Nftables, Owner, Part};

use serde_json::json;

use crate::harness::{Namespace, in_own_network, run};
use crate::traffic::{Kind, Server};
use crate::world::{HOST4, HOST6, OUTSIDE4, Pod, World};

fn masquerade(pod: &Pod) {
    let owner = Owner::new("pods", &pod.v4(), "eth0").unwrap();
    let entries = [format!("{}/16", pod.v4()), format!("{}/64", pod.v6())];
    let entries = entries.map(|address| Entry::Masquerade(address.parse().unwrap()));
    Nftables::open().unwrap().add(&owner, &entries).unwrap();
}

#[test]
fn what_leaves_the_subnet_is_seen_as_the_hosts_and_what_stays_as_the_pods() {
    in_own_network(|| {
        let world = World::new();
        let (pod, neighbour) = (world.pod(5), world.pod(6));
        masquerade(&pod);
        for kind in [Kind::Tcp, Kind::Udp] {
            let outside = Server::new(Some(&world.outside), kind, "[::]:80");
            let seen = |address: &str| outside.reach(Some(&pod.namespace), address).unwrap().to_canonical();
            assert_eq!(seen("192.0.2.2:80"), HOST4.parse::<IpAddr>().unwrap());
            assert_eq!(seen("[2001:db8::2]:80"), HOST6.parse::<IpAddr>().unwrap());
            for bridged in ["0", "1"] {
                for file in ["bridge-nf-call-iptables", "bridge-nf-call-ip6tables"] {
                    fs::write(format!("/proc/sys/net/bridge/{file}"), bridged).unwrap();
                }
                let beside = Server::new(Some(&neighbour.namespace), kind, "[::]:80");
                let seen =
                    |address: &str| beside.reach(Some(&pod.namespace), address).unwrap().to_canonical();
                assert_eq!(seen("10.1.0.6:80").to_string(), pod.v4(), "{kind:?}, bridge-nf {bridged}");
                assert_eq!(seen("[fd00:1::6]:80").to_string(), pod.v6(), "{kind:?}, bridge-nf {bridged}");
            }
        }
    });
}

#[test]
fn the_subnet_is_the_networks_wherever_a_route_leads() {
    in_own_network(|| {
        let world = World::new();
        let pod = world.pod(5);
        masquerade(&pod);
        // Another node has a part of it.
        world.outside.run("ip address add 10.1.9.1/32 dev lo");
        world.outside.run("ip route add 10.1.0.0/24 via 192.0.2.1");
        run("ip route add 10.1.9.0/24 via 192.0.2.2");
        let outside = Server::new(Some(&world.outside), Kind::Tcp, "0.0.0.0:80");
        let reach = || outside.reach(Some(&pod.namespace), "10.1.9.1:80");
        pod.namespace.run("ip route add 10.1.9.0/24 via 10.1.0.1");
        assert_eq!(reach().unwrap().to_string(), pod.v4());
    });
}

#[test]
fn a_pod_that_is_not_masqueraded_is_seen_as_itself() {
    in_own_network(|| {
        let world = World::new();
        let (pod, other) = (world.pod(5), world.pod(6));
        masquerade(&other);
        world.outside.run("ip route add 10.1.0.0/16 via 192.0.2.1");
        let outside = Server::new(Some(&world.outside), Kind::Tcp, "0.0.0.0:80");
        let reach = |pod: &Pod| outside.reach(Some(&pod.namespace), "192.0.2.2:80").unwrap().to_string();
        assert_eq!(reach(&pod), pod.v4());
        assert_eq!(reach(&other), HOST4);
        let owner = Owner::new("pods", &other.v4(), "eth0").unwrap();
        Nftables::open().unwrap().remove_all(&owner, Part::Masquerade).unwrap();
        assert_eq!(reach(&other), other.v4());
        assert_ne!(OUTSIDE4, HOST4);
    });
}

/// The plugins' program has one thread, which enters the pod's namespace and has to come back.
#[test]
fn the_program_masquerades_on_the_host_and_not_in_the_pod() {
    in_own_network(|| {
        run("ip link set lo up");
        let directory = tempfile::tempdir().unwrap();
        for kind in ["bridge", "host-local"] {
            symlink(env!("CARGO_BIN_EXE_coracle-cni"), directory.path().join(kind)).unwrap();
        }
        let pod = Namespace::new();
        let config = json!({
            "cniVersion": "1.0.0", "name": "pods", "type": "bridge", "bridge": "cni0", "isGateway": true, "ipMasq": true,
            "ipam": {"type": "host-local", "dataDir": directory.path(), "ranges": [[{"subnet": "10.1.0.0/16"}]]},
        });
        let mut plugin = Command::new(directory.path().join("bridge"));
        plugin.env("CNI_COMMAND", "ADD").env("CNI_CONTAINERID", "pod").env("CNI_IFNAME", "eth0");
        plugin.env("CNI_NETNS", pod.path()).env("CNI_PATH", directory.path());
        let mut plugin = plugin.stdin(Stdio::piped()).stdout(Stdio::null()).spawn().unwrap();
        plugin.stdin.take().unwrap().write_all(config.to_string().as_bytes()).unwrap();
        assert!(plugin.wait().unwrap().success());
        let set = run("nft list set inet coracle masquerade4");
        assert!(set.contains("10.1.0.2 comment \"pods/pod/eth0\""), "{set}");
        assert_eq!(pod.run("nft list tables"), "");
    });
}

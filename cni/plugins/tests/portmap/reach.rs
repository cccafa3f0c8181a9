//! Who reaches a pod by a port of the host, and as whom.

use std::fs;
use std::net::{IpAddr, SocketAddr};

use coracle_cni::Plugin;
use coracle_cni_plugins::Portmap;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::net::{AddressFamily, RecvFlags, SendFlags, SocketType, recv, sendto, socket};
use serde_json::json;

use crate::harness::{Namespace, in_own_network, run};
use crate::traffic::{Kind, Server};
use crate::world::{BRIDGE4, BRIDGE6, HOST4, HOST6, OUTSIDE4, OUTSIDE6, Pod, World, mapping};

fn ip(text: &str) -> IpAddr {
    text.parse().unwrap()
}

/// Reaches a pod from everywhere by port 8080, which it has in both protocols.
fn from_everywhere(world: &World, pod: &Pod, neighbour: &Pod, neighbours_are_masqueraded: bool) {
    for kind in [Kind::Tcp, Kind::Udp] {
        let server = Server::new(Some(&pod.namespace), kind, "[::]:80");
        let reach = |from, address: &str, seen: &[&str]| {
            let seen: Vec<IpAddr> = seen.iter().map(|text| ip(text)).collect();
            let peer =
                server.reach(from, address).unwrap_or_else(|error| panic!("{kind:?} to {address}: {error}"));
            let peer = peer.to_canonical();
            assert!(seen.contains(&peer), "{kind:?} to {address} is seen from {peer}, and not {seen:?}");
        };
        for (host, outside, bridge, other) in
            [(HOST4, OUTSIDE4, BRIDGE4, neighbour.v4()), (HOST6, OUTSIDE6, BRIDGE6, neighbour.v6())]
        {
            let port = |host: &str| {
                format!("{}:8080", if host.contains(':') { format!("[{host}]") } else { host.into() })
            };
            reach(Some(&world.outside), &port(host), &[outside]);
            reach(None, &port(host), &[host, bridge]);
            reach(Some(&pod.namespace), &port(host), &[bridge]);
            reach(Some(&pod.namespace), &port(bridge), &[bridge]);
            let seen = if neighbours_are_masqueraded { bridge } else { &other };
            reach(Some(&neighbour.namespace), &port(host), &[seen]);
            reach(Some(&neighbour.namespace), &port(bridge), &[seen]);
        }
        reach(None, "127.0.0.1:8080", &[BRIDGE4]);
        reach(None, "127.0.0.9:8080", &[BRIDGE4]);
    }
}

#[test]
fn a_pod_on_a_bridge_is_reached_from_everywhere() {
    in_own_network(|| {
        let world = World::new();
        let (pod, neighbour) = (world.pod(5), world.pod(6));
        pod.map(&json!([mapping(8080, "tcp", ""), mapping(8080, "udp", "")]));
        // Without and with frames of a bridge passing the hooks of IP, as beside Docker.
        for bridged in ["0", "1"] {
            for file in ["bridge-nf-call-iptables", "bridge-nf-call-ip6tables"] {
                fs::write(format!("/proc/sys/net/bridge/{file}"), bridged).unwrap();
            }
            from_everywhere(&world, &pod, &neighbour, true);
        }
    });
}

#[test]
fn a_pod_alone_on_its_link_is_reached_from_everywhere() {
    in_own_network(|| {
        let world = World::new();
        run("ip link delete cni0");
        let (pod, neighbour) = (world.pod_alone(5), world.pod_alone(6));
        pod.map(&json!([mapping(8080, "tcp", ""), mapping(8080, "udp", "")]));
        from_everywhere(&world, &pod, &neighbour, false);
        let call = pod.call(json!({}), &json!([mapping(8080, "tcp", ""), mapping(8080, "udp", "")]));
        assert!(run("nft list set inet coracle localnet").contains("veth5"));
        Portmap.del(&call).unwrap();
        let left = run("nft list table inet coracle");
        assert!(!left.contains("elements"), "{left}");
    });
}

#[test]
fn one_address_of_the_host_is_no_other() {
    in_own_network(|| {
        let world = World::new();
        let (pod, other) = (world.pod(5), world.pod(6));
        let server = Server::new(Some(&pod.namespace), Kind::Tcp, "0.0.0.0:80");
        pod.map(&json!([mapping(8080, "tcp", HOST4), mapping(8081, "tcp", "127.0.0.1")]));
        assert_eq!(server.reach(Some(&world.outside), "192.0.2.1:8080").unwrap(), ip(OUTSIDE4));
        assert_eq!(server.reach(Some(&other.namespace), "192.0.2.1:8080").unwrap(), ip(BRIDGE4));
        for refused in ["10.1.0.1:8080", "127.0.0.1:8080", "192.0.2.1:8081"] {
            assert!(server.reach(None, refused).is_err(), "{refused}");
        }
        assert_eq!(server.reach(None, "127.0.0.1:8081").unwrap(), ip(BRIDGE4));
        // The same port of another address is another pod's.
        let others = Server::new(Some(&other.namespace), Kind::Tcp, "0.0.0.0:80");
        other.map(&json!([mapping(8080, "tcp", "")]));
        assert_eq!(server.reach(Some(&world.outside), "192.0.2.1:8080").unwrap(), ip(OUTSIDE4));
        assert!(others.reach(None, "10.1.0.1:8080").is_ok());
    });
}

#[test]
fn clients_are_masqueraded_as_the_configuration_says() {
    in_own_network(|| {
        let world = World::new();
        let (pod, neighbour) = (world.pod(5), world.pod(6));
        let server = Server::new(Some(&pod.namespace), Kind::Tcp, "[::]:80");
        let mappings = json!([mapping(8080, "tcp", "")]);
        let seen =
            |address: &str| server.reach(Some(&world.outside), address).map(|seen| seen.to_canonical());
        Portmap.add(&pod.call(json!({"masqAll": true}), &mappings)).unwrap();
        assert_eq!(seen("192.0.2.1:8080").unwrap(), ip(BRIDGE4));
        assert_eq!(seen("[2001:db8::1]:8080").unwrap(), ip(BRIDGE6));
        Portmap.del(&pod.call(json!({"masqAll": true}), &mappings)).unwrap();
        assert!(seen("192.0.2.1:8080").is_err(), "it is mapped no more");

        // Where frames of a bridge pass the hooks of IP, answers do not pass the host by.
        fs::write("/proc/sys/net/bridge/bridge-nf-call-iptables", "0").unwrap();
        Portmap.add(&pod.call(json!({"snat": false}), &mappings)).unwrap();
        assert_eq!(seen("192.0.2.1:8080").unwrap(), ip(OUTSIDE4));
        let by_itself = server.reach(Some(&neighbour.namespace), "192.0.2.1:8080");
        assert!(by_itself.is_err(), "without it a neighbour's answers pass the host by: {by_itself:?}");
    });
}

#[test]
fn the_loopback_of_the_host_stays_its_own() {
    in_own_network(|| {
        let world = World::new();
        let pod = world.pod(5);
        pod.map(&json!([mapping(8080, "tcp", "")]));
        assert_eq!(fs::read_to_string("/proc/sys/net/ipv4/conf/cni0/route_localnet").unwrap().trim(), "1");
        // A pod that takes the host's loopback for something to be reached over its gateway.
        let inside = &pod.namespace;
        inside.run("ip address delete 127.0.0.1/8 dev lo");
        inside.run("ip route flush table local 127.0.0.0/8");
        inside.inside(|| fs::write("/proc/sys/net/ipv4/conf/eth0/route_localnet", "1")).unwrap();
        inside.run(&format!("ip route add 127.0.0.1/32 via {BRIDGE4} src {}", pod.v4()));
        let private = Server::new(None, Kind::Tcp, "127.0.0.1:9000");
        let reached = private.reach(Some(inside), "127.0.0.1:9000");
        assert!(reached.is_err(), "{reached:?}");
        // It is the guard that keeps it out.
        run("nft flush chain inet coracle guard");
        private.reach(Some(inside), "127.0.0.1:9000").unwrap();
    });
}

#[test]
fn sctp_is_mapped() {
    in_own_network(|| {
        let world = World::new();
        let pod = world.pod(5);
        pod.map(&json!([mapping(8080, "sctp", ""), mapping(8080, "sctp", HOST4)]));
        let table = run("nft list table inet coracle");
        for element in [
            "sctp . 8080 comment \"pods/pod5/eth0\" : 10.1.0.5 . 80",
            "192.0.2.1 . sctp . 8080 comment \"pods/pod5/eth0\" : 10.1.0.5 . 80",
            "sctp . 8080 comment \"pods/pod5/eth0\" : fd00:1::5 . 80",
        ] {
            assert!(table.contains(element), "{table}");
        }
        // Raw, because a kernel need not have SCTP itself to lead its packets on.
        let raw = |namespace: &Namespace| {
            let socket = || socket(AddressFamily::INET, SocketType::RAW, Some(rustix::net::ipproto::SCTP));
            namespace.inside(socket).unwrap()
        };
        let (client, server) = (raw(&world.outside), raw(&pod.namespace));
        let host: SocketAddr = "192.0.2.1:0".parse().unwrap();
        sendto(&client, &init(40_000, 8080), SendFlags::empty(), &host).unwrap();
        let soon = Timespec { tv_sec: 10, tv_nsec: 0 };
        assert_eq!(poll(&mut [PollFd::new(&server, PollFlags::IN)], Some(&soon)).unwrap(), 1, "it arrives");
        let mut packet = [0; 64];
        let (length, _) = recv(&server, &mut packet, RecvFlags::empty()).unwrap();
        assert_eq!(packet[12..16], [192, 0, 2, 2], "from outside");
        assert_eq!(packet[20..length], init(40_000, 80), "with the pod's port, and a checksum that fits");
    });
}

/// An SCTP packet that begins an association (RFC 9260, sections 3.1 and 3.3.2).
fn init(from: u16, to: u16) -> Vec<u8> {
    let mut packet = [from.to_be_bytes(), to.to_be_bytes()].concat();
    // Verification tag and checksum, 0 as yet.
    packet.extend([0; 8]);
    // INIT of 20 bytes: tag, window, streams out and in, sequence number.
    packet.extend([1, 0, 0, 20, 0, 0, 0, 7, 0, 1, 0, 0, 0, 1, 0, 1, 0, 0, 0, 1]);
    let checksum = crc32c(&packet).to_le_bytes();
    packet[8..12].copy_from_slice(&checksum);
    packet
}

fn crc32c(bytes: &[u8]) -> u32 {
    !bytes.iter().fold(!0, |crc, byte| {
        (0..8).fold(crc ^ u32::from(*byte), |crc, _| (crc >> 1) ^ (0x82f6_3b78 & (crc & 1).wrapping_neg()))
    })
}

//! Flows of UDP follow a map of their port only once they are forgotten.

use std::io;
use std::net::UdpSocket;
use std::time::Duration;

use coracle_nftables::{Conntrack, Entry, Nftables, PortMap, Protocol};

use crate::harness::{in_own_network, run};
use crate::owner;

const HOST: &str = "192.0.2.1";
const POD: &str = "10.1.0.5";

fn map(host: Option<&str>) -> PortMap {
    PortMap {
        protocol: Protocol::Udp,
        host: host.map(|host| host.parse().unwrap()),
        host_port: 5353,
        pod: POD.parse().unwrap(),
        pod_port: 53,
    }
}

/// Whether a packet arrives: the kernel delivers within the call that sends.
fn arrives(client: &UdpSocket, server: &UdpSocket) -> bool {
    let _ = client.send(b"x");
    let mut buffer = [0; 8];
    match server.recv_from(&mut buffer) {
        Ok(_) => true,
        Err(error) if error.kind() == io::ErrorKind::WouldBlock => false,
        Err(error) => panic!("{error}"),
    }
}

#[test]
fn a_flow_follows_the_map_once_it_is_forgotten_and_others_stay() {
    in_own_network(|| {
        run("ip", &["link", "set", "lo", "up"]);
        for address in [HOST, POD, "192.0.2.9"] {
            run("ip", &["address", "add", &format!("{address}/32"), "dev", "lo"]);
        }
        let server = |address: &str| {
            let server = UdpSocket::bind(address).unwrap();
            server.set_nonblocking(true).unwrap();
            server.set_read_timeout(Some(Duration::from_secs(1))).unwrap();
            server
        };
        let client = |address: &str| {
            let client = UdpSocket::bind((HOST, 0)).unwrap();
            client.connect(address).unwrap();
            client
        };
        let (host, pod) = (server(&format!("{HOST}:5353")), server(&format!("{POD}:53")));
        let other = server("192.0.2.9:5353");
        let mut table = Nftables::open().unwrap();
        table.ensure().unwrap();
        let (flow, beside) = (client(&format!("{HOST}:5353")), client("192.0.2.9:5353"));
        assert!(arrives(&flow, &host) && arrives(&beside, &other));

        let maps = [map(Some(HOST))];
        table.add(&owner("a"), &[Entry::Port(maps[0].clone())]).unwrap();
        assert!(arrives(&flow, &host), "the kernel remembers the flow");
        let mut conntrack = Conntrack::open().unwrap();
        assert_eq!(conntrack.forget_before(&maps).unwrap(), 1);
        assert!(arrives(&flow, &pod), "the flow is led to the pod");
        assert!(arrives(&beside, &other), "another address was not mapped");
        assert_eq!(conntrack.forget_before(&maps).unwrap(), 0, "what is led to the pod stays");

        table.remove(&owner("a"), &[Entry::Port(maps[0].clone())]).unwrap();
        assert!(arrives(&flow, &pod), "the kernel remembers the flow");
        assert_eq!(conntrack.forget_led(&maps).unwrap(), 1);
        assert!(arrives(&flow, &host));

        // Of any address.
        let maps = [map(None)];
        table.add(&owner("a"), &[Entry::Port(maps[0].clone())]).unwrap();
        assert_eq!(conntrack.forget_before(&maps).unwrap(), 2);
        assert!(arrives(&flow, &pod) && arrives(&beside, &pod));
    });
}

//! What entries are in the table, and whose.

use coracle_nftables::{Entry, Error, Nftables, Owner, Part, PortMap, Protocol};

use crate::harness::{in_own_network, listed};
use crate::owner;

fn masquerade(address: &str) -> Entry {
    Entry::Masquerade(address.parse().unwrap())
}

pub(crate) fn port(
    host: Option<&str>,
    host_port: u16,
    protocol: Protocol,
    pod: &str,
    pod_port: u16,
) -> Entry {
    Entry::Port(PortMap {
        protocol,
        host: host.map(|host| host.parse().unwrap()),
        host_port,
        pod: pod.parse().unwrap(),
        pod_port,
    })
}

/// One of each kind, in both families.
fn all_of_a_pod() -> Vec<Entry> {
    let (pod4, pod6) = ("10.1.0.5", "fd00:1::5");
    let mut entries = vec![masquerade("10.1.0.5/16"), masquerade("fd00:1::5/64")];
    for (pod, host) in [(pod4, "192.0.2.1"), (pod6, "2001:db8::1")] {
        entries.push(port(None, 8080, Protocol::Tcp, pod, 80));
        entries.push(port(None, 5353, Protocol::Udp, pod, 53));
        entries.push(port(Some(host), 8080, Protocol::Sctp, pod, 80));
        let pod = pod.parse().unwrap();
        entries.push(Entry::MasqueradeClients { pod, protocol: Protocol::Udp, host_port: 5353 });
    }
    for pod in ["10.1.0.5/16", "fd00:1::5/64", "10.1.0.5/32", "fd00:1::5/128"] {
        let pod = pod.parse().unwrap();
        entries.push(Entry::Hairpin { pod, protocol: Protocol::Tcp, host_port: 8080 });
    }
    entries.push(Entry::GuardLoopback { interface: "cni0".to_owned(), of_pod: false });
    entries.push(Entry::GuardLoopback { interface: "veth0123456789a".to_owned(), of_pod: true });
    entries
}

#[test]
fn the_table_reads_as_it_is_meant() {
    in_own_network(|| {
        let mut table = Nftables::open().unwrap();
        table.add(&owner("0a-1"), &all_of_a_pod()).unwrap();
        insta::assert_snapshot!(listed());
    });
}

#[test]
fn what_is_added_is_there_and_what_is_removed_is_not() {
    in_own_network(|| {
        let mut table = Nftables::open().unwrap();
        let entries = all_of_a_pod();
        assert!(matches!(table.check(&owner("a"), &entries), Err(Error::Missing { .. })), "no table");
        table.ensure().unwrap();
        let empty = listed();
        table.add(&owner("a"), &entries).unwrap();
        table.check(&owner("a"), &entries).unwrap();
        let full = listed();
        table.add(&owner("a"), &entries).unwrap();
        assert_eq!(listed(), full, "adding again changes nothing");
        let others = table.check(&owner("b"), &entries).unwrap_err();
        assert!(
            matches!(&others, Error::Missing { missing } if missing[0] == "masquerading of 10.1.0.5"),
            "{others}"
        );

        table.remove(&owner("b"), &entries).unwrap();
        assert_eq!(listed(), full, "another's is not removed");
        table.remove(&owner("a"), &entries).unwrap();
        table.remove(&owner("a"), &entries).unwrap();
        let pod = "10.1.0.9/16".parse().unwrap();
        table.add(&owner("b"), &[Entry::Hairpin { pod, protocol: Protocol::Tcp, host_port: 1 }]).unwrap();
        assert_eq!(table.gc("pods", &[], Part::Masquerade).unwrap().elements, 1, "a subnet of nobody");
        table.remove_all(&owner("b"), Part::Ports).unwrap();
        assert_eq!(
            table.gc("pods", &[], Part::Ports).unwrap().elements,
            2,
            "the other, and the guard of an interface that is gone"
        );
        assert_eq!(listed(), empty);
    });
}

#[test]
fn all_of_an_attachment_is_found_by_its_comments() {
    in_own_network(|| {
        let mut table = Nftables::open().unwrap();
        table.add(&owner("a"), &all_of_a_pod()).unwrap();
        let other = [masquerade("10.1.0.6/16"), port(None, 81, Protocol::Tcp, "10.1.0.6", 80)];
        table.add(&owner("b"), &other).unwrap();
        table.remove_all(&owner("a"), Part::Masquerade).unwrap();
        assert_eq!(table.owners(Part::Masquerade).unwrap(), [owner("b")].into());
        assert_eq!(table.owners(Part::Ports).unwrap(), [owner("a"), owner("b")].into());
        let removed = table.remove_all(&owner("a"), Part::Ports).unwrap();
        let ports: Vec<Entry> = removed.ports.into_iter().map(Entry::Port).collect();
        let had: Vec<Entry> =
            all_of_a_pod().into_iter().filter(|entry| matches!(entry, Entry::Port(_))).collect();
        assert!(ports.len() == had.len() && ports.iter().all(|port| had.contains(port)), "{ports:?}");
        assert_eq!(table.owners(Part::Ports).unwrap(), [owner("b")].into());
        table.check(&owner("b"), &other).unwrap();
    });
}

#[test]
fn a_port_that_another_has_is_refused_by_its_name_and_nothing_is_added() {
    in_own_network(|| {
        let mut table = Nftables::open().unwrap();
        table.add(&owner("a"), &[port(None, 8080, Protocol::Tcp, "10.1.0.5", 80)]).unwrap();
        let before = listed();
        let entries = [
            port(None, 8081, Protocol::Tcp, "10.1.0.6", 80),
            port(None, 8080, Protocol::Tcp, "10.1.0.6", 80),
            port(None, 8082, Protocol::Tcp, "10.1.0.6", 80),
        ];
        let refused = table.add(&owner("b"), &entries).unwrap_err();
        assert_eq!(
            refused.to_string(),
            "host port 8080/TCP is taken by container a (network pods, interface eth0): remove that, or ask for another \
             one"
        );
        assert_eq!(listed(), before);
        // Another protocol, and one address, are other ports.
        let others = [
            port(None, 8080, Protocol::Udp, "10.1.0.6", 80),
            port(Some("192.0.2.1"), 8080, Protocol::Tcp, "10.1.0.6", 80),
        ];
        table.add(&owner("b"), &others).unwrap();
    });
}

#[test]
fn a_port_of_the_same_attachment_may_lead_elsewhere() {
    in_own_network(|| {
        let mut table = Nftables::open().unwrap();
        table.add(&owner("a"), &[port(None, 8080, Protocol::Tcp, "10.1.0.5", 80)]).unwrap();
        let entries = [port(None, 8080, Protocol::Tcp, "10.1.0.9", 90)];
        table.add(&owner("a"), &entries).unwrap();
        table.check(&owner("a"), &entries).unwrap();
        assert!(listed().contains("10.1.0.9 . 90") && !listed().contains("10.1.0.5"), "{}", listed());
    });
}

#[test]
fn an_address_belongs_to_whoever_has_it_now() {
    in_own_network(|| {
        let mut table = Nftables::open().unwrap();
        let entries = [masquerade("10.1.0.5/16")];
        table.add(&owner("gone"), &entries).unwrap();
        table.add(&owner("new"), &entries).unwrap();
        table.check(&owner("new"), &entries).unwrap();
        table.remove(&owner("gone"), &entries).unwrap();
        table.check(&owner("new"), &entries).unwrap();
    });
}

#[test]
fn what_no_valid_attachment_has_is_collected_of_one_network_only() {
    in_own_network(|| {
        let mut table = Nftables::open().unwrap();
        for (network, id, address) in [("pods", "a", 5), ("pods", "b", 6), ("podsx", "c", 7)] {
            let owner = Owner::new(network, id, "eth0").unwrap();
            let entries = [masquerade(&format!("10.1.0.{address}/16"))];
            table.add(&owner, &entries).unwrap();
        }
        let valid = [("b".to_owned(), "eth0".to_owned()), ("a".to_owned(), "eth1".to_owned())];
        assert_eq!(table.gc("pods", &valid, Part::Masquerade).unwrap().elements, 1);
        let left: Vec<String> =
            table.owners(Part::Masquerade).unwrap().iter().map(ToString::to_string).collect();
        assert_eq!(left, ["pods/b/eth0", "podsx/c/eth0"]);
        assert!(listed().contains("10.1.0.0/16 . 10.1.0.0/16"), "others are in that subnet: {}", listed());
    });
}

#[test]
fn of_subnets_within_each_other_the_wider_one_counts() {
    in_own_network(|| {
        let mut table = Nftables::open().unwrap();
        let pods = [("a", "10.1.0.5/24"), ("b", "10.1.9.5/16"), ("c", "10.1.3.5/24"), ("d", "10.1.4.5/32")];
        for (id, address) in pods {
            let entries = [masquerade(address)];
            table.add(&owner(id), &entries).unwrap();
            table.add(&owner(id), &entries).unwrap();
            table.check(&owner(id), &entries).unwrap();
        }
        let listed = listed();
        assert!(listed.contains("elements = { 10.1.0.0/16 . 10.1.0.0/16 }"), "{listed}");
    });
}

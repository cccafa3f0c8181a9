//! Links and their addresses.

use std::os::fd::AsFd;

use coracle_netlink::{
    Address, AddressOptions, Batch, Bridge, Family, Link, LinkChange, LinkId, MacAddress, Peer, Protocol,
    Socket, Veth,
};
use rustix::io::Errno;

use coracle_tests::namespaces::{Namespace, in_own_network};

const BRIDGE_MAC: MacAddress = MacAddress([2, 0, 0, 0, 0, 1]);
const POD_MAC: MacAddress = MacAddress([2, 0, 0, 0, 0, 2]);

#[test]
fn a_pair_is_made_into_its_bridge_and_its_namespace_at_once() {
    in_own_network(|| {
        let pod = Namespace::new();
        let mut here = Socket::open(Protocol::Route).unwrap();
        let mut batch = Batch::new();
        let bridge = Bridge { name: "br", mac: BRIDGE_MAC, mtu: Some(1400), vlan_filtering: false };
        batch.create_bridge(&bridge);
        batch.get_link(LinkId::Name("br"));
        let bridge = Link::read(&here.execute(batch).unwrap()[0]).unwrap();
        assert_eq!((bridge.name.as_str(), bridge.kind.as_str()), ("br", "bridge"));
        assert_eq!((bridge.mac, bridge.mtu, bridge.up), (Some(BRIDGE_MAC), 1400, true));

        let mut batch = Batch::new();
        let peer = Peer { name: "eth0", namespace: pod.as_fd(), mac: Some(POD_MAC) };
        batch.create_veth(&Veth { name: "veth1", controller: Some(bridge.index), mtu: Some(1300), peer });
        let change = LinkChange {
            alias: Some("of a pod"),
            hairpin: Some(true),
            isolated: Some(true),
            ..Default::default()
        };
        batch.change_link(LinkId::Name("veth1"), &change);
        batch.get_link(LinkId::Name("veth1"));
        let host = Link::read(&here.execute(batch).unwrap()[0]).unwrap();
        assert_eq!((host.kind.as_str(), host.alias.as_str()), ("veth", "of a pod"));
        assert_eq!((host.controller, host.mtu, host.up), (Some(bridge.index), 1300, true));
        assert!(host.hairpin && host.isolated);
        // A bridge is as its lowest port can.
        assert_eq!(here.link(LinkId::Name("br")).unwrap().unwrap().mtu, 1300);
        assert_eq!(here.link(LinkId::Name("br")).unwrap().unwrap().mac, Some(BRIDGE_MAC));

        let mut there = Socket::open_in(Protocol::Route, pod.as_fd()).unwrap();
        let inside = there.link(LinkId::Name("eth0")).unwrap().unwrap();
        assert_eq!(Some(inside.index), host.peer);
        assert_eq!((inside.mac, inside.mtu, inside.up), (Some(POD_MAC), 1300, false));
        assert_eq!(there.links().unwrap().len(), 2);
        assert_eq!(here.links().unwrap().len(), 3);

        // The other end goes with the first.
        here.remove_link(LinkId::Index(host.index)).unwrap();
        assert_eq!(there.link(LinkId::Name("eth0")).unwrap(), None);
        here.remove_link(LinkId::Name("veth1")).unwrap();
    });
}

#[test]
fn what_is_there_is_not_made_again() {
    in_own_network(|| {
        let mut here = Socket::open(Protocol::Route).unwrap();
        let bridge = Bridge { name: "br", mac: BRIDGE_MAC, mtu: None, vlan_filtering: false };
        for expected in [None, Some(Errno::EXIST)] {
            let mut batch = Batch::new();
            batch.create_bridge(&bridge);
            assert_eq!(here.execute(batch).err().and_then(|error| error.errno()), expected);
        }
    });
}

#[test]
fn a_link_is_changed_as_asked_and_no_more() {
    in_own_network(|| {
        let pod = Namespace::new();
        let mut here = Socket::open(Protocol::Route).unwrap();
        let mut batch = Batch::new();
        let peer = Peer { name: "eth0", namespace: pod.as_fd(), mac: None };
        batch.create_veth(&Veth { name: "veth1", controller: None, mtu: None, peer });
        here.execute(batch).unwrap();

        let mut there = Socket::open_in(Protocol::Route, pod.as_fd()).unwrap();
        let before = there.link(LinkId::Name("eth0")).unwrap().unwrap();
        assert!(!before.up && !before.promiscuous && !before.all_multicast && before.mtu == 1500);
        let mut change = |change: LinkChange<'_>| {
            let mut batch = Batch::new();
            batch.change_link(LinkId::Index(before.index), &change);
            there.execute(batch).unwrap();
            there.link(LinkId::Name("eth0")).unwrap().unwrap()
        };
        let all = LinkChange {
            promiscuous: Some(true),
            all_multicast: Some(true),
            mac: Some(POD_MAC),
            mtu: Some(1234),
            transmit_queue_length: Some(77),
            ..Default::default()
        };
        let after = change(all);
        let expected = Link {
            promiscuous: true,
            all_multicast: true,
            mac: Some(POD_MAC),
            mtu: 1234,
            transmit_queue_length: 77,
            ..before.clone()
        };
        assert_eq!(after, expected);
        let back = LinkChange { promiscuous: Some(false), up: Some(true), ..Default::default() };
        assert_eq!(change(back), Link { promiscuous: false, up: true, ..expected });
    });
}

#[test]
fn addresses_are_usable_at_once_and_listed_by_link() {
    in_own_network(|| {
        let mut here = Socket::open(Protocol::Route).unwrap();
        let mut batch = Batch::new();
        batch.create_bridge(&Bridge { name: "one", mac: BRIDGE_MAC, mtu: None, vlan_filtering: false });
        batch.create_bridge(&Bridge { name: "two", mac: POD_MAC, mtu: None, vlan_filtering: false });
        here.execute(batch).unwrap();
        let [one, two] = ["one", "two"].map(|name| here.link(LinkId::Name(name)).unwrap().unwrap().index);
        let [four, six] = ["10.1.2.3/24", "fd00::3/64"].map(|text| text.parse().unwrap());
        let mut batch = Batch::new();
        for address in [four, six] {
            batch.add_address(one, address, AddressOptions::default());
            // Again: it stays.
            batch.add_address(one, address, AddressOptions::default());
        }
        let exclusive = AddressOptions { exclusive: true, ..Default::default() };
        let again = batch.add_address(one, four, exclusive);
        let options = AddressOptions { no_prefix_route: true, detect_duplicates: true, exclusive: true };
        batch.add_address(two, "fd01::1/64".parse().unwrap(), options);
        batch.add_address(two, "10.2.0.1/24".parse().unwrap(), options);
        here.attempt(batch).unwrap().tolerate(again, Errno::EXIST).into_result().unwrap();

        let found = |socket: &mut Socket, link| {
            let mut all = socket.addresses(Some(link)).unwrap();
            all.retain(|address| address.global);
            all.sort_by_key(|address| address.address);
            all
        };
        let address = |address| Address { link: one, address, global: true, usable: true, removed: false };
        assert_eq!(found(&mut here, one), [address(four), address(six)]);
        // Duplicates of it are still looked for.
        let of_two = found(&mut here, two);
        assert_eq!((of_two.len(), of_two[0].usable, of_two[1].usable), (2, true, false));
        let routes = here.routes().unwrap();
        assert!(routes.iter().any(|route| route.link == Some(one) && route.destination == four.trunc()));
        assert!(!routes.iter().any(|route| route.link == Some(two) && route.destination.addr().is_ipv4()));

        let mut batch = Batch::new();
        batch.delete_address(one, four);
        here.execute(batch).unwrap();
        assert_eq!(found(&mut here, one), [address(six)]);
    });
}

#[test]
fn forwarding_is_told_by_family() {
    in_own_network(|| {
        let mut socket = Socket::open(Protocol::Route).unwrap();
        let told =
            |socket: &mut Socket| [Family::Ipv4, Family::Ipv6].map(|family| socket.forwards(family).unwrap());
        for (ipv4, ipv6) in [(false, false), (true, false), (true, true), (false, true)] {
            std::fs::write("/proc/sys/net/ipv4/ip_forward", u8::from(ipv4).to_string()).unwrap();
            std::fs::write("/proc/sys/net/ipv6/conf/all/forwarding", u8::from(ipv6).to_string()).unwrap();
            assert_eq!(told(&mut socket), [ipv4, ipv6]);
        }
    });
}

//! Routes.

use std::process::Command;

use coracle_netlink::{Batch, Bridge, LinkId, MacAddress, Protocol, Route, Socket};
use rustix::io::Errno;

use coracle_tests::namespaces::in_own_network;

fn ip(arguments: &str) {
    let status = Command::new("ip").args(arguments.split(' ')).status().unwrap();
    assert!(status.success(), "ip {arguments}");
}

/// Bridges by their names, each with an MTU of its own. They have an address each.
fn bridge(socket: &mut Socket, name: &str, number: u8, mtu: u32) -> u32 {
    let mut batch = Batch::new();
    let mac = MacAddress([2, 0, 0, 0, 1, number]);
    batch.create_bridge(&Bridge { name, mac, mtu: Some(mtu), vlan_filtering: false });
    socket.execute(batch).unwrap();
    ip(&format!("address add 10.{number}.0.1/16 dev {name}"));
    ip(&format!("address add fd00:{number}::1/32 dev {name} nodad"));
    socket.link(LinkId::Name(name)).unwrap().unwrap().index
}

#[test]
fn a_route_is_as_it_was_asked_for() {
    in_own_network(|| {
        let mut socket = Socket::open(Protocol::Route).unwrap();
        assert_eq!(socket.routes().unwrap(), [], "where nobody has made one");
        let link = bridge(&mut socket, "br", 1, 1500);
        let all = [
            Route::new("192.168.7.0/24".parse().unwrap(), link, Some("10.1.0.9".parse().unwrap())),
            Route::new("0.0.0.0/0".parse().unwrap(), link, Some("10.1.0.9".parse().unwrap())),
            Route::new("::/0".parse().unwrap(), link, Some("fd00:1::9".parse().unwrap())),
            Route {
                mtu: Some(1400),
                advmss: Some(1300),
                priority: Some(7),
                source: Some("10.1.0.1".parse().unwrap()),
                ..Route::new("192.168.8.0/24".parse().unwrap(), link, None)
            },
            Route {
                on_link: true,
                ..Route::new("192.168.9.0/24".parse().unwrap(), link, Some("10.77.0.1".parse().unwrap()))
            },
            Route { table: Some(1000), ..Route::new("192.168.10.0/24".parse().unwrap(), link, None) },
            Route { scope: Some(254), ..Route::new("192.168.11.0/24".parse().unwrap(), link, None) },
        ];
        let mut batch = Batch::new();
        for route in &all {
            batch.add_route(route);
            batch.replace_route(route);
        }
        let again = batch.add_route(&all[0]);
        let outcome = socket.attempt(batch).unwrap();
        assert!(outcome.tolerate(again, Errno::EXIST).into_result().unwrap().is_empty());

        let found = socket.routes().unwrap();
        let find = |route: &Route| found.iter().find(|found| found.destination == route.destination).copied();
        for route in &all[..4] {
            let there = find(route).unwrap();
            assert_eq!((there.link, there.gateway), (Some(link), route.gateway), "{route:?}");
            assert_eq!((there.mtu, there.advmss), (route.mtu, route.advmss), "{route:?}");
        }
        assert_eq!(
            (find(&all[3]).unwrap().priority, find(&all[3]).unwrap().source),
            (Some(7), all[3].source)
        );
        assert_eq!(find(&all[4]).unwrap().gateway, all[4].gateway);
        assert_eq!(find(&all[5]), None, "it is in another table");
        assert_eq!(find(&all[6]).unwrap().scope, Some(254));

        let mut batch = Batch::new();
        batch.delete_route(&all[3]);
        batch.get_route("192.168.7.8".parse().unwrap());
        let matching = Route::read(&socket.execute(batch).unwrap()[0]).unwrap();
        assert_eq!(matching.destination, all[0].destination);
        assert!(socket.routes().unwrap().iter().all(|found| found.destination != all[3].destination));
    });
}

#[test]
fn the_way_out_carries_what_its_links_can() {
    in_own_network(|| {
        let mut socket = Socket::open(Protocol::Route).unwrap();
        bridge(&mut socket, "four", 1, 1450);
        bridge(&mut socket, "six", 2, 1420);
        bridge(&mut socket, "other", 3, 1300);
        assert_eq!(socket.default_route_mtu().unwrap(), None);
        ip("route add default via 10.1.0.9");
        assert_eq!(socket.default_route_mtu().unwrap(), Some(1450));
        ip("route add default via fd00:2::9");
        assert_eq!(socket.default_route_mtu().unwrap(), Some(1420));
        // Routes to addresses for documentation make no difference.
        ip("route add 192.0.2.0/24 via 10.3.0.9");
        ip("route add blackhole 198.51.100.0/24");
        assert_eq!(socket.default_route_mtu().unwrap(), Some(1420));
        ip("route add 0.0.0.0/0 via 10.3.0.9 metric 9");
        assert_eq!(socket.default_route_mtu().unwrap(), Some(1420), "the first one by its metric is used");
        ip("route change default via 10.1.0.9 mtu 1280");
        assert_eq!(socket.default_route_mtu().unwrap(), Some(1280));
    });
}

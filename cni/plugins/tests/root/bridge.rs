//! bridge.

use std::net::IpAddr;
use std::thread;

use coracle_cni::{AddResult, code};
use coracle_cni_plugins::PLUGINS;
use serde_json::{Value, json};

use crate::harness::{Node, Pod, add, eventually, gc, on_a_node, reaches, status};

const DUAL: [&str; 2] = ["10.85.1.0/24", "fd00:85:1::/64"];

fn default_network(node: &Node, ranges: &[&str]) -> Value {
    let routes: Vec<Value> = ranges
        .iter()
        .map(|range| json!({"dst": if range.contains(':') { "::/0" } else { "0.0.0.0/0" }}))
        .collect();
    let mut config = node.config("bridge", ranges, json!({"bridge": "br", "isGateway": true}));
    config["ipam"]["routes"] = json!(routes);
    config
}

fn links(of: &crate::harness::Place) -> usize {
    of.run("ip -o link").lines().count()
}

#[test]
fn pods_and_node_reach_each_other_with_both_families_and_with_ipv6_alone() {
    on_a_node(|node| {
        for (index, ranges) in [&DUAL[..], &["fd00:85:2::/64"], &["10.85.3.0/24"]].into_iter().enumerate() {
            let mut config = default_network(node, ranges);
            config["name"] = json!(format!("net{index}"));
            config["bridge"] = json!(format!("br{index}"));
            let pods = [Pod::new("one"), Pod::new("two")];
            let results = [pods[0].add(&config).unwrap(), pods[1].add(&config).unwrap()];
            for (at, range) in ranges.iter().enumerate() {
                let [one, two] = [0, 1].map(|pod: usize| Pod::addresses(&results[pod])[at]);
                let gateway = results[0].ips[at].gateway.unwrap();
                assert_eq!(reaches(&pods[0].place, &pods[1].place, two), one, "{range}");
                assert_eq!(reaches(&node.place, &pods[0].place, one), gateway, "{range}");
                assert_eq!(reaches(&pods[1].place, &node.place, gateway), two, "{range}");
            }
            for (pod, result) in pods.iter().zip(&results) {
                pod.check(&config, result).unwrap();
                pod.del(&config).unwrap();
            }
        }
    });
}

#[test]
fn the_result_has_the_shape_of_the_reference_plugins() {
    on_a_node(|node| {
        let config = default_network(node, &DUAL);
        let pod = Pod::new("one");
        // What a new network namespace begins with is the first one's.
        let forwards = pod.place.sysctl("ipv4/ip_forward");
        let mut call = pod.call(&config);
        call.config.runtime_config.insert("mac".to_owned(), json!("02:11:22:33:44:55"));
        let result = add(&call).unwrap();
        let [bridge, host, inside] = result.interfaces.as_slice() else { panic!("{result:?}") };
        assert_eq!((bridge.name.as_str(), bridge.sandbox.as_str()), ("br", ""));
        assert!(host.name.starts_with("veth") && host.sandbox.is_empty(), "{host:?}");
        assert_eq!((inside.name.as_str(), inside.sandbox.as_str()), ("eth0", pod.place.path.as_str()));
        assert_eq!(inside.mac, "02:11:22:33:44:55");
        let shown = |place: &crate::harness::Place, name: &str| place.run(&format!("ip -o link show {name}"));
        for (place, interface) in [(&node.place, bridge), (&node.place, host), (&pod.place, inside)] {
            assert!(shown(place, &interface.name).contains(&interface.mac), "{interface:?}");
            assert!(shown(place, &interface.name).contains(&format!("mtu {}", interface.mtu.unwrap())));
        }
        let ips: Vec<_> =
            result.ips.iter().map(|ip| (ip.interface, ip.address.to_string(), ip.gateway)).collect();
        let expected =
            |address: &str, gateway: &str| (Some(2), address.to_owned(), Some(gateway.parse().unwrap()));
        let expected = [expected("10.85.1.2/24", "10.85.1.1"), expected("fd00:85:1::2/64", "fd00:85:1::1")];
        assert_eq!(ips, expected);
        assert_eq!(
            result.routes.iter().map(|route| route.dst.to_string()).collect::<Vec<_>>(),
            ["0.0.0.0/0", "::/0"]
        );
        // What the kernel is told.
        assert!(pod.place.run("ip route").contains("default via 10.85.1.1 dev eth0"));
        assert!(pod.place.run("ip -6 route").contains("default via fd00:85:1::1 dev eth0"));
        assert!(!pod.place.run("ip -6 address").contains("tentative"));
        assert_eq!(pod.place.sysctl("ipv6/conf/eth0/accept_ra"), "0");
        assert_eq!(pod.place.sysctl("ipv6/conf/eth0/autoconf"), "0");
        assert_eq!(node.place.sysctl("ipv4/ip_forward"), "1");
        assert_eq!(node.place.sysctl("ipv6/conf/all/forwarding"), "1");
        assert_eq!(pod.place.sysctl("ipv4/ip_forward"), forwards, "the pod's own");
        assert!(shown(&node.place, &host.name).contains("alias coracle:net/one/eth0"));
    });
}

#[test]
fn del_leaves_nothing_and_can_be_called_again() {
    on_a_node(|node| {
        let config = default_network(node, &DUAL);
        let (before, pod) = (links(&node.place), Pod::new("one"));
        for round in 0..2 {
            pod.add(&config).unwrap();
            assert_eq!(node.given("net").len(), 2);
            // The second time as if the namespace was gone.
            let mut call = pod.call(&config);
            if round == 1 {
                call.netns = None;
            }
            for _ in 0..2 {
                PLUGINS.del("bridge", &call).unwrap();
            }
            assert_eq!(node.given("net"), [""; 0]);
            assert_eq!(links(&node.place), before + 1, "only the bridge stays");
            assert_eq!(links(&pod.place), 1);
        }
    });
}

#[test]
fn del_needs_no_configuration_that_is_right() {
    on_a_node(|node| {
        let right = default_network(node, &DUAL);
        let mut wrong = right.clone();
        (wrong["mtu"], wrong["vlan"], wrong["ipMasq"]) = (json!("large"), json!(-1), json!("yes"));
        wrong["args"] = json!({"cni": {"mac": "none"}});
        for kind in ["bridge", "ptp"] {
            let pod = Pod::new("one");
            (wrong["type"], wrong["name"]) = (json!(kind), json!(kind));
            let mut right = right.clone();
            (right["type"], right["name"]) = (json!(kind), json!(kind));
            pod.add(&right).unwrap();
            pod.add(&wrong).unwrap_err();
            pod.del(&wrong).unwrap();
            gc(&wrong, &[]).unwrap();
            assert_eq!(node.given(kind), [""; 0]);
            assert_eq!(links(&pod.place), 1);
        }
    });
}

#[test]
fn duplicates_are_looked_for_where_that_is_configured() {
    on_a_node(|node| {
        let mut config = default_network(node, &DUAL);
        config["enabledad"] = json!(true);
        let pods = [Pod::new("one"), Pod::new("two")];
        let results = pods.each_ref().map(|pod| pod.add(&config).unwrap());
        assert_eq!(pods[0].place.sysctl("ipv6/conf/eth0/accept_dad"), "1");
        // Nor can the other pod send from its own before.
        for pod in &pods {
            eventually("the address is nobody else's", || {
                !pod.place.run("ip -6 address").contains("tentative")
            });
        }
        assert!(pods[1].place.pings(Pod::addresses(&results[0])[1]));
    });
}

#[test]
fn del_leaves_the_pair_to_a_namespace_that_ends() {
    on_a_node(|node| {
        let config = default_network(node, &DUAL);
        let pod = Pod::new("one");
        pod.add(&config).unwrap();
        let with = links(&node.place);
        let mut call = pod.call(&config);
        call.namespace_ends = true;
        PLUGINS.del("bridge", &call).unwrap();
        assert_eq!(node.given("net"), [""; 0]);
        assert_eq!(links(&node.place), with);
        drop(pod);
        eventually("the pair is gone", || links(&node.place) == with - 1);
    });
}

#[test]
fn an_add_that_fails_takes_back_what_it_has_done() {
    on_a_node(|node| {
        let mut config = default_network(node, &["10.85.1.0/24"]);
        // A route over somebody who is not on the link.
        config["ipam"]["routes"] = json!([{"dst": "192.168.0.0/24", "gw": "172.30.0.1"}]);
        let pod = Pod::new("one");
        let error = pod.add(&config).unwrap_err();
        assert_eq!(error.code, code::KERNEL);
        assert!(
            error.msg.starts_with("network net: bridge: set the route to 192.168.0.0/24 over 172.30.0.1: "),
            "{error}"
        );
        assert_eq!(node.given("net"), [""; 0]);
        assert_eq!(links(&pod.place), 1);
        assert!(!node.place.run("ip -o link").contains("veth"));
    });
}

#[test]
fn an_add_that_did_not_come_to_its_end_is_in_nobodys_way() {
    on_a_node(|node| {
        let config = default_network(node, &DUAL);
        let pod = Pod::new("one");
        let first = pod.add(&config).unwrap();
        let second = pod.add(&config).unwrap();
        assert_eq!(Pod::addresses(&first), Pod::addresses(&second));
        assert_eq!(links(&pod.place), 2);
        reaches(&node.place, &pod.place, Pod::addresses(&second)[0]);
        // That of somebody else is.
        let other = Pod::new("two");
        other.place.run("ip link add eth0 type bridge");
        let error = other.add(&config).unwrap_err();
        assert!(error.msg.contains("there is an interface eth0 in the network namespace already"), "{error}");
    });
}

#[test]
fn check_sees_damage() {
    on_a_node(|node| {
        let config = {
            let mut config = default_network(node, &DUAL);
            config["hairpinMode"] = json!(true);
            config["ipMasq"] = json!(true);
            config
        };
        let damages: [(&str, &str, bool); 9] = [
            ("ip address del 10.85.1.2/24 dev eth0", "has lost its address 10.85.1.2/24", true),
            ("ip route del default", "the route to 0.0.0.0/0 is missing", true),
            ("ip link set eth0 down", "eth0 is down", true),
            ("ip link set eth0 address 02:00:00:00:00:99", "hardware address 02:00:00:00:00:99", true),
            ("ip link set eth0 mtu 1300", "has the MTU 1300", true),
            ("ip link set HOST nomaster", "is no port of the bridge br", false),
            ("bridge link set dev HOST hairpin off", "sends nothing back", false),
            ("ip address del 10.85.1.1/24 dev br", "br has lost its address 10.85.1.1/24", false),
            ("ip link del HOST", "there is no interface veth", false),
        ];
        for (command, expected, inside) in damages {
            let pod = Pod::new("one");
            let result = pod.add(&config).unwrap();
            pod.check(&config, &result).unwrap();
            let command = command.replace("HOST", &result.interfaces[1].name);
            if inside {
                pod.place.run(&command)
            } else {
                node.place.run(&command)
            };
            let error = pod.check(&config, &result).unwrap_err();
            assert_eq!(error.code, code::CHECK_FAILED, "{error}");
            assert!(error.msg.contains(expected), "{command}: {error}");
            pod.del(&config).unwrap();
        }
        let pod = Pod::new("one");
        let result = pod.add(&config).unwrap();
        let other = AddResult { interfaces: Vec::new(), ..result };
        assert!(pod.check(&config, &other).unwrap_err().msg.contains("is not in prevResult"));
    });
}

#[test]
fn gc_collects_pairs_and_addresses_of_pods_that_are_gone() {
    on_a_node(|node| {
        let config = default_network(node, &DUAL);
        let other_config = {
            let mut config = default_network(node, &["10.86.0.0/24"]);
            (config["name"], config["bridge"]) = (json!("other"), json!("br2"));
            config
        };
        let pods = [Pod::new("one"), Pod::new("two"), Pod::new("three")];
        let results = pods.each_ref().map(|pod| pod.add(&config).unwrap());
        let other = Pod::new("one");
        let of_other = other.add(&other_config).unwrap();
        gc(&config, &[("two", "eth0"), ("one", "eth1")]).unwrap();
        let there = node.place.run("ip -o link");
        let is_there = |result: &AddResult| there.contains(&result.interfaces[1].name);
        assert_eq!(results.each_ref().map(is_there), [false, true, false]);
        assert!(is_there(&of_other));
        assert_eq!(
            node.given("net"),
            Pod::addresses(&results[1]).iter().map(IpAddr::to_string).collect::<Vec<_>>()
        );
        assert_eq!(node.given("other").len(), 1);
        pods[1].check(&config, &results[1]).unwrap();
    });
}

#[test]
fn a_hundred_adds_at_once_give_a_hundred_pods() {
    on_a_node(|node| {
        let config = default_network(node, &DUAL);
        let pods: Vec<Pod> = (0..100).map(|number| Pod::new(&format!("pod{number}"))).collect();
        let results: Vec<AddResult> = thread::scope(|scope| {
            let adds: Vec<_> = pods.iter().map(|pod| scope.spawn(|| pod.add(&config).unwrap())).collect();
            adds.into_iter().map(|add| add.join().unwrap()).collect()
        });
        let mut addresses: Vec<IpAddr> = results.iter().flat_map(Pod::addresses).collect();
        addresses.sort();
        addresses.dedup();
        assert_eq!(addresses.len(), 200);
        for (pod, result) in pods.iter().zip(&results) {
            pod.check(&config, result).unwrap();
        }
        let (first, last) = (&results[0], &results[99]);
        for family in 0..2 {
            reaches(&pods[0].place, &pods[99].place, Pod::addresses(last)[family]);
            reaches(&node.place, &pods[0].place, Pod::addresses(first)[family]);
        }
        thread::scope(|scope| {
            for pod in &pods {
                scope.spawn(|| pod.del(&config).unwrap());
            }
        });
        assert_eq!(node.given("net"), [""; 0]);
        assert!(!node.place.run("ip -o link").contains("veth"));
    });
}

#[test]
fn an_address_that_comes_to_be_another_pods_is_reached_at_once() {
    on_a_node(|node| {
        let mut config = default_network(node, &DUAL);
        // One address alone, so it is given again.
        config["ipam"]["ranges"] = json!([
            [{"subnet": DUAL[0], "rangeStart": "10.85.1.9", "rangeEnd": "10.85.1.10"}],
            [{"subnet": DUAL[1], "rangeStart": "fd00:85:1::9", "rangeEnd": "fd00:85:1::a"}],
        ]);
        let other = Pod::new("other");
        other.add(&config).unwrap();
        for round in 0..4 {
            let pod = Pod::new(&format!("pod{round}"));
            let mut call = pod.call(&config);
            // The addresses tell the hardware address, and then they do not.
            if round > 1 {
                let mac = format!("02:00:00:00:00:0{round}");
                call.config.runtime_config.insert("mac".to_owned(), json!(mac));
            }
            let result = add(&call).unwrap();
            for address in Pod::addresses(&result) {
                // Not one of them is lost because the last pod's hardware address is still known.
                assert!(other.place.pings(address), "{address}");
                assert!(node.place.pings(address), "{address}");
            }
            pod.del(&config).unwrap();
        }
    });
}

#[test]
fn the_mtu_is_that_of_the_way_out_unless_one_is_configured() {
    on_a_node(|node| {
        let upstream = Pod::new("upstream");
        let name = &upstream.place.path.replace("/ns/net", "").replace("/proc/", "");
        node.place.run(&format!("ip link add up0 mtu 1420 type veth peer name up1 netns {name}"));
        node.place.run("ip address add 172.31.0.2/24 dev up0");
        node.place.run("ip link set up0 up");
        node.place.run("ip route add default via 172.31.0.1");
        let mtu = |config: &Value| {
            let pod = Pod::new("one");
            let result = pod.add(config).unwrap();
            pod.check(config, &result).unwrap();
            let shown = pod.place.run("ip -o link show eth0");
            pod.del(config).unwrap();
            let inside = result.interfaces[2].mtu.unwrap();
            assert!(shown.contains(&format!("mtu {inside} ")), "{shown}");
            (result.interfaces[0].mtu.unwrap(), inside)
        };
        assert_eq!(mtu(&default_network(node, &DUAL)), (1420, 1420));
        let mut config = default_network(node, &["10.87.0.0/24"]);
        (config["bridge"], config["name"], config["mtu"]) = (json!("br2"), json!("net2"), json!(9000));
        assert_eq!(mtu(&config), (9000, 9000));
    });
}

#[test]
fn what_came_from_a_pod_goes_back_to_it_in_hairpin_mode() {
    on_a_node(|node| {
        for (mode, expected) in [(true, "hairpin on"), (false, "hairpin off")] {
            let mut config = default_network(node, &DUAL);
            (config["hairpinMode"], config["portIsolation"]) = (json!(mode), json!(mode));
            let pod = Pod::new("one");
            let result = pod.add(&config).unwrap();
            let shown = node.place.run(&format!("bridge -d link show dev {}", result.interfaces[1].name));
            assert!(shown.contains(expected), "{shown}");
            assert!(shown.contains(if mode { "isolated on" } else { "isolated off" }), "{shown}");
            pod.check(&config, &result).unwrap();
            pod.del(&config).unwrap();
        }
        // Isolated pods do not reach each other, but the node.
        let mut config = default_network(node, &DUAL);
        config["portIsolation"] = json!(true);
        let pods = [Pod::new("one"), Pod::new("two")];
        let results = pods.each_ref().map(|pod| pod.add(&config).unwrap());
        assert!(!pods[0].place.pings(Pod::addresses(&results[1])[0]));
        assert!(node.place.pings(Pod::addresses(&results[1])[0]));
    });
}

#[test]
fn addresses_the_host_reaches_elsewhere_are_refused() {
    on_a_node(|node| {
        node.place.run("ip link add other type bridge");
        node.place.run("ip link set other up");
        let refused = |config: &Value, expected: &str| {
            let pod = Pod::new("one");
            let error = pod.add(config).unwrap_err();
            assert_eq!(error.code, code::INVALID_CONFIG, "{error}");
            assert!(error.msg.contains(expected), "{error}");
            assert_eq!(node.given("net"), [""; 0]);
        };
        let config = default_network(node, &["10.85.1.0/24"]);
        for (address, expected) in [
            (
                "10.85.1.77/26",
                "10.85.1.0/24 overlaps with 10.85.1.64/26, which this host reaches by interface",
            ),
            ("10.85.7.1/16", "10.85.1.0/24 overlaps with 10.85.0.0/16"),
        ] {
            node.place.run(&format!("ip address add {address} dev other"));
            refused(&config, expected);
            node.place.run(&format!("ip address del {address} dev other"));
        }
        // The way to other nodes' pods is no obstacle.
        node.place.run("ip address add 172.31.0.2/24 dev other");
        node.place.run("ip route add 10.85.0.0/16 via 172.31.0.1");
        let pod = Pod::new("one");
        pod.add(&config).unwrap();
        pod.del(&config).unwrap();

        // The bridge has another network's address now.
        let other = default_network(node, &["10.88.0.0/24"]);
        refused(&other, "the bridge br has the address 10.85.1.1/24 instead of 10.88.0.1/24");
        let mut forced = other;
        forced["forceAddress"] = json!(true);
        pod.add(&forced).unwrap();
        let addresses = node.place.run("ip address show br");
        assert!(addresses.contains("10.88.0.1/24") && !addresses.contains("10.85.1.1"), "{addresses}");
    });
}

#[test]
fn what_cannot_be_is_refused_with_the_fields_name() {
    on_a_node(|node| {
        node.place.run("ip link add ifb7 type ifb");
        let cases = [
            (json!({"macspoofchk": true}), "macspoofchk is not supported"),
            (json!({"hairpinMode": true, "promiscMode": true}), "hairpinMode and promiscMode"),
            (json!({"disableContainerInterface": true}), "disableContainerInterface and ipam"),
            (json!({"vlan": 5000, "isGateway": false}), "vlan must be from 1 to 4094"),
            (json!({"vlan": 5, "vlanTrunk": [{"id": 3}]}), "vlan and vlanTrunk"),
            (json!({"vlanTrunk": [{"minID": 9, "maxID": 3}]}), "vlanTrunk: minID and maxID"),
            (json!({"bridge": "much-too-long-for-a-bridge"}), "is no interface's name"),
            (json!({"bridge": "ifb7"}), "the interface ifb7 is no bridge"),
            (json!({"mtu": "large"}), "the configuration is wrong"),
            (json!({"args": {"cni": {"mac": "01:00:5e:00:00:01"}}}), "names no single interface"),
        ];
        for (more, expected) in cases {
            let mut config = default_network(node, &DUAL);
            config.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
            let error = Pod::new("one").add(&config).unwrap_err();
            assert_eq!(error.code, code::INVALID_CONFIG, "{error}");
            assert!(error.msg.contains(expected), "{error}");
        }
        assert_eq!(node.given("net"), [""; 0]);
    });
}

#[test]
fn a_network_without_addresses_is_a_link_alone() {
    on_a_node(|node| {
        let config = json!({
            "cniVersion": "1.1.0", "name": "net", "type": "bridge", "bridge": "br", "ipam": {},
            "disableContainerInterface": true,
        });
        status(&config).unwrap();
        let pod = Pod::new("one");
        let result = pod.add(&config).unwrap();
        assert_eq!((result.ips.len(), result.interfaces.len()), (0, 3));
        assert!(pod.place.run("ip -o link show eth0").contains("state DOWN"));
        pod.check(&config, &result).unwrap();
        pod.del(&config).unwrap();
        assert!(!node.place.run("ip -o link").contains("veth"));
    });
}

#[test]
fn pods_of_vlans_are_apart_where_the_kernel_knows_vlans() {
    on_a_node(|node| {
        let vlan = |more: Value| {
            let mut config = node.config("bridge", &["10.85.1.0/24"], json!({"bridge": "br"}));
            config.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
            config
        };
        let five = vlan(json!({"vlan": 5, "preserveDefaultVlan": false}));
        let pods = [Pod::new("one"), Pod::new("two"), Pod::new("three"), Pod::new("four")];
        let first = match pods[0].add(&five) {
            Ok(first) => first,
            Err(error) => {
                // It says what is missing, and leaves nothing.
                assert_eq!(error.code, code::INVALID_CONFIG, "{error}");
                assert!(error.msg.contains("need a kernel that filters VLANs on bridges"), "{error}");
                assert_eq!(node.given("net"), [""; 0]);
                assert!(!node.place.run("ip -o link").contains("br:"));
                return;
            }
        };
        let other = pods[1].add(&vlan(json!({"vlan": 6}))).unwrap();
        let same = pods[2].add(&five).unwrap();
        let trunk = vlan(json!({"vlanTrunk": [{"id": 5}, {"minID": 7, "maxID": 9}]}));
        let trunked = pods[3].add(&trunk).unwrap();
        assert!(pods[0].place.pings(Pod::addresses(&same)[0]));
        assert!(!pods[0].place.pings(Pod::addresses(&other)[0]));
        let vlans = |result: &AddResult| {
            let shown = node.place.run(&format!("bridge -j vlan show dev {}", result.interfaces[1].name));
            let shown: Value = serde_json::from_str(&shown).unwrap();
            let vlans = shown[0]["vlans"].as_array().unwrap().clone();
            vlans.iter().map(|vlan| vlan["vlan"].as_u64().unwrap()).collect::<Vec<_>>()
        };
        assert_eq!(vlans(&first), [5]);
        assert_eq!(vlans(&other), [1, 6]);
        assert_eq!(vlans(&trunked), [1, 5, 7, 8, 9]);
        pods[0].check(&five, &first).unwrap();
    });
}

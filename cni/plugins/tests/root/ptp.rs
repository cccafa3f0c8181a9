//! ptp.

use coracle_cni::code;
use coracle_cni_plugins::PLUGINS;
use serde_json::{Value, json};

use crate::harness::{Node, Pod, eventually, gc, on_a_node, reaches};

fn dual(node: &Node) -> Value {
    let mut config = node.config("ptp", &["10.86.1.0/24", "fd00:86:1::/64"], json!({}));
    config["ipam"]["routes"] = json!([{"dst": "0.0.0.0/0"}, {"dst": "::/0"}]);
    config
}

#[test]
fn pods_reach_each_other_and_the_node_over_the_node() {
    on_a_node(|node| {
        let config = dual(node);
        let pods = [Pod::new("one"), Pod::new("two")];
        let results = pods.each_ref().map(|pod| pod.add(&config).unwrap());
        for family in 0..2 {
            let [one, two] = [0, 1].map(|pod: usize| Pod::addresses(&results[pod])[family]);
            let gateway = results[0].ips[family].gateway.unwrap();
            assert_eq!(reaches(&pods[0].place, &pods[1].place, two), one);
            assert_eq!(reaches(&node.place, &pods[0].place, one), gateway);
            assert_eq!(reaches(&pods[1].place, &node.place, gateway), two);
        }
        let [host, inside] = results[0].interfaces.as_slice() else { panic!("{results:?}") };
        assert!(host.name.starts_with("veth") && host.sandbox.is_empty());
        assert_eq!((inside.name.as_str(), &inside.sandbox), ("eth0", &pods[0].place.path));
        assert!(results[0].ips.iter().all(|ip| ip.interface == Some(1)));
        // Others of the network are not on the link.
        let routes = pods[0].place.run("ip route");
        for route in ["default via 10.86.1.1", "10.86.1.0/24 via 10.86.1.1", "10.86.1.1 dev eth0 scope link"]
        {
            assert!(routes.contains(route), "{routes}");
        }
        for (pod, result) in pods.iter().zip(&results) {
            pod.check(&config, result).unwrap();
            for _ in 0..2 {
                pod.del(&config).unwrap();
            }
        }
        assert!(!node.place.run("ip -o link").contains("veth"));
        assert_eq!(node.given("net"), [""; 0]);
    });
}

#[test]
fn check_sees_damage_and_gc_collects() {
    on_a_node(|node| {
        let config = dual(node);
        let damages = [
            ("ip route del default", "the route to 0.0.0.0/0 is missing", true),
            ("ip address del ADDRESS/24 dev eth0", "has lost its address ADDRESS/24", true),
            ("ip route del ADDRESS", "the host has no route to ADDRESS by veth", false),
            ("ip address del fd00:86:1::1/128 dev HOST", "has lost its address fd00:86:1::1/128", false),
            ("ip link set HOST down", "is down", false),
        ];
        for (command, expected, inside) in damages {
            let pod = Pod::new("one");
            let result = pod.add(&config).unwrap();
            let address = Pod::addresses(&result)[0].to_string();
            let command = command.replace("HOST", &result.interfaces[0].name).replace("ADDRESS", &address);
            if inside {
                pod.place.run(&command)
            } else {
                node.place.run(&command)
            };
            let error = pod.check(&config, &result).unwrap_err();
            assert_eq!(error.code, code::CHECK_FAILED, "{error}");
            assert!(error.msg.contains(&expected.replace("ADDRESS", &address)), "{command}: {error}");
            pod.del(&config).unwrap();
        }
        let pods = [Pod::new("one"), Pod::new("two")];
        let results = pods.each_ref().map(|pod| pod.add(&config).unwrap());
        gc(&config, &[("one", "eth0")]).unwrap();
        let there = node.place.run("ip -o link");
        assert!(
            there.contains(&results[0].interfaces[0].name) && !there.contains(&results[1].interfaces[0].name)
        );
        assert_eq!(node.given("net").len(), 2);
    });
}

#[test]
fn an_address_comes_to_be_another_pods_while_the_pair_of_the_first_is_still_there() {
    on_a_node(|node| {
        let mut config = dual(node);
        config["ipam"]["ranges"] = json!([[
            {"subnet": "10.86.1.0/24", "rangeStart": "10.86.1.9", "rangeEnd": "10.86.1.9"}
        ]]);
        config["ipam"]["routes"] = json!([]);
        let first = Pod::new("one");
        let result = first.add(&config).unwrap();
        let mut call = first.call(&config);
        call.namespace_ends = true;
        PLUGINS.del("ptp", &call).unwrap();
        let second = Pod::new("two");
        let other = second.add(&config).unwrap();
        assert_eq!(Pod::addresses(&result), Pod::addresses(&other));
        reaches(&node.place, &second.place, Pod::addresses(&other)[0]);
        let host = &result.interfaces[0].name;
        drop(first);
        eventually("the first pair is gone", || !node.place.run("ip -o link").contains(host));
        reaches(&node.place, &second.place, Pod::addresses(&other)[0]);
        second.check(&config, &other).unwrap();
    });
}

#[test]
fn a_link_without_addresses_is_refused() {
    on_a_node(|node| {
        let config = json!({"cniVersion": "1.1.0", "name": "net", "type": "ptp", "ipam": {}});
        let error = Pod::new("one").add(&config).unwrap_err();
        assert_eq!(
            (error.code, error.msg.as_str()),
            (code::INVALID_CONFIG, "network net: ptp: ipam.type is missing")
        );
        assert!(!node.place.run("ip -o link").contains("veth"));
    });
}

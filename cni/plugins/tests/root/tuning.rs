//! tuning.

use coracle_cni::{AddResult, code};
use coracle_cni_plugins::PLUGINS;
use serde_json::{Value, json};

use crate::harness::{Node, Pod, add, gc, on_a_node};

fn tuned(node: &Node, more: Value) -> Value {
    let mut config = json!({
        "cniVersion": "1.1.0", "name": "net", "type": "tuning", "dataDir": node.path("tuning"),
    });
    config.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    config
}

fn pod_on_a_bridge(node: &Node, id: &str) -> (Pod, AddResult) {
    let pod = Pod::new(id);
    let result = pod.add(&node.config("bridge", &["10.85.1.0/24"], json!({"bridge": "br"}))).unwrap();
    (pod, result)
}

fn backups(node: &Node) -> Vec<String> {
    let Ok(entries) = std::fs::read_dir(node.path("tuning")) else { return Vec::new() };
    let mut names: Vec<String> =
        entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    names
}

#[test]
fn an_interface_is_tuned_and_put_back() {
    on_a_node(|node| {
        let (pod, result) = pod_on_a_bridge(node, "one");
        let before = pod.place.run("ip -o link show eth0");
        let config = tuned(
            node,
            json!({
                "mac": "02:11:22:33:44:55", "promisc": true, "mtu": 1300, "allmulti": true, "txQLen": 99,
                "sysctl": {"net.ipv4.conf.IFNAME.arp_filter": "1", "net/ipv4/ip_local_port_range": "20000 21000"},
            }),
        );
        let call = pod.call_after(&config, &result);
        let after = add(&call).unwrap();
        assert_eq!(after.interfaces[..2], result.interfaces[..2]);
        assert_eq!(
            (after.interfaces[2].mac.as_str(), after.interfaces[2].mtu),
            ("02:11:22:33:44:55", Some(1300))
        );
        let shown = pod.place.run("ip -o link show eth0");
        for what in ["02:11:22:33:44:55", "PROMISC", "ALLMULTI", "mtu 1300", "qlen 99"] {
            assert!(shown.contains(what), "{what}: {shown}");
        }
        assert_eq!(pod.place.sysctl("ipv4/conf/eth0/arp_filter"), "1");
        assert_eq!(pod.place.sysctl("ipv4/ip_local_port_range"), "20000\t21000");
        assert_ne!(node.place.sysctl("ipv4/ip_local_port_range"), "20000\t21000", "the pod's alone");
        pod.check(&config, &after).unwrap();
        // Again, as after a crash: what was before the first is put back.
        add(&call).unwrap();
        assert_eq!(backups(node), ["one_eth0.json"]);
        for _ in 0..2 {
            pod.del(&config).unwrap();
        }
        assert_eq!(pod.place.run("ip -o link show eth0"), before);
        assert_eq!(backups(node), [""; 0]);
    });
}

#[test]
fn check_sees_what_was_tuned_otherwise() {
    on_a_node(|node| {
        let config = tuned(
            node,
            json!({
                "mac": "02:11:22:33:44:55", "promisc": true, "mtu": 1300, "allmulti": true, "txQLen": 99,
                "sysctl": {"net.ipv4.conf.eth0.arp_filter": "1"},
            }),
        );
        let (pod, result) = pod_on_a_bridge(node, "one");
        let after = add(&pod.call_after(&config, &result)).unwrap();
        for (damage, repair, expected) in [
            (
                "address 02:00:00:00:00:01",
                "address 02:11:22:33:44:55",
                "hardware address 02:00:00:00:00:01 instead",
            ),
            ("promisc off", "promisc on", "is not promiscuous"),
            ("mtu 1301", "mtu 1300", "has the MTU 1301 instead of 1300"),
            ("allmulticast off", "allmulticast on", "does not take all multicast"),
            ("txqueuelen 98", "txqueuelen 99", "transmit queue of 98 packets instead of 99"),
        ] {
            pod.place.run(&format!("ip link set eth0 {damage}"));
            let error = pod.check(&config, &after).unwrap_err();
            assert_eq!(error.code, code::CHECK_FAILED);
            assert!(error.msg.contains(expected), "{error}");
            pod.place.run(&format!("ip link set eth0 {repair}"));
            pod.check(&config, &after).unwrap();
        }
        pod.place.run("busybox sysctl -w net.ipv4.conf.eth0.arp_filter=0");
        let error = pod.check(&config, &after).unwrap_err();
        assert!(error.msg.contains("arp_filter is \"0\" instead of \"1\""), "{error}");
    });
}

#[test]
fn what_is_asked_of_the_call_goes_before_the_configuration() {
    on_a_node(|node| {
        let (pod, result) = pod_on_a_bridge(node, "one");
        let mac = |more: Value, runtime: Option<&str>, arg: Option<&str>| {
            let mut call = pod.call_after(&tuned(node, more), &result);
            if let Some(mac) = runtime {
                call.config.runtime_config.insert("mac".to_owned(), json!(mac));
            }
            call.args.extend(arg.map(|mac| ("MAC".to_owned(), mac.to_owned())));
            add(&call).unwrap().interfaces[2].mac.clone()
        };
        let (one, two, three, four) =
            ("02:00:00:00:00:01", "02:00:00:00:00:02", "02:00:00:00:00:03", "02:00:00:00:00:04");
        assert_eq!(mac(json!({"mac": one}), None, None), one);
        assert_eq!(mac(json!({"mac": one}), None, Some(two)), two);
        assert_eq!(mac(json!({"mac": one}), Some(three), Some(two)), three);
        let args = json!({"cni": {"mac": four, "mtu": 1234}});
        assert_eq!(mac(json!({"mac": one, "mtu": 1300, "args": args}), Some(three), Some(two)), four);
        assert!(pod.place.run("ip -o link show eth0").contains("mtu 1234"));
    });
}

#[test]
fn gc_forgets_backups_of_pods_that_are_gone() {
    on_a_node(|node| {
        let config = tuned(node, json!({"mtu": 1300}));
        let pods = ["one", "two", "three"].map(|id| pod_on_a_bridge(node, id));
        for (pod, result) in &pods {
            add(&pod.call_after(&config, result)).unwrap();
        }
        let mut other = config.clone();
        other["name"] = json!("other");
        add(&pods[2].0.call_after(&other, &pods[2].1)).unwrap();
        std::fs::write(node.path("tuning/foreign_eth0.json"), "{\"mtu\":1500}").unwrap();
        gc(&other, &[]).unwrap();
        assert_eq!(backups(node).len(), 4);
        gc(&config, &[("two", "eth0")]).unwrap();
        assert_eq!(backups(node), ["foreign_eth0.json", "two_eth0.json"]);
        // DEL of a namespace that is gone, or about to be.
        let mut call = pods[1].0.call(&config);
        call.namespace_ends = true;
        PLUGINS.del("tuning", &call).unwrap();
        assert_eq!(backups(node), ["foreign_eth0.json"]);
        assert!(pods[1].0.place.run("ip -o link show eth0").contains("mtu 1300"));
    });
}

#[test]
fn what_is_not_the_networks_is_refused() {
    on_a_node(|node| {
        let (pod, result) = pod_on_a_bridge(node, "one");
        for (more, expected) in [
            (json!({"sysctl": {"kernel.hostname": "x"}}), "\"kernel.hostname\" is not the name of a sysctl"),
            (json!({"sysctl": {"net/../kernel/hostname": "x"}}), "is not the name of a sysctl"),
            (json!({"mac": "01:00:00:00:00:00"}), "names no single interface"),
            (json!({"mac": "x"}), "is not a hardware address"),
        ] {
            let error = add(&pod.call_after(&tuned(node, more), &result)).unwrap_err();
            assert_eq!(error.code, code::INVALID_CONFIG, "{error}");
            assert!(error.msg.contains(expected), "{error}");
        }
        let missing = tuned(node, json!({"sysctl": {"net.ipv4.no_such": "1"}}));
        let error = add(&pod.call_after(&missing, &result)).unwrap_err();
        assert_eq!(error.code, code::IO, "{error}");
        assert!(error.msg.contains("/proc/sys/net/ipv4/no_such"), "{error}");
        assert!(pod.add(&tuned(node, json!({}))).unwrap_err().msg.contains("prevResult is missing"));
        assert_eq!(backups(node), [""; 0]);
    });
}

//! A sandbox from ADD to DEL.

use std::collections::BTreeSet;

use coracle_network::{Attach, Bandwidth, PortMapping};
use serde_json::json;

use super::scripted::{Node, RESULT, ip, pod, uid};

#[test]
fn a_chain_is_added_in_order_and_deleted_in_reverse_with_what_it_answered() {
    let node = Node::new();
    node.configure("1.0.0", json!([{"type": "first", "mtu": 9000}, {"type": "second"}]));
    node.install_answering("first", RESULT);
    let last = r#"{"cniVersion": "1.0.0",
        "interfaces": [{"name": "eth0", "sandbox": "/x"}], "ips": [{"address": "10.9.0.8/16", "interface": 0}]}"#;
    node.install_answering("second", last);
    let network = node.network();
    let attached = node.add(&network).unwrap();
    assert_eq!((attached.network.as_str(), attached.ips), ("testnet", vec![ip("10.9.0.8")]));
    assert_eq!(node.files(), ["0f0e-uid-0.json"]);

    let [first, second] = node.executed().try_into().unwrap();
    let netns = node.path("netns").display().to_string();
    let path = format!("{}:{}", node.path("nonexistent").display(), node.path("bin").display());
    for (name, value) in [
        ("CNI_COMMAND", "ADD"),
        ("CNI_CONTAINERID", "0f0e-uid-0"),
        ("CNI_NETNS", &netns),
        ("CNI_IFNAME", "eth0"),
        ("CNI_PATH", &path),
        (
            "CNI_ARGS",
            "IgnoreUnknown=1;K8S_POD_NAMESPACE=shop;K8S_POD_NAME=web;K8S_POD_INFRA_CONTAINER_ID=0f0e-uid-0;\
             K8S_POD_UID=0f0e-uid",
        ),
    ] {
        assert_eq!(first.environment[name], value);
        assert_eq!(second.environment[name], value);
    }
    assert!(first.environment.contains_key("PATH"), "the environment is inherited");
    assert_eq!(first.stdin, json!({"cniVersion": "1.0.0", "name": "testnet", "type": "first", "mtu": 9000}));
    assert_eq!(second.stdin["prevResult"], serde_json::from_str::<serde_json::Value>(RESULT).unwrap());

    network.check(&uid(), 0).unwrap();
    network.del(&uid(), Some(0), false).unwrap();
    let executed = node.executed();
    let verbs: Vec<_> =
        executed.iter().map(|one| (one.environment["CNI_COMMAND"].as_str(), one.kind.as_str())).collect();
    assert_eq!(verbs, [("CHECK", "first"), ("CHECK", "second"), ("DEL", "second"), ("DEL", "first")]);
    for one in &executed {
        assert_eq!(one.stdin["prevResult"], serde_json::from_str::<serde_json::Value>(last).unwrap());
    }
    assert!(node.files().is_empty());
    assert_eq!(network.attached(&uid(), 0), None);
    network.del(&uid(), None, false).unwrap();
    assert!(node.verbs().is_empty());
}

#[test]
fn plugins_are_told_the_capabilities_they_declare_and_no_others() {
    let node = Node::new();
    let declared = json!({"portMappings": true, "bandwidth": true, "dns": true, "mac": true, "ips": true,
        "ipRanges": true, "unheardOf": true});
    node.configure("1.0.0", json!([{"type": "all", "capabilities": declared}, {"type": "none"}]));
    node.install_answering("all", RESULT);
    node.install_answering("none", RESULT);
    let (mut pod, netns) = (pod(), node.path("netns"));
    for (annotation, value) in
        [("kubernetes.io/ingress-bandwidth", "10M"), ("kubernetes.io/egress-bandwidth", "1k")]
    {
        pod.annotations.insert(annotation.to_owned(), value.to_owned());
    }
    let mut attach = Attach::of_pod(&pod, 0, &netns).unwrap();
    assert_eq!(attach.bandwidth, Some(Bandwidth { ingress: Some(10_000_000), egress: Some(1000) }));
    attach.port_mappings = vec![PortMapping {
        host_port: 8080,
        container_port: 80,
        protocol: coracle_model::Protocol::Udp,
        host_ip: Some(ip("192.0.2.1")),
    }];
    attach.mac = Some("02:00:00:00:00:01".to_owned());
    attach.ips = vec!["10.9.0.9/16".parse().unwrap()];
    attach.dns =
        Some(coracle_cni::Dns { nameservers: vec!["10.0.0.10".to_owned()], ..coracle_cni::Dns::default() });
    node.network().add(&attach).unwrap();
    let [all, none] = node.executed().try_into().unwrap();
    let told = json!({
        "portMappings": [{"hostPort": 8080, "containerPort": 80, "protocol": "udp", "hostIP": "192.0.2.1"}],
        "bandwidth": {"ingressRate": 10_000_000, "ingressBurst": i32::MAX, "egressRate": 1000, "egressBurst": i32::MAX},
        "dns": {"servers": ["10.0.0.10"], "searches": [], "options": []},
        "mac": "02:00:00:00:00:01",
        "ips": ["10.9.0.9/16"],
        "ipRanges": [[{"subnet": "10.83.0.0/24"}]],
    });
    assert_eq!(all.stdin["runtimeConfig"], told);
    assert_eq!(all.stdin.get("capabilities"), None);
    assert_eq!(none.stdin.get("runtimeConfig"), None);
    pod.annotations.insert("kubernetes.io/ingress-bandwidth".to_owned(), "much".to_owned());
    let error = Attach::of_pod(&pod, 0, &netns).unwrap_err().to_string();
    assert!(error.contains("kubernetes.io/ingress-bandwidth"), "{error}");
}

#[test]
fn what_an_attachment_was_made_with_it_is_taken_back_with() {
    let node = Node::new();
    node.configure("1.0.0", json!([{"type": "old", "flavour": 1}]));
    node.install_answering("old", RESULT);
    node.add(&node.network()).unwrap();
    node.configure("1.1.0", json!([{"type": "new"}]));
    // The next agent.
    let network = node.network();
    assert_eq!(network.attached(&uid(), 0).unwrap().ips, [ip("10.9.0.7")]);
    network.del(&uid(), None, true).unwrap();
    let deleted = node.executed().pop().unwrap();
    assert_eq!((deleted.kind.as_str(), &deleted.stdin["flavour"]), ("old", &json!(1)));
}

#[test]
fn an_attachment_that_is_there_is_not_made_again() {
    let node = Node::new();
    node.configure("1.0.0", json!([{"type": "only"}]));
    node.install_answering("only", RESULT);
    let network = node.network();
    assert_eq!(node.add(&network).unwrap(), node.add(&network).unwrap());
    assert_eq!(node.add(&node.network()).unwrap().ips, [ip("10.9.0.7")]);
    assert_eq!(node.verbs(), ["ADD only"]);
}

#[test]
fn garbage_is_collected_by_del_and_from_1_1_0_on_by_gc() {
    let node = Node::new();
    node.configure("1.0.0", json!([{"type": "only"}]));
    node.install_answering("only", RESULT);
    let (pod, netns) = (pod(), node.path("netns"));
    let network = node.network();
    for attempt in 0..3 {
        network.add(&Attach::of_pod(&pod, attempt, &netns).unwrap()).unwrap();
    }
    node.executed();
    network.gc(&BTreeSet::from([(uid(), 1), (uid(), 2)])).unwrap();
    assert_eq!(node.verbs(), ["DEL only"]);
    assert_eq!(node.files(), ["0f0e-uid-1.json", "0f0e-uid-2.json"]);

    node.configure("1.1.0", json!([{"type": "only", "capabilities": {"mac": true}}]));
    network.gc(&BTreeSet::from([(uid(), 2)])).unwrap();
    let [deleted, collected] = node.executed().try_into().unwrap();
    assert_eq!(deleted.environment["CNI_CONTAINERID"], "0f0e-uid-1");
    assert_eq!(collected.environment["CNI_COMMAND"], "GC");
    assert!(!collected.environment.contains_key("CNI_CONTAINERID"));
    let valid = json!([{"containerID": "0f0e-uid-2", "ifname": "eth0"}]);
    let told = json!({"cniVersion": "1.1.0", "name": "testnet", "type": "only",
        "cni.dev/valid-attachments": valid, "cni.dev/attachments": valid});
    assert_eq!(collected.stdin, told);

    let off =
        json!({"cniVersion": "1.1.0", "name": "testnet", "disableGC": true, "plugins": [{"type": "only"}]});
    node.configure_as(&off);
    network.gc(&BTreeSet::from([(uid(), 2)])).unwrap();
    assert!(node.verbs().is_empty());
}

#[test]
fn garbage_whose_plugin_hangs_holds_nobody_up_for_longer_than_one_del() {
    let mut node = Node::new();
    node.deadline = std::time::Duration::from_secs(1);
    node.configure("1.0.0", json!([{"type": "only"}]));
    node.install_answering("only", RESULT);
    let (pod, netns) = (pod(), node.path("netns"));
    let network = node.network();
    for attempt in 0..3 {
        network.add(&Attach::of_pod(&pod, attempt, &netns).unwrap()).unwrap();
    }
    node.install("only", "[ $CNI_COMMAND != DEL ] || sleep 600");
    node.executed();
    let error = network.gc(&BTreeSet::new()).unwrap_err().to_string();
    assert_eq!(node.verbs(), ["DEL only"]);
    assert!(error.contains("has not answered after"), "{error}");
    assert!(error.contains("sandbox 0f0e-uid-2 is still attached"), "{error}");
    assert_eq!(node.files().len(), 3);
    node.install_answering("only", RESULT);
    network.del(&uid(), None, false).unwrap();
    assert!(node.files().is_empty());
}

#[test]
fn status_is_what_the_plugins_say_from_1_1_0_on() {
    let node = Node::new();
    node.install("only", r#"echo '{"cniVersion": "1.1.0", "code": 50, "msg": "not now"}'; exit 1"#);
    let network = node.network();
    node.configure("1.0.0", json!([{"type": "only"}]));
    network.status().unwrap();
    node.configure("1.1.0", json!([{"type": "only"}]));
    let error = network.status().unwrap_err().to_string();
    assert_eq!(error, "plugin only of network testnet failed (STATUS): not now (code 50)");
    super::scripted::write(&node.path("conf/05-broken.conf"), b"{");
    let error = network.status().unwrap_err().to_string();
    assert!(error.contains("05-broken.conf"), "{error}");
}

#[test]
fn check_is_not_called_where_the_list_forbids_it() {
    let node = Node::new();
    let list =
        json!({"cniVersion": "1.0.0", "name": "n", "disableCheck": true, "plugins": [{"type": "only"}]});
    node.configure_as(&list);
    node.install_answering("only", RESULT);
    let network = node.network();
    assert!(network.check(&uid(), 0).is_err());
    node.add(&network).unwrap();
    network.check(&uid(), 0).unwrap();
    assert_eq!(node.verbs(), ["ADD only"]);
}

//! Debian's plugins (containernetworking-plugins) under our driver.

use std::collections::BTreeSet;
use std::fs;
use std::net::{IpAddr, SocketAddr};
use std::process::{Command, Stdio};

use coracle_model::Protocol;
use coracle_network::PortMapping;
use serde_json::{Value, json};

use super::harness::{Node, Sandbox, in_own_network};

/// A chain of what the package has for pods.
fn list(node: &Node, version: &str) -> Value {
    json!({
        "cniVersion": version,
        "name": "debian",
        "plugins": [
            {
                "type": "debian-bridge",
                "bridge": "debian0",
                "isGateway": true,
                "hairpinMode": true,
                "ipMasq": true,
                "capabilities": {"mac": true},
                "ipam": {
                    "type": "debian-host-local",
                    "dataDir": node.path("addresses"),
                    "ranges": [[{"subnet": "10.77.0.0/24"}], [{"subnet": "fd77::/64"}]],
                    "routes": [{"dst": "0.0.0.0/0"}, {"dst": "::/0"}],
                },
            },
            {"type": "debian-tuning", "sysctl": {"net.ipv4.conf.eth0.arp_notify": "1"}},
            {"type": "debian-portmap", "capabilities": {"portMappings": true}},
            {"type": "debian-bandwidth", "capabilities": {"bandwidth": true}},
        ],
    })
}

/// Addresses that host-local has given.
fn given(node: &Node) -> usize {
    let Ok(files) = fs::read_dir(node.path("addresses/debian")) else { return 0 };
    let names = files.map(|file| file.unwrap().file_name().into_string().unwrap());
    names.filter(|name| name.parse::<IpAddr>().is_ok()).count()
}

fn a_pod_comes_and_goes(version: &str) {
    let node = Node::new();
    node.configure(&list(&node, version));
    let network = node.network();
    let (first, mut second) = (Sandbox::new("a"), Sandbox::new("b"));
    second.pod.annotations.insert("kubernetes.io/egress-bandwidth".to_owned(), "100M".to_owned());
    let mut attach = first.attach();
    attach.mac = Some("02:11:22:33:44:55".to_owned());
    attach.port_mappings =
        vec![PortMapping { host_port: 8080, container_port: 80, protocol: Protocol::Tcp, host_ip: None }];
    let attached = network.add(&attach).unwrap();
    assert_eq!((attached.network.as_str(), attached.ips.len()), ("debian", 2), "{attached:?}");
    let other = second.add(&network).unwrap();
    assert_ne!(attached.ips, other.ips);

    let eth0 = first.netlink().links().unwrap().into_iter().find(|link| link.name == "eth0").unwrap();
    assert_eq!(eth0.mac.unwrap().to_string(), "02:11:22:33:44:55");
    for ip in &attached.ips {
        let served = first.serve(*ip, 80);
        assert_eq!(second.ask(SocketAddr::new(*ip, 80)), "pod-a");
        assert!(other.ips.contains(&served.join().unwrap().ip()));
    }
    let served = first.serve(attached.ips[0], 80);
    assert_eq!(second.ask("10.77.0.1:8080".parse().unwrap()), "pod-a", "by the port of the host");
    served.join().unwrap();

    // The second, since this release's portmap looks for its rules of IPv4 among those of IPv6, and its bandwidth fails
    // where no limit is given.
    network.check(second.uid(), 0).unwrap();
    let eth0 = second.netlink().links().unwrap().into_iter().find(|link| link.name == "eth0").unwrap();
    let mut batch = coracle_netlink::Batch::new();
    batch.delete_address(eth0.index, "10.77.0.3/24".parse().unwrap());
    second.netlink().execute(batch).unwrap();
    let error = network.check(second.uid(), 0).unwrap_err().to_string();
    assert!(error.contains("plugin debian-bridge of network debian failed (CHECK)"), "{error}");

    assert_eq!(given(&node), 4);
    network.del(first.uid(), Some(0), false).unwrap();
    assert_eq!(given(&node), 2);
    // As after the death of pause: no namespace is left.
    let uid = second.uid().clone();
    second.end();
    node.network().gc(&BTreeSet::new()).unwrap();
    assert_eq!(given(&node), 0);
    node.wait_for_links(&["debian0"]);
    assert_eq!(network.attached(first.uid(), 0), None);
    node.network().del(&uid, None, false).unwrap();
    assert_eq!(fs::read_dir(node.path("state")).unwrap().count(), 0);
}

#[test]
fn a_pod_comes_and_goes_with_0_4_0() {
    in_own_network(|| a_pod_comes_and_goes("0.4.0"));
}

#[test]
fn a_pod_comes_and_goes_with_1_0_0() {
    in_own_network(|| a_pod_comes_and_goes("1.0.0"));
}

#[test]
fn a_pod_comes_and_goes_with_1_1_0_or_the_plugin_says_why_not() {
    in_own_network(|| {
        let mut bridge = Command::new("/usr/lib/cni/bridge");
        let told = bridge.env("CNI_COMMAND", "VERSION").stdin(Stdio::null()).output().unwrap();
        let told: Value = serde_json::from_slice(&told.stdout).unwrap();
        if told["supportedVersions"].as_array().unwrap().contains(&json!("1.1.0")) {
            return a_pod_comes_and_goes("1.1.0");
        }
        let node = Node::new();
        node.configure(&list(&node, "1.1.0"));
        let sandbox = Sandbox::new("a");
        let error = sandbox.add(&node.network()).unwrap_err().to_string();
        let beginning = "pod default/pod-a: plugin debian-bridge of network debian failed (ADD): ";
        assert!(error.starts_with(beginning), "{error}");
        assert!(error.contains("incompatible CNI versions") && error.ends_with("(code 1)"), "{error}");
    });
}

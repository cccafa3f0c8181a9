//! The node's own addresses.

use std::io::{BufRead, BufReader};
use std::process::Stdio;

use coracle_tests::machine::Machine;
use coracle_tests::manifests::{idle, pod, with};
use coracle_tests::needs_root;
use coracle_tests::node::Node;
use serde_json::{Value, json};

use super::{FIRST, SECOND, ip, join};

fn host_ips(pod: &Value) -> Vec<&str> {
    let all = pod["status"]["hostIPs"].as_array().into_iter().flatten();
    all.map(|ip| ip["ip"].as_str().unwrap()).collect()
}

#[test]
fn a_change_of_the_hosts_addresses_is_noticed() {
    needs_root!();
    let node = Node::start();
    node.run(&pod("own", vec![idle("c")]));
    node.run(&with(pod("hosts", vec![idle("c")]), "spec.hostNetwork", json!(true)));
    assert!(host_ips(&node.wait_running("own")).is_empty(), "it has none but its loopback's");
    node.wait_running("hosts");
    let mut watch = node.command(&["get", "pods", "own", "-o", "json", "-w"]);
    let mut watch = watch.stdout(Stdio::piped()).spawn().unwrap();
    let other = Machine::new();
    join(node.machine(), &other);
    // Without a way to everywhere, the one that others on its network reach.
    let seen = node.wait_pod("own", "to tell the node's addresses", |pod| host_ips(pod) == FIRST);
    assert_eq!(seen["status"]["hostIP"], FIRST[0]);
    let hosts = node.wait_pod("hosts", "to have them, too", |pod| pod["status"]["podIP"] == FIRST[0]);
    assert_eq!(hosts["status"]["podIPs"].as_array().unwrap().len(), 2);
    let lines = BufReader::new(watch.stdout.take().unwrap()).lines();
    let told = lines.map_while(Result::ok).any(|line| line.contains(FIRST[0]));
    assert!(told, "whoever watches is told");
    watch.kill().unwrap();
    watch.wait().unwrap();

    // With one, the one that leads there.
    let init = node.machine().init();
    ip(init, "address add 198.51.100.77/24 dev wan");
    ip(init, &format!("route add default via {} src 198.51.100.77", SECOND[0]));
    node.wait_pod("own", "to tell the address of the way out", |pod| host_ips(pod) == ["198.51.100.77"]);
    node.finish();
}

#[test]
fn a_node_is_called_by_the_addresses_it_is_told() {
    needs_root!();
    let node = Node::start_with("nodeIP: fd00::7,192.0.2.7\n");
    node.run(&pod("own", vec![idle("c")]));
    let own = node.wait_running("own");
    assert_eq!(host_ips(&own), ["fd00::7", "192.0.2.7"]);
    // Its primary family comes first.
    assert!(own["status"]["podIP"].as_str().unwrap().starts_with("fd83:"), "{}", own["status"]);
    node.finish();
}

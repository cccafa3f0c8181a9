//! The node's own addresses.

use std::io::{BufRead, BufReader};
use std::net::SocketAddr;
use std::process::Stdio;

use coracle_tests::machine::Machine;
use coracle_tests::manifests::{idle, pod, with};
use coracle_tests::needs_root;
use coracle_tests::network::{connect_from, listen_in};
use coracle_tests::node::{Node, container_id};
use serde_json::{Value, json};

use super::{FIRST, SECOND, echo, ip, join, parse, tcp};

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
fn pods_are_reached_and_masked_by_the_address_that_the_host_has_got_meanwhile() {
    needs_root!();
    const NEW: &str = "198.51.100.9";
    let node = Node::start();
    let outside = Machine::new();
    join(node.machine(), &outside);
    let ports = json!([{"containerPort": 80, "hostPort": 8080}]);
    node.run(&pod("web", vec![with(idle("c"), "ports", ports)]));
    let web = node.wait_pod("web", "to run at the first address", |pod| {
        host_ips(pod) == FIRST && pod["status"]["phase"] == "Running"
    });
    let inside = node.container_pid(&web, "c");
    echo(listen_in(inside, SocketAddr::new(parse("::"), 80)).unwrap());
    let server = listen_in(outside.init(), SocketAddr::new(parse(SECOND[0]), 0)).unwrap();
    let there = server.local_addr().unwrap();
    let seen_as = || {
        let _connection = connect_from(inside, there).unwrap();
        server.accept().unwrap().1.ip()
    };
    tcp(outside.init(), SocketAddr::new(parse(FIRST[0]), 8080));
    assert_eq!(seen_as(), parse(FIRST[0]));

    let host = node.machine().init();
    ip(host, &format!("address add {NEW}/24 dev wan"));
    ip(host, &format!("address del {}/24 dev wan", FIRST[0]));
    // The last of a network takes those that were added beside it along.
    ip(host, &format!("address replace {NEW}/24 dev wan"));
    let now = node.wait_pod("web", "to tell the new one", |pod| host_ips(pod) == [NEW, FIRST[1]]);
    assert_eq!(container_id(&web, "c"), container_id(&now, "c"));
    tcp(outside.init(), SocketAddr::new(parse(NEW), 8080));
    assert_eq!(seen_as(), parse(NEW));
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

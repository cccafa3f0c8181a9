//! Ports of the host that lead to pods.

use std::net::SocketAddr;
use std::process::Command;

use coracle_tests::machine::Machine;
use coracle_tests::manifests::{idle, pod, with};
use coracle_tests::needs_root;
use coracle_tests::network::{connect_from, listen_in, udp_in};
use coracle_tests::node::Node;
use coracle_tests::processes::Pid;
use coracle_tests::wait::{SOON, wait_until};
use serde_json::{Value, json};

use super::{FIRST, echo, echo_datagrams, join, parse, tcp, udp};

/// A pod whose port 80 is the host's 8080, and whose 53 is the host's 5353.
fn with_ports(name: &str) -> Value {
    let ports = json!([
        {"containerPort": 80, "hostPort": 8080},
        {"containerPort": 53, "hostPort": 5353, "protocol": "UDP"},
    ]);
    pod(name, vec![with(idle("c"), "ports", ports)])
}

/// Servers on both ports of a pod.
fn serve(inside: Pid) {
    echo(listen_in(inside, SocketAddr::new(parse("::"), 80)).unwrap());
    echo_datagrams(udp_in(inside, SocketAddr::new(parse("::"), 53)).unwrap());
}

/// Has `nft` do something in the node's network.
fn nft(node: &Node, arguments: &str) {
    let mut command = Command::new("nsenter");
    command.args(["--target", &node.machine().init().to_string(), "--net", "nft"]).args(arguments.split(' '));
    assert!(command.status().expect("nftables is installed").success());
}

#[test]
fn a_port_of_the_host_is_reached_from_outside_the_node_and_its_pods() {
    needs_root!();
    let node = Node::start();
    let outside = Machine::new();
    join(node.machine(), &outside);
    node.run(&with_ports("web"));
    node.run(&pod("client", vec![idle("c")]));
    let (web, client) = (node.wait_running("web"), node.wait_running("client"));
    let (in_web, in_client) = (node.container_pid(&web, "c"), node.container_pid(&client, "c"));
    serve(in_web);
    for address in FIRST.map(parse) {
        for from in [outside.init(), node.machine().init(), in_web, in_client] {
            tcp(from, SocketAddr::new(address, 8080));
            udp(from, SocketAddr::new(address, 5353));
        }
    }
    tcp(node.machine().init(), SocketAddr::new(parse("127.0.0.1"), 8080));
    node.remove("web");
    node.wait_gone("web");
    assert!(connect_from(node.machine().init(), SocketAddr::new(parse(FIRST[0]), 8080)).is_err());
    node.finish();
}

#[test]
fn a_port_of_the_host_is_one_pods_and_moves_with_its_manifest() {
    needs_root!();
    let node = Node::start();
    node.run(&with_ports("first"));
    node.wait_running("first");
    node.run(&with_ports("second"));
    let refused = node.wait_phase("second", "Failed");
    assert_eq!(refused["status"]["reason"], "NodePorts");
    let message = refused["status"]["message"].as_str().unwrap();
    assert!(message.contains("host port 8080/TCP") && message.contains("pod default/first"), "{message}");

    node.remove("first");
    let second = node.wait_running("second");
    serve(node.container_pid(&second, "c"));
    tcp(node.machine().init(), SocketAddr::new(parse("127.0.0.1"), 8080));
    node.finish();
}

#[test]
fn what_others_do_to_the_rule_set_is_mended() {
    needs_root!();
    let node = Node::start();
    let outside = Machine::new();
    join(node.machine(), &outside);
    node.run(&with_ports("web"));
    let web = node.wait_running("web");
    serve(node.container_pid(&web, "c"));
    let there = SocketAddr::new(parse(FIRST[0]), 8080);
    tcp(outside.init(), there);
    for what in ["flush ruleset", "delete table inet coracle"] {
        nft(&node, what);
        wait_until(format!("the port to be there again after {what:?}"), SOON, || {
            connect_from(outside.init(), there).is_ok()
        });
        tcp(outside.init(), there);
    }
    node.finish();
}

#[test]
fn what_others_do_to_the_rule_set_while_no_agent_runs_is_mended_by_the_next() {
    needs_root!();
    let mut node = Node::start();
    let outside = Machine::new();
    join(node.machine(), &outside);
    node.run(&with_ports("web"));
    let web = node.wait_running("web");
    serve(node.container_pid(&web, "c"));
    let there = SocketAddr::new(parse(FIRST[0]), 8080);
    tcp(outside.init(), there);
    // The last one takes a pod's part, and leaves the table whole.
    for what in ["flush ruleset", "delete table inet coracle", "flush map inet coracle ports4"] {
        node.kill_agent();
        nft(&node, what);
        assert!(connect_from(outside.init(), there).is_err(), "{what:?} has taken the port away");
        node.start_agent();
        wait_until(format!("the port to be there again after {what:?}"), SOON, || {
            connect_from(outside.init(), there).is_ok()
        });
        tcp(outside.init(), there);
    }
    node.finish();
}

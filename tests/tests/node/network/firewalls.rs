//! Firewalls of others on the host.

use std::process::Command;

use coracle_tests::needs_root;
use coracle_tests::node::Node;
use coracle_tests::wait::{SOON, wait_until};

/// Runs a program in the node's network.
fn run(node: &Node, arguments: &str) {
    let mut command = Command::new("nsenter");
    command.args(["--target", &node.machine().init().to_string(), "--net"]).args(arguments.split(' '));
    let status = command.status().unwrap_or_else(|error| panic!("{arguments}: {error}"));
    assert!(status.success(), "{arguments}: {status}");
}

#[test]
fn a_firewall_that_drops_what_is_forwarded_is_told_by_its_name() {
    needs_root!();
    let mut node = Node::start();
    let check = |node: &Node| {
        let output = node.command(&["check"]).output().unwrap();
        String::from_utf8(output.stdout).unwrap()
    };
    let told = "chain FORWARD of table ip filter drops what is forwarded";
    // Text is wrapped to lines of some width.
    let words = |text: &str| text.split_whitespace().collect::<Vec<_>>().join(" ");
    assert!(!words(&check(&node)).contains(told), "nobody drops anything");
    run(&node, "iptables -P FORWARD DROP");
    let report = check(&node);
    assert!(words(&report).contains(told), "{report}");
    assert!(words(&report).contains("iptables -I DOCKER-USER -i coracle0 -j ACCEPT"), "{report}");
    node.kill_agent();
    node.start_agent();
    wait_until("the agent to tell", SOON, || node.agent_log().contains(told));
    // Somebody has seen to it.
    run(&node, "iptables -A FORWARD -i coracle0 -j ACCEPT");
    assert!(!words(&check(&node)).contains(told));
    node.finish();
}

//! What a user sees.

use coracle_tests::images::BUSYBOX;
use coracle_tests::manifests::{idle, pod};
use coracle_tests::needs_root;
use coracle_tests::node::Node;

#[test]
fn tables_are_kubectls() {
    needs_root!();
    let node = Node::start();
    assert_eq!(node.coracle_ok(&["get", "pods"]), "");
    node.run(&pod("shown", vec![idle("a"), idle("b")]));
    node.wait_running("shown");
    let table = node.coracle_ok(&["get", "pods"]);
    let lines: Vec<Vec<&str>> = table.lines().map(|line| line.split_whitespace().collect()).collect();
    assert_eq!(lines[0], ["NAME", "READY", "STATUS", "RESTARTS", "AGE"]);
    assert_eq!(lines[1][..4], ["shown", "2/2", "Running", "0"]);
    assert!(!table.contains('\u{1b}'), "no colour in a pipe");
    let described = node.coracle_ok(&["describe", "pod", "shown"]);
    for part in ["Name:", "Namespace:", "Containers:", BUSYBOX, "Conditions:", "Events:"] {
        assert!(described.contains(part), "no {part} in {described}");
    }
    node.finish();
}

#[test]
fn images_are_listed_and_removed_and_one_in_use_is_kept() {
    needs_root!();
    let node = Node::start();
    assert!(node.coracle_ok(&["image", "ls"]).contains("localhost/busybox"));
    node.run(&pod("user", vec![idle("c")]));
    node.wait_running("user");
    let refused = node.coracle(&["image", "rm", BUSYBOX]);
    let kept = node.coracle_ok(&["image", "ls"]).contains("localhost/busybox");
    assert!(refused.code != 0 && kept, "an image in use is kept: {}", refused.stderr);
    node.remove("user");
    node.wait_gone("user");
    node.coracle_ok(&["image", "rm", BUSYBOX]);
    assert!(!node.coracle_ok(&["image", "ls"]).contains("localhost/busybox"));
    node.finish();
}

#[test]
fn no_agent_is_said_clearly() {
    needs_root!();
    let mut node = Node::start();
    node.stop_agent();
    let answer = node.coracle(&["get", "pods"]);
    assert_ne!(answer.code, 0);
    assert!(answer.stderr.contains("coracle.sock"), "{}", answer.stderr);
}

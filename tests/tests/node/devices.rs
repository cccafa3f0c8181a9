//! Devices of device plugins in pods.

mod failing;
mod generic;
pub(crate) mod plugin;

use std::path::PathBuf;

use coracle_tests::manifests::{idle, pod, with};
use coracle_tests::needs_root;
use coracle_tests::node::Node;
use coracle_tests::wait::{SOON, wait_until};
use rustix::fs::{CWD, FileType, Mode, makedev, mknodat};
use serde_json::{Value, json};

use self::plugin::{Plugin, RESOURCE, pod_resources};

/// Two device nodes that no container has, and that every kernel lets root write to or refuses for another reason than
/// the container's.
const NODES: [(&str, (u32, u32)); 2] = [("kmsg", (1, 11)), ("tun", (10, 200))];

fn nodes(node: &Node) -> Vec<(&'static str, PathBuf)> {
    let make = |(id, (major, minor))| {
        let path = node.path(id);
        let mode = Mode::from_raw_mode(0o666);
        mknodat(CWD, &path, FileType::CharacterDevice, mode, makedev(major, minor)).unwrap();
        (id, path)
    };
    NODES.map(make).to_vec()
}

fn asking(name: &str) -> Value {
    let limits = json!({ "limits": { RESOURCE: 1 } });
    pod(name, vec![with(idle("a"), "resources", limits)])
}

/// What a container has in its environment.
fn given(node: &Node, pod: &str) -> String {
    node.coracle_ok(&["exec", pod, "--", "sh", "-c", "echo $NODES"]).trim().to_owned()
}

/// Whether the container may open a device for writing, by a node it has or one that it makes. What has no driver here
/// is let through as well: it fails otherwise.
fn may_open(node: &Node, pod: &str, id: &str) -> bool {
    let (_, (major, minor)) = NODES.into_iter().find(|(known, _)| *known == id).unwrap();
    let script = format!(
        "n=/dev/given-{id}; test -c $n || {{ n=/tmp/{id}; test -c $n || {{ mkdir -p /tmp; mknod $n c {major} {minor}; }}; }}; : 3> $n"
    );
    let answer = node.coracle(&["exec", pod, "--", "sh", "-c", &script]);
    !answer.stderr.contains("Operation not permitted")
}

/// How many devices of a resource the node has, and how many of them work.
pub(crate) fn amounts(node: &Node, resource: &str) -> (Value, Value) {
    let object: Value =
        serde_json::from_str(&node.coracle_ok(&["get", "node", "node", "-o", "json"])).unwrap();
    let of = |what: &str| object["status"][what][resource].clone();
    (of("capacity"), of("allocatable"))
}

#[test]
fn a_pod_opens_the_device_it_was_given_and_no_other() {
    needs_root!();
    let node = Node::start();
    let all = nodes(&node);
    node.run(&asking("one"));
    node.wait_pod("one", "to wait for a plugin", |pod| {
        let conditions = pod["status"]["conditions"].as_array().cloned().unwrap_or_default();
        conditions.iter().any(|it| it["type"] == "PodScheduled" && it["reason"] == "Unschedulable")
    });
    let described = node.coracle_ok(&["describe", "pod", "one"]);
    assert!(described.contains("FailedScheduling") && described.contains(RESOURCE), "{described}");

    let plugin = Plugin::start(&node.path("kubelet/device-plugins"), &all);
    plugin.register();
    let running = node.wait_running("one");
    let own = given(&node, "one");
    let other = NODES.into_iter().map(|(id, _)| id).find(|id| *id != own).unwrap();
    assert!(may_open(&node, "one", &own), "{own} was given to it");
    assert!(!may_open(&node, "one", other), "{other} was not given to it");
    let status = &running["status"]["containerStatuses"][0]["allocatedResourcesStatus"];
    assert_eq!(*status, json!([{"name": RESOURCE, "resources": [{"resourceID": own, "health": "Healthy"}]}]));

    node.run(&pod("none", vec![idle("a")]));
    node.wait_running("none");
    assert!(NODES.iter().all(|(id, _)| !may_open(&node, "none", id)), "a pod that asks for none has none");
    node.run(&asking("two"));
    node.wait_running("two");
    assert_eq!(given(&node, "two"), other);
    node.run(&asking("three"));
    let refused = node.wait_phase("three", "Failed");
    assert_eq!(refused["status"]["reason"], format!("OutOf{RESOURCE}"));

    assert_eq!(amounts(&node, RESOURCE), (json!("2"), json!("2")));
    plugin.set_healthy(other, false);
    wait_until("the device that does not work to leave allocatable", SOON, || {
        amounts(&node, RESOURCE) == (json!("2"), json!("1"))
    });
    node.wait_pod("two", "to show that its device does not work", |pod| {
        let status = &pod["status"]["containerStatuses"][0]["allocatedResourcesStatus"];
        status[0]["resources"][0]["health"] == "Unhealthy"
    });
    assert_eq!(pod_resources(&node)["one"], [own.as_str()]);
    let described = node.coracle_ok(&["describe", "node"]);
    assert!(described.contains(&format!("{RESOURCE}=1")), "{described}");
    for name in ["one", "two", "three", "none"] {
        node.remove(name);
    }
    drop(plugin);
    node.finish();
}

#[test]
fn running_pods_keep_their_devices_over_agents_that_are_killed_and_nothing_is_given_twice() {
    needs_root!();
    let mut node = Node::start();
    let all = nodes(&node);
    let plugin = Plugin::start(&node.path("kubelet/device-plugins"), &all);
    plugin.register();
    node.run(&asking("one"));
    node.wait_running("one");
    let own = given(&node, "one");
    for _ in 0..2 {
        node.kill_agent();
        node.start_agent();
        node.wait_running("one");
        assert!(may_open(&node, "one", &own), "before any plugin is back");
    }
    node.run(&asking("two"));
    node.wait_pod("two", "to wait for the plugin", |pod| pod["status"]["phase"] == "Pending");
    plugin.come_back();
    node.wait_running("two");
    let other = given(&node, "two");
    assert_ne!(own, other);
    assert!(!may_open(&node, "two", &own) && may_open(&node, "one", &own));

    // Its device is another's once it is gone.
    node.remove("one");
    node.wait_gone("one");
    node.run(&asking("next"));
    node.wait_running("next");
    assert_eq!(given(&node, "next"), own);
    node.remove("two");
    node.remove("next");
    drop(plugin);
    node.finish();
}

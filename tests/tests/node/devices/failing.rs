//! Devices that cannot be given, or cannot be brought into a container: what is told, and what becomes of them.

use std::collections::BTreeMap;
use std::fs;
use std::path::PathBuf;

use coracle_device_api::deviceplugin::DevicePluginOptions;
use coracle_scripted_plugin::{Does, Script};
use coracle_tests::machine::Machine;
use coracle_tests::manifests::{idle, pod, with};
use coracle_tests::needs_root;
use coracle_tests::node::{Node, container_status};
use coracle_tests::wait::{SOON, wait_until};
use rustix::fs::{CWD, FileType, Mode, makedev, mknodat};
use serde_json::{Value, json};

use super::plugin::{Extras, Plugin, RESOURCE, pod_resources};
use super::{amounts, asking, given};

/// As many device nodes as there are ids, all of /dev/null.
fn nodes(node: &Node, ids: &[&'static str]) -> Vec<(&'static str, PathBuf)> {
    ids.iter().map(|id| (*id, make_node(node, id))).collect()
}

fn make_node(node: &Node, id: &str) -> PathBuf {
    let path = node.path(id);
    mknodat(CWD, &path, FileType::CharacterDevice, Mode::from_raw_mode(0o666), makedev(1, 3)).unwrap();
    path
}

/// A plugin of these devices that is known to the node.
fn serve(node: &Node, nodes: &[(&str, PathBuf)], extras: Extras, script: Script) -> Plugin {
    let plugin = Plugin::start_with(&node.path("kubelet/device-plugins"), nodes, extras, script);
    plugin.register();
    let all = json!(nodes.len().to_string());
    wait_until("the devices to be known", SOON, || amounts(node, RESOURCE).1 == all);
    plugin
}

/// Waits until a pod's container waits for this reason; the message.
#[track_caller]
fn waits(node: &Node, name: &str, reason: &str) -> String {
    let pod = node.wait_pod(name, &format!("to wait: {reason}"), |pod| {
        pod["status"]["containerStatuses"][0]["state"]["waiting"]["reason"] == reason
    });
    let message = &container_status(&pod, "a")["state"]["waiting"]["message"];
    message.as_str().unwrap_or_default().to_owned()
}

fn asking_for(name: &str, count: u32) -> Value {
    with(asking(name), "spec.containers.0.resources.limits", json!({RESOURCE: count}))
}

#[test]
fn a_device_that_cannot_be_prepared_is_told_and_tried_again_and_stays_the_pods() {
    needs_root!();
    let node = Node::start();
    let options = DevicePluginOptions { pre_start_required: true, ..Default::default() };
    let script = Script { options, pre_start: Does::Fail("no firmware"), ..Script::default() };
    let plugin = serve(&node, &nodes(&node, &["x"]), Extras::default(), script);
    node.run(&asking("one"));
    let why = waits(&node, "one", "CreateContainerConfigError");
    assert!(why.contains("no firmware") && why.contains(RESOURCE), "{why}");
    let described = node.coracle_ok(&["describe", "pod", "one"]);
    assert!(described.contains("Warning") && described.contains("no firmware"), "{described}");
    // It is its own meanwhile.
    assert_eq!(pod_resources(&node)["one"], ["x"]);
    node.run(&asking("other"));
    assert_eq!(node.wait_phase("other", "Failed")["status"]["reason"], format!("OutOf{RESOURCE}"));
    plugin.script().pre_start = Does::Answer;
    node.wait_running("one");
    node.remove("one");
    node.wait_gone("one");

    // One that says nothing holds nobody up but its own pod, which ends while it waits.
    plugin.script().pre_start = Does::Hang;
    node.run(&asking("waiting"));
    node.wait_pod("waiting", "to have its device", |_| pod_resources(&node).contains_key("waiting"));
    node.run(&pod("plain", vec![idle("a")]));
    node.wait_running("plain");
    node.remove("waiting");
    node.wait_gone("waiting");
    plugin.script().pre_start = Does::Answer;
    node.run(&asking("next"));
    node.wait_running("next");
    assert_eq!(given(&node, "next"), "x");
    for name in ["other", "plain", "next"] {
        node.remove(name);
    }
    drop(plugin);
    node.finish();
}

#[test]
fn what_a_device_brings_and_is_not_there_is_told_until_it_comes() {
    needs_root!();
    let node = Node::start();
    let all = nodes(&node, &["named", "mount", "vanished"]);
    let missing = node.path("missing");
    let extras = Extras {
        cdi: BTreeMap::from([("named".to_owned(), "example.com/device=late".to_owned())]),
        mounts: BTreeMap::from([("mount".to_owned(), missing.clone())]),
        ..Extras::default()
    };
    let plugin = serve(&node, &all, extras, Script::default());
    fs::remove_file(node.path("vanished")).unwrap();
    let pods = ["one", "two", "three"];
    for name in pods {
        node.run(&asking(name));
    }
    // Which of them has which device is the node's.
    let why: Vec<String> = pods.iter().map(|name| waits(&node, name, "CreateContainerError")).collect();
    for part in [
        "example.com/device=late".to_owned(),
        missing.display().to_string(),
        node.path("vanished").display().to_string(),
    ] {
        assert_eq!(why.iter().filter(|message| message.contains(&part)).count(), 1, "{part}: {why:#?}");
    }
    make_node(&node, "vanished");
    fs::write(&missing, "").unwrap();
    let specification = json!({
        "cdiVersion": "0.6.0",
        "kind": "example.com/device",
        "devices": [{"name": "late", "containerEdits": {"env": ["LATE=yes"]}}],
    });
    fs::create_dir_all(node.path("cdi")).unwrap();
    fs::write(node.path("cdi/late.json"), specification.to_string()).unwrap();
    for name in pods {
        node.wait_running(name);
        let environment = node.coracle_ok(&["exec", name, "--", "env"]);
        assert_eq!(environment.contains("LATE=yes"), given(&node, name) == "named", "{environment}");
        node.remove(name);
    }
    drop(plugin);
    node.finish();
}

#[test]
fn what_hooks_say_that_succeed_is_in_the_agents_log() {
    const POINTS: [&str; 5] = ["createRuntime", "createContainer", "startContainer", "poststart", "poststop"];
    needs_root!();
    let node = Node::start();
    let hook = |point: &&str| {
        let script = format!("echo {point} has no cache >&2");
        json!({"hookName": point, "path": "/bin/sh", "args": ["sh", "-c", script]})
    };
    let hooks: Vec<Value> = POINTS.iter().map(hook).collect();
    let specification = json!({
        "cdiVersion": "0.6.0",
        "kind": "example.com/device",
        "devices": [{"name": "talks", "containerEdits": {"hooks": hooks}}],
    });
    fs::create_dir_all(node.path("cdi")).unwrap();
    fs::write(node.path("cdi/talks.json"), specification.to_string()).unwrap();
    let cdi = BTreeMap::from([("x".to_owned(), "example.com/device=talks".to_owned())]);
    let extras = Extras { cdi, ..Extras::default() };
    let plugin = serve(&node, &nodes(&node, &["x"]), extras, Script::default());
    node.run(&asking("one"));
    node.wait_running("one");
    node.remove("one");
    node.wait_gone("one");
    let log = node.agent_log();
    for point in POINTS {
        let said = format!("{point} hook /bin/sh: {point} has no cache");
        let lines: Vec<&str> = log.lines().filter(|line| line.contains(&said)).collect();
        assert!(matches!(lines[..], [line] if line.contains("container=\"a\"")), "{point}: {lines:#?}");
    }
    drop(plugin);
    node.finish();
}

#[test]
fn a_pod_whose_plugin_refuses_fails_and_its_device_is_another_pods() {
    needs_root!();
    let node = Node::start();
    let script = Script { allocate: Does::Fail("it is too warm"), ..Script::default() };
    let plugin = serve(&node, &nodes(&node, &["x"]), Extras::default(), script);
    node.run(&asking("refused"));
    let refused = node.wait_phase("refused", "Failed");
    assert_eq!(refused["status"]["reason"], "UnexpectedAdmissionError");
    let why = refused["status"]["message"].as_str().unwrap_or_default();
    assert!(why.contains("it is too warm") && why.contains(RESOURCE), "{why}");
    assert!(pod_resources(&node).values().all(Vec::is_empty), "{:?}", pod_resources(&node));
    plugin.script().allocate = Does::Answer;
    node.run(&asking("next"));
    node.wait_running("next");
    // One that failed stays so.
    assert_eq!(node.pod("refused").unwrap()["status"]["phase"], "Failed");
    for name in ["refused", "next"] {
        node.remove(name);
    }
    drop(plugin);
    node.finish();
}

/// A machine that has two NUMA nodes, as far as the kernel says; `None` where it says nothing.
fn with_two_numa_nodes() -> Option<Machine> {
    let online = "/sys/devices/system/node/online";
    if fs::metadata(online).is_err() {
        println!("skipped: this kernel knows of no NUMA nodes ({online})");
        return None;
    }
    let machine = Machine::new();
    let file = machine.path("online");
    fs::write(&file, "0-1\n").unwrap();
    let bound = machine.command("mount").arg("--bind").arg(&file).arg(online).status().unwrap();
    assert!(bound.success(), "{online} cannot be another on the machine");
    Some(machine)
}

#[test]
fn devices_far_from_each_other_are_refused_as_the_policy_says() {
    needs_root!();
    let refused = |node: &Node, name: &str| {
        let pod = node.wait_phase(name, "Failed");
        assert_eq!(pod["status"]["reason"], "TopologyAffinityError", "{:#}", pod["status"]);
        assert!(node.coracle_ok(&["describe", "pod", name]).contains("TopologyAffinityError"));
    };
    for policy in ["best-effort", "restricted", "single-numa-node"] {
        let Some(machine) = with_two_numa_nodes() else { return };
        let node = Node::start_on(machine, &format!("topologyManagerPolicy: {policy}\n"), Vec::new());
        let numa = [("a", 0), ("b", 0), ("c", 1)].map(|(id, node)| (id.to_owned(), node));
        let extras = Extras { numa: BTreeMap::from(numa), ..Extras::default() };
        let plugin = serve(&node, &nodes(&node, &["a", "b", "c"]), extras, Script::default());
        node.run(&asking_for("near", 2));
        node.wait_running("near");
        assert_eq!(given(&node, "near"), "a,b", "{policy}");
        node.remove("near");
        node.wait_gone("near");

        // With one of node 0 away, two that are free are on both.
        plugin.set_healthy("a", false);
        wait_until("two devices", SOON, || amounts(&node, RESOURCE).1 == json!("2"));
        node.run(&asking_for("far", 2));
        match policy {
            "best-effort" => assert_eq!(given_to_running(&node, "far"), "b,c"),
            _ => {
                refused(&node, "far");
                // Nothing of it is kept from others.
                node.run(&asking_for("single", 1));
                node.wait_running("single");
                node.remove("single");
            }
        }
        node.remove("far");
        drop(plugin);
        node.finish();
    }
}

fn given_to_running(node: &Node, name: &str) -> String {
    node.wait_running(name);
    given(node, name)
}

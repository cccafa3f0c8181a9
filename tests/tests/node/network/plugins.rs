//! Networks that are configured, and plugins that are not ours.

use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};

use coracle_tests::manifests::{idle, pod};
use coracle_tests::needs_root;
use coracle_tests::node::{Node, uid};
use coracle_tests::wait::{SOON, wait_for, wait_until};
use serde_json::{Value, json};

use super::{addresses, reaches};

/// Puts a configuration where the node looks for it, whole.
pub(crate) fn configure(node: &Node, file: &str, text: &str) {
    let directory = node.path("cni/net.d");
    fs::create_dir_all(&directory).unwrap();
    fs::write(node.path("cni/new"), text).unwrap();
    fs::rename(node.path("cni/new"), directory.join(file)).unwrap();
}

/// A plugin that is a shell script.
pub(crate) fn install(node: &Node, name: &str, script: &str) {
    let directory = node.path("cni/bin");
    fs::create_dir_all(&directory).unwrap();
    let (new, path) = (node.path("cni/new-plugin"), directory.join(name));
    fs::write(&new, format!("#!/bin/sh\n{script}\n")).unwrap();
    fs::set_permissions(&new, fs::Permissions::from_mode(0o755)).unwrap();
    fs::rename(new, path).unwrap();
}

/// The message of the event that a pod's sandbox could not be made.
fn failure(node: &Node, name: &str) -> String {
    let events = || node.coracle_ok(&["get", "events", "--for", &format!("pod/{name}")]);
    wait_for("the event", SOON, || Some(events()).filter(|it| it.contains("FailedCreatePodSandBox")))
}

fn condition(pod: &Value, kind: &str) -> Value {
    let all = pod["status"]["conditions"].as_array().unwrap().clone();
    all.into_iter().find(|one| one["type"] == kind).unwrap()["status"].clone()
}

#[test]
fn a_broken_configuration_keeps_pods_pending_until_it_is_mended() {
    needs_root!();
    let node = Node::start();
    configure(&node, "10-net.conflist", r#"{"cniVersion": "1.0.0", "name": "net", "plugins": []}"#);
    node.run(&pod("waits", vec![idle("c")]));
    let told = failure(&node, "waits");
    assert!(told.contains("10-net.conflist"), "{told}");
    let seen = node.wait_phase("waits", "Pending");
    assert_eq!(condition(&seen, "PodReadyToStartContainers"), "False");
    let answer = node.coracle(&["get", "pods"]);
    assert!(answer.stderr.contains("network is not ready"), "{}", answer.stderr);

    configure(
        &node,
        "10-net.conflist",
        r#"{"cniVersion": "1.0.0", "name": "net", "plugins": [{"type": "says-no"}]}"#,
    );
    install(
        &node,
        "says-no",
        r#"[ $CNI_COMMAND = DEL ] && exit; echo '{"code": 7, "msg": "no more", "details": "of these"}'; exit 1"#,
    );
    wait_until("the plugin's message", SOON, || failure(&node, "waits").contains("no more"));
    fs::remove_file(node.path("cni/net.d/10-net.conflist")).unwrap();
    let seen = node.wait_running("waits");
    assert_eq!(condition(&seen, "PodReadyToStartContainers"), "True");
    assert!(addresses(&seen)[0].to_string().starts_with("10.83."));
    let answer = node.coracle(&["get", "pods"]);
    assert!(!answer.stderr.contains("network is not ready"), "{}", answer.stderr);
    node.finish();
}

#[test]
fn that_the_network_is_not_ready_is_said_for_as_long_as_it_is_so() {
    needs_root!();
    let mut node = Node::start();
    node.kill_agent();
    configure(&node, "10-net.conflist", "{}");
    node.start_agent();
    let said = || node.coracle(&["get", "pods"]).stderr.contains("network is not ready");
    wait_until("the problem", SOON, said);
    // Also where no pod is attached meanwhile.
    fs::remove_file(node.path("cni/net.d/10-net.conflist")).unwrap();
    wait_until("the problem to be gone", SOON, || !said());
    node.finish();
}

#[test]
fn plugins_of_others_connect_pods_too() {
    needs_root!();
    let node = Node::start();
    fs::create_dir_all(node.path("cni/bin")).unwrap();
    // Under names that are not ours, or ours would be used.
    for name in ["bridge", "host-local"] {
        symlink(format!("/usr/lib/cni/{name}"), node.path("cni/bin").join(format!("debian-{name}"))).unwrap();
    }
    let list = json!({
        "cniVersion": "1.0.0",
        "name": "debian",
        "plugins": [
            {
                "type": "debian-bridge",
                "bridge": "deb0",
                "isGateway": true,
                "ipam": {
                    "type": "debian-host-local",
                    "dataDir": node.path("debian"),
                    "ranges": [[{"subnet": "10.99.0.0/24"}]],
                },
            },
            // One of ours among them.
            {"type": "portmap", "capabilities": {"portMappings": true}},
        ],
    });
    configure(&node, "10-debian.conflist", &list.to_string());
    node.run(&pod("a", vec![idle("c")]));
    node.run(&pod("b", vec![idle("c")]));
    let (a, b) = (node.wait_running("a"), node.wait_running("b"));
    let address = addresses(&b)[0];
    assert!(address.to_string().starts_with("10.99.0."), "{address}");
    reaches(node.container_pid(&a, "c"), node.container_pid(&b, "c"), address);

    // What was made with one configuration is taken back with it.
    fs::remove_file(node.path("cni/net.d/10-debian.conflist")).unwrap();
    node.remove("a");
    node.remove("b");
    node.wait_gone("a");
    node.wait_gone("b");
    let given = fs::read_dir(node.path("debian/debian")).unwrap();
    let given = given.filter(|entry| entry.as_ref().unwrap().file_name().to_string_lossy().contains("10.99"));
    assert_eq!(given.count(), 0);
    node.finish();
}

#[test]
fn a_pod_can_be_removed_while_its_plugin_hangs_and_no_other_waits() {
    needs_root!();
    // Longer than anybody waits.
    let node = Node::start_with("cniTimeout: 10m\n");
    node.run(&pod("before", vec![idle("c")]));
    node.wait_running("before");
    let list = json!({"cniVersion": "1.0.0", "name": "slow", "plugins": [{"type": "hangs"}]});
    configure(&node, "10-slow.conflist", &list.to_string());
    // Notes that it was asked, and what for.
    let calls = node.path("calls");
    let script = format!(
        "echo $CNI_COMMAND $CNI_CONTAINERID >> {}; [ $CNI_COMMAND = ADD ] && exec sleep 1000; exit 0",
        calls.display()
    );
    install(&node, "hangs", &script);
    let called = |what: &str| fs::read_to_string(&calls).unwrap_or_default().contains(what);
    node.run(&pod("hung", vec![idle("c")]));
    wait_until("the plugin to hang", SOON, || called("ADD"));
    let hung = node.pod("hung").unwrap();

    // Others go on meanwhile.
    fs::remove_file(node.path("cni/net.d/10-slow.conflist")).unwrap();
    node.run(&pod("beside", vec![idle("c")]));
    node.wait_running("beside");
    node.remove("before");
    node.wait_gone("before");

    node.remove("hung");
    node.wait_gone("hung");
    let id = format!("DEL {}-0", uid(&hung));
    assert!(called(&id), "what hung is taken back: {:?}", fs::read_to_string(&calls));
    node.finish();
}

#[test]
fn a_plugin_that_cannot_take_back_is_told_of_and_asked_again() {
    needs_root!();
    let node = Node::start();
    let list = json!({"cniVersion": "1.0.0", "name": "stuck", "plugins": [{"type": "keeps"}]});
    configure(&node, "10-stuck.conflist", &list.to_string());
    let free = node.path("free");
    let script = format!(
        r#"case $CNI_COMMAND in
        ADD) echo '{{"cniVersion": "1.0.0", "ips": [{{"address": "10.98.0.7/24"}}]}}' ;;
        DEL) [ -e {} ] || {{ echo '{{"code": 11, "msg": "still in use"}}'; exit 1; }} ;;
        esac"#,
        free.display()
    );
    install(&node, "keeps", &script);
    node.run(&pod("kept", vec![idle("c")]));
    assert_eq!(addresses(&node.wait_running("kept"))[0].to_string(), "10.98.0.7");
    node.remove("kept");
    let events = || node.coracle_ok(&["get", "events", "--for", "pod/kept"]);
    wait_until("the event", SOON, || {
        let events = events();
        events.contains("FailedKillPod") && events.contains("still in use")
    });
    assert!(node.pod("kept").is_some());
    fs::write(free, "").unwrap();
    node.wait_gone("kept");
    node.finish();
}

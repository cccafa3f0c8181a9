//! Sidecars: they start before, and end after, what they serve.

use std::fs;

use coracle_tests::manifests::{pod, shell, with, with_shared};
use coracle_tests::needs_root;
use coracle_tests::node::{Node, container_status};
use coracle_tests::wait::{SOON, wait_until};
use serde_json::{Value, json};

/// Notes on the host when it starts and when it is asked to end, and takes a moment for that.
fn noting(name: &str) -> Value {
    let end = format!("usleep 200000; echo {name} ends >> /data/course; exit 0");
    shell(
        name,
        &format!("trap '{end}' TERM; echo {name} >> /data/course; while :; do sleep 3600 & wait $!; done"),
    )
}

/// An init container that notes that it ran.
fn step(name: &str) -> Value {
    shell(name, &format!("echo {name} >> /data/course"))
}

fn sidecar(container: Value) -> Value {
    with(container, "restartPolicy", json!("Always"))
}

/// A pod of two init containers around a sidecar that takes a while to start, and another sidecar.
fn served(node: &Node, name: &str, app: Value) -> Value {
    let started = "usleep 300000; touch /data/up; echo proxy up >> /data/course";
    let proxy = sidecar(noting("proxy"));
    let script = proxy["command"][2].as_str().unwrap().replace("; while", &format!("; {started}; while"));
    let proxy = with(proxy, "command.2", json!(script));
    let probe =
        json!({"exec": {"command": ["test", "-e", "/data/up"]}, "periodSeconds": 1, "failureThreshold": 30});
    let inits = json!([
        step("first"),
        with(proxy, "startupProbe", probe),
        step("second"),
        sidecar(noting("shipper"))
    ]);
    let served = with(pod(name, vec![app]), "spec.initContainers", inits);
    let served = with(served, "spec.terminationGracePeriodSeconds", json!(30));
    with_shared(served, "data", &node.path("data"), "/data")
}

fn course(node: &Node) -> Vec<String> {
    let text = fs::read_to_string(node.path("data/course")).unwrap_or_default();
    text.lines().map(str::to_owned).collect()
}

#[test]
fn sidecars_start_in_turn_and_end_after_the_app_containers_in_reverse_order() {
    needs_root!();
    let node = Node::start();
    node.run(&served(&node, "served", noting("web")));
    node.wait_running("served");
    let ready = node.wait_pod("served", "to be ready", |pod| {
        let all = pod["status"]["conditions"].as_array().unwrap();
        all.iter().any(|condition| condition["type"] == "Ready" && condition["status"] == "True")
    });
    let started = ["first", "proxy", "proxy up", "second", "shipper", "web"];
    wait_until("all to have noted their start", SOON, || course(&node).len() == started.len());
    assert_eq!(course(&node), started);
    for name in ["proxy", "shipper"] {
        let status = container_status(&ready, name);
        assert_eq!((&status["started"], &status["ready"]), (&json!(true), &json!(true)), "{status}");
    }
    node.remove("served");
    node.wait_gone("served");
    assert_eq!(course(&node)[started.len()..], ["web ends", "shipper ends", "proxy ends"]);
    node.finish();
}

#[test]
fn a_pod_with_sidecars_ends_when_its_app_containers_have() {
    needs_root!();
    let node = Node::start();
    let job = served(&node, "job", shell("web", "echo web >> /data/course; exit 0"));
    node.run(&with(job, "spec.restartPolicy", json!("OnFailure")));
    let ended = node.wait_phase("job", "Succeeded");
    assert_eq!(course(&node)[5..], ["web", "shipper ends", "proxy ends"]);
    for name in ["proxy", "shipper"] {
        let status = container_status(&ended, name);
        assert_eq!(status["state"]["terminated"]["exitCode"], 0, "{status}");
        assert_eq!(status["restartCount"], 0, "{status}");
    }
    node.finish();
}

#[test]
fn a_sidecar_that_ends_is_started_again_and_the_pod_runs_on() {
    needs_root!();
    let node = Node::start();
    node.run(&with(served(&node, "served", noting("web")), "spec.restartPolicy", json!("Never")));
    let before = node.wait_running("served");
    let pid = node.container_pid(&before, "web");
    coracle_tests::processes::kill(node.container_pid(&before, "shipper"));
    let after = node.wait_pod("served", "to have its sidecar back", |pod| {
        let status = container_status(pod, "shipper");
        status["restartCount"] == 1 && status["state"]["running"].is_object()
    });
    assert_eq!(after["status"]["phase"], "Running");
    assert_eq!(node.container_pid(&after, "web"), pid);
    assert_eq!(container_status(&after, "first")["restartCount"], 0, "init containers run once");
    node.finish();
}

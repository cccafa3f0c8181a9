//! Probes against real servers, and what their results do to containers and pods.
//!
//! Containers write the times of what they see into a directory of the host, by the machine's uptime: probes must
//! never be early, and what follows from them comes within a period.

mod processes;
mod results;

use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use coracle_tests::images::NGINX;
use coracle_tests::manifests::{idle, pod, shell, with, with_host_path};
use coracle_tests::needs_root;
use coracle_tests::node::{Node, container_status};
use coracle_tests::wait::{SOON, deadline, patience};
use serde_json::{Value, json};

/// Appends the machine's uptime to a file of the pod's directory.
fn note(file: &str) -> String {
    format!("read up rest < /proc/uptime; echo $up >> /data/{file}")
}

/// A program that is killed where it does not want to end.
const STUBBORN: &str = "trap '' TERM; while :; do sleep 3600; done";

/// The times, in seconds, that containers have noted.
fn times(node: &Node, file: &str) -> Vec<f64> {
    let text = fs::read_to_string(node.path("data").join(file)).unwrap_or_default();
    text.lines().filter_map(|line| line.parse().ok()).collect()
}

/// A pod of these containers, of which the first has the node's directory `data` at /data.
fn with_data(node: &Node, name: &str, containers: Vec<Value>) -> Value {
    with_host_path(pod(name, containers), "data", &node.path("data"), "/data")
}

/// A probe by a shell script, every second from the start on.
fn by_shell(script: &str, failure_threshold: u32) -> Value {
    json!({
        "exec": {"command": ["/bin/sh", "-c", script]},
        "periodSeconds": 1, "timeoutSeconds": 5, "failureThreshold": failure_threshold,
    })
}

/// A probe of another kind, every second from the start on.
fn by(kind: &str, action: Value) -> Value {
    json!({kind: action, "periodSeconds": 1, "timeoutSeconds": 5, "failureThreshold": 2})
}

fn is_ready(pod: &Value) -> bool {
    let conditions = pod["status"]["conditions"].as_array().into_iter().flatten();
    conditions.into_iter().any(|it| it["type"] == "Ready" && it["status"] == "True")
}

#[track_caller]
fn wait_ready(node: &Node, name: &str, ready: bool) -> Value {
    node.wait_pod(name, if ready { "to be ready" } else { "not to be ready" }, |pod| is_ready(pod) == ready)
}

/// The messages of a pod's events of a reason.
fn messages(node: &Node, name: &str, reason: &str) -> Vec<String> {
    let text = node.coracle_ok(&["get", "events", "--for", &format!("pod/{name}"), "--output", "json"]);
    let list: Value = serde_json::from_str(&text).unwrap();
    let events = list["items"].as_array().unwrap().iter().filter(|event| event["reason"] == reason);
    events.map(|event| event["message"].as_str().unwrap_or_default().to_owned()).collect()
}

#[track_caller]
fn wait_message(node: &Node, name: &str, reason: &str, text: &str) -> String {
    let end = deadline(SOON);
    loop {
        let messages = messages(node, name, reason);
        if let Some(message) = messages.iter().find(|message| message.contains(text)) {
            return message.clone();
        }
        assert!(Instant::now() < end, "no {reason} with {text:?}: {messages:#?}\n{}", node.agent_log());
        std::thread::sleep(Duration::from_millis(10));
    }
}

/// That something did not come when it should, in words: the machine may have been busy.
type Punctual = Result<(), String>;

/// Says if something did not come between `after` and `within` later, on an emulated machine a multiple of it. What is noted late makes what comes after it
/// look early.
fn between(what: &str, took: f64, after: f64, within: f64) -> Punctual {
    let within = within * f64::from(patience());
    // Uptime has hundredths of a second, and shells take their time to note it.
    match (after - 0.05..=after + within).contains(&took) {
        true => Ok(()),
        false => Err(format!("{what} came after {took} s, not {after} to {} s", after + within)),
    }
}

/// Runs a scenario as often as the machine is too busy to be on time.
fn on_time(scenario: impl Fn() -> Punctual) {
    let untimely: Vec<String> = (0..4).map_while(|_| scenario().err()).collect();
    assert!(untimely.len() < 4, "never on time: {untimely:#?}");
}

/// A container of nginx, of which the node has the image then.
fn nginx(node: &Node, name: &str) -> Value {
    node.import("nginx", NGINX);
    json!({
        "name": name, "image": NGINX,
        "ports": [{"name": "web", "containerPort": 80}],
    })
}

#[test]
fn readiness_follows_a_web_server() {
    needs_root!();
    let node = Node::start();
    let site = node.path("site");
    fs::create_dir_all(&site).unwrap();
    fs::write(site.join("index.html"), "well").unwrap();
    let ready = by("httpGet", json!({"path": "/index.html", "port": "web"}));
    let web = with(nginx(&node, "web"), "readinessProbe", ready);
    node.run(&with_host_path(pod("web", vec![web]), "site", &site, "/usr/share/nginx/html"));
    let seen = wait_ready(&node, "web", true);
    assert_eq!(
        (&container_status(&seen, "web")["ready"], &container_status(&seen, "web")["started"]),
        (&json!(true), &json!(true))
    );

    fs::rename(site.join("index.html"), site.join("gone.html")).unwrap();
    let seen = wait_ready(&node, "web", false);
    assert_eq!(container_status(&seen, "web")["restartCount"], 0, "readiness ends nothing");
    wait_message(&node, "web", "Unhealthy", "Readiness probe failed: HTTP probe failed with statuscode: 404");
    fs::rename(site.join("gone.html"), site.join("index.html")).unwrap();
    wait_ready(&node, "web", true);
    assert!(node.logs("web", "web").contains("kube-probe/1."), "nginx logs who asks");
    node.finish();
}

#[test]
fn every_kind_finds_its_server_in_the_pod() {
    needs_root!();
    let node = Node::start();
    let probed = |name: &str, probe: Value| with(idle(name), "readinessProbe", probe);
    let containers = vec![
        nginx(&node, "web"),
        // nginx has no page, and says so.
        probed("http", by("httpGet", json!({"path": "/", "port": 80}))),
        probed("tcp", by("tcpSocket", json!({"port": 80}))),
        probed("exec", by_shell("exit 0", 2)),
    ];
    node.run(&pod("kinds", containers));
    let seen = node.wait_pod("kinds", "to have been probed", |pod| {
        ["web", "tcp", "exec"].iter().all(|name| container_status(pod, name)["ready"] == true)
    });
    assert_eq!(container_status(&seen, "http")["ready"], false);
    wait_message(
        &node,
        "kinds",
        "Unhealthy",
        "Readiness probe failed: HTTP probe failed with statuscode: 403",
    );
    assert!(!is_ready(&node.pod("kinds").unwrap()));
    // A pod each: of one alone, only so many events are told.
    let failing = [
        (
            "closed",
            by("tcpSocket", json!({"port": 81})),
            "failed: dial tcp POD:81: connect: connection refused",
        ),
        (
            "nobody",
            by("httpGet", json!({"path": "/x", "port": 81})),
            "failed: Get \"http://POD:81/x\": dial tcp POD:81: connect: connection refused",
        ),
        ("bad", by_shell("echo really >&2; echo all is lost; exit 3", 2), "failed: all is lost\nreally\n"),
        (
            "none",
            by("exec", json!({"command": ["/no/such/program"]})),
            "errored and resulted in unknown state: ",
        ),
    ];
    for (name, probe, _) in &failing {
        node.run(&pod(name, vec![probed("c", probe.clone())]));
    }
    for (name, _, message) in &failing {
        let address = node.wait_running(name)["status"]["podIP"].as_str().unwrap().to_owned();
        let message = message.replace("POD", &address);
        let told = wait_message(&node, name, "Unhealthy", &format!("Readiness probe {message}"));
        assert!(*name != "none" || told.contains("/no/such/program"), "{told}");
        assert_eq!(container_status(&node.pod(name).unwrap(), "c")["ready"], false);
    }
    node.finish();
}

/// The server of agent/probe's examples, which are built with the tests.
fn grpc_server() -> PathBuf {
    let tests = std::env::current_exe().unwrap();
    let program = tests.parent().and_then(Path::parent).unwrap().join("examples/grpc-health-server");
    assert!(program.exists(), "{} is built with the workspace's tests", program.display());
    program
}

#[test]
fn a_grpc_server_says_how_it_is() {
    needs_root!();
    let node = Node::start();
    // It is linked to the host's libraries.
    let mut serving = shell("server", "exec /opt/grpc-health-server 9090 shop.Cart");
    serving["livenessProbe"] = by("grpc", json!({"port": 9090}));
    serving["readinessProbe"] = by("grpc", json!({"port": 9090, "service": "shop.Cart"}));
    let mut wanted = pod("grpc", vec![serving]);
    for (name, host, mount) in [
        ("program", grpc_server().parent().unwrap().to_owned(), "/opt"),
        ("lib", "/usr/lib".into(), "/usr/lib"),
        ("lib64", "/usr/lib64".into(), "/usr/lib64"),
    ] {
        if host.is_dir() {
            wanted = with_host_path(wanted, name, &host, mount);
        }
    }
    node.run(&wanted);
    wait_ready(&node, "grpc", true);
    node.coracle_ok(&["exec", "grpc", "--", "sh", "-c", "kill -USR1 1"]);
    let seen = wait_ready(&node, "grpc", false);
    wait_message(
        &node,
        "grpc",
        "Unhealthy",
        "Readiness probe failed: service unhealthy (responded with \"NOT_SERVING\")",
    );
    assert_eq!(container_status(&seen, "server")["restartCount"], 0, "the server itself serves");
    node.coracle_ok(&["exec", "grpc", "--", "sh", "-c", "kill -USR2 1"]);
    wait_ready(&node, "grpc", true);
    node.finish();
}

#[test]
fn a_host_is_reached_from_the_node_and_the_nodes_pods_by_its_loopback() {
    needs_root!();
    let node = Node::start();
    let tcp = |action: Value| by("tcpSocket", action);
    let web = with(nginx(&node, "web"), "readinessProbe", tcp(json!({"port": 80})));
    node.run(&with(pod("web", vec![web]), "spec.hostNetwork", json!(true)));
    // In a network namespace of its own, where nobody listens.
    let mut there = idle("there");
    there["readinessProbe"] = by("tcpSocket", json!({"host": "127.0.0.1", "port": 80}));
    let here = with(idle("here"), "readinessProbe", tcp(json!({"port": 80})));
    node.run(&pod("asks", vec![there, here]));
    wait_ready(&node, "web", true);
    let seen =
        node.wait_pod("asks", "to reach the host", |pod| container_status(pod, "there")["ready"] == true);
    assert_eq!(container_status(&seen, "here")["ready"], false);
    node.finish();
}

//! Hooks that are GET requests.

use std::time::Duration;

use coracle_tests::http::{Serve, Server, header};
use coracle_tests::manifests::{idle, pod, shell, with};
use coracle_tests::needs_root;
use coracle_tests::node::{Node, container_id, container_status};
use coracle_tests::wait::{SOON, wait_for, wait_until};
use serde_json::{Value, json};

use super::{assert_ends_after, hooked};

const PORT: u16 = 8080;
/// Where nobody listens.
const CLOSED: u16 = 8081;

fn get(port: u16, path: &str) -> Value {
    json!({"httpGet": {"port": port, "path": path}})
}

fn body() -> Serve {
    Serve::Body { body: "well".to_owned(), tag: None }
}

/// A pod in the network of the machine, where a test's server is before it starts.
fn on_machine(node: &Node, name: &str, container: Value, lifecycle: Value) -> Value {
    with(hooked(node, name, container, lifecycle, 30), "spec.hostNetwork", json!(true))
}

/// A pod's event of a reason, once there is one.
#[track_caller]
fn wait_event(node: &Node, name: &str, reason: &str) -> Value {
    wait_for(format_args!("{reason} of {name}"), SOON, || {
        let text = node.coracle_ok(&["get", "events", "--for", &format!("pod/{name}"), "--output", "json"]);
        let list: Value = serde_json::from_str(&text).unwrap();
        let events = list["items"].as_array().cloned().unwrap_or_default();
        events.into_iter().find(|event| event["reason"] == reason)
    })
}

/// The requests a server has had, as method and path.
fn lines(server: &Server) -> Vec<String> {
    let line = |head: String| head.lines().next().unwrap_or_default().to_owned();
    server.asked().into_iter().map(|asked| line(asked.head)).collect()
}

#[test]
fn both_hooks_ask_and_any_answer_will_do() {
    needs_root!();
    let node = Node::start();
    // In Kubernetes a hook has failed when there is no answer, and not when it is a bad one.
    let server = Server::start(node.machine(), PORT, Serve::Status("500 Internal Server Error"));
    let start = json!({"httpGet": {
        "port": PORT, "path": "/start?x=y", "host": "127.0.0.1",
        "httpHeaders": [{"name": "X-Who", "value": "me"}, {"name": "Host", "value": "example.org"}],
    }});
    let lifecycle = json!({"postStart": start, "preStop": get(PORT, "/stop")});
    let pod = on_machine(&node, "asks", idle("c"), lifecycle);
    node.run(&pod);
    let seen = node.wait_running("asks");
    assert_eq!(container_status(&seen, "c")["started"], true);
    assert_eq!(lines(&server), ["GET /start?x=y HTTP/1.1"], "the other one is for its end");
    let head = server.asked().remove(0).head;
    for (name, value) in [("host", "example.org"), ("x-who", "me"), ("accept", "*/*")] {
        assert_eq!(header(&head, name), Some(value), "{head}");
    }
    let agent = header(&head, "user-agent").unwrap_or_default();
    assert!(agent.starts_with("kube-lifecycle/1."), "{head}");
    let id = container_id(&seen, "c");
    node.remove("asks");
    node.wait_gone("asks");
    assert_eq!(lines(&server), ["GET /start?x=y HTTP/1.1", "GET /stop HTTP/1.1"]);
    let events = node.coracle_ok(&["get", "events", "--for", "pod/asks"]);
    assert!(!events.contains("Hook"), "{id}: {events}");
    node.finish();
}

#[test]
fn a_container_waits_for_the_answer_to_its_post_start_request() {
    needs_root!();
    let node = Node::start();
    let server = Server::start(node.machine(), PORT, Serve::Silence);
    let mut both = on_machine(&node, "waits", idle("c"), json!({"postStart": get(PORT, "/")}));
    both["spec"]["containers"].as_array_mut().unwrap().push(idle("later"));
    // The signal may come before the shell has a handler for it.
    node.run(&with(both, "spec.terminationGracePeriodSeconds", json!(1)));
    wait_until("the request", SOON, || !server.asked().is_empty());
    let seen = node.pod("waits").unwrap();
    for name in ["c", "later"] {
        let status = container_status(&seen, name);
        assert_eq!(status["state"]["waiting"]["reason"], "ContainerCreating", "{status}");
    }
    // Its connection breaks off: that is no answer.
    drop(server);
    let event = wait_event(&node, "waits", "FailedPostStartHook");
    assert_eq!(event["message"], "PostStartHook failed", "{event}");
    let server = Server::start(node.machine(), PORT, body());
    let seen = node.wait_running("waits");
    assert!(container_status(&seen, "c")["restartCount"].as_u64() >= Some(1), "the first was ended");
    drop(server);
    node.finish();
}

#[test]
fn a_post_start_request_that_nobody_answers_ends_the_container() {
    needs_root!();
    let node = Node::start();
    let fails = on_machine(&node, "fails", idle("c"), json!({"postStart": get(CLOSED, "/secret")}));
    // The signal may come before the shell has a handler for it.
    node.run(&with(fails, "spec.terminationGracePeriodSeconds", json!(1)));
    node.wait_pod("fails", "to be in a crash loop", |pod| {
        let status = container_status(pod, "c");
        status["restartCount"] == 1 && status["state"]["waiting"]["reason"] == "CrashLoopBackOff"
    });
    let event = wait_event(&node, "fails", "FailedPostStartHook");
    assert_eq!((&event["type"], &event["message"]), (&json!("Warning"), &json!("PostStartHook failed")));
    assert_eq!(event["involvedObject"]["fieldPath"], "spec.containers{c}");
    assert!(node.agent_log().contains("127.0.0.1:8081: connect: connection refused"), "why is in the log");
    node.finish();
}

#[test]
fn a_pre_stop_request_reaches_the_pods_own_network_and_falls_back_to_plain_http() {
    needs_root!();
    let node = Node::start();
    let container = with(idle("c"), "ports", json!([{"name": "admin", "containerPort": PORT}]));
    let stop = json!({"httpGet": {
        "port": "admin", "path": "/stop", "scheme": "HTTPS",
        "httpHeaders": [{"name": "Authorization", "value": "secret"}, {"name": "X-Who", "value": "me"}],
    }});
    node.run(&pod("own", vec![with(container, "lifecycle", json!({"preStop": stop}))]));
    let seen = node.wait_running("own");
    // Another one listens on the machine's own loopback.
    let outside = Server::start(node.machine(), PORT, body());
    let inside = Server::start_in(node.pause_pid(&seen), PORT, body());
    node.remove("own");
    node.wait_gone("own");
    assert_eq!((lines(&inside), lines(&outside)), (vec!["GET /stop HTTP/1.1".to_owned()], Vec::new()));
    let head = inside.asked().remove(0).head;
    assert_eq!((header(&head, "authorization"), header(&head, "x-who")), (None, Some("me")), "in the clear");
    let event = wait_event(&node, "own", "LifecycleHTTPFallback");
    assert!(event["message"].as_str().unwrap().contains("retry with HTTP succeeded"), "{event}");
    drop((inside, outside));
    node.finish();
}

#[test]
fn a_pre_stop_request_that_fails_or_hangs_holds_up_the_signal_no_longer_than_the_grace_period() {
    needs_root!();
    let node = Node::start();
    let server = Server::start(node.machine(), PORT, Serve::Silence);
    let stops = |name: &str, port: u16, grace: u64| {
        let asks = on_machine(&node, name, idle("c"), json!({"preStop": get(port, "/stop")}));
        with(asks, "spec.terminationGracePeriodSeconds", json!(grace))
    };
    assert_ends_after(&node, "closed", &stops("closed", CLOSED, 600), Duration::ZERO);
    wait_event(&node, "closed", "FailedPreStopHook");
    assert_ends_after(&node, "silent", &stops("silent", PORT, 2), Duration::from_secs(2));
    wait_event(&node, "silent", "FailedPreStopHook");
    // Nor does an answer that does not end.
    server.serve(Serve::Hang);
    assert_ends_after(&node, "slow", &stops("slow", PORT, 2), Duration::from_secs(2));
    drop(server);
    node.finish();
}

#[test]
fn an_agent_killed_during_a_pre_stop_request_makes_it_again() {
    needs_root!();
    let mut node = Node::start();
    let server = Server::start(node.machine(), PORT, Serve::Silence);
    let script = "trap 'exit 0' TERM; while :; do sleep 3600 & wait $!; done";
    node.run(&with(
        on_machine(&node, "asks", shell("c", script), json!({"preStop": get(PORT, "/stop")})),
        "spec.terminationGracePeriodSeconds",
        json!(600),
    ));
    node.wait_running("asks");
    node.remove("asks");
    wait_until("the request", SOON, || server.asked().len() == 1);
    node.kill_agent();
    server.serve(body());
    node.start_agent();
    node.wait_gone("asks");
    assert_eq!(lines(&server), ["GET /stop HTTP/1.1", "GET /stop HTTP/1.1"]);
    drop(server);
    node.finish();
}

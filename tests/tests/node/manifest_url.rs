//! Manifests that are served at a URL.

use std::fs;
use std::time::{Duration, Instant};

use coracle_tests::http::{Serve, Server, header};
use coracle_tests::manifests::{idle, pod, with};
use coracle_tests::needs_root;
use coracle_tests::node::{Node, container_id, container_status};
use coracle_tests::processes;
use coracle_tests::wait::{SOON, deadline, holds_for, wait_for, wait_until};
use serde_json::{Value, json};

const PORT: u16 = 8080;
const URL: &str = "http://127.0.0.1:8080/pods";

/// A node that asks this machine's server for manifests, every second.
fn node() -> Node {
    Node::start_with(
        "staticPodURL: http://me:pass-1@127.0.0.1:8080/pods?key=query-1\n\
         staticPodURLHeader: {X-Token: [token-1, token-2]}\n\
         httpCheckFrequency: 1s\n",
    )
}

/// Serves these objects as one list.
fn objects(objects: &[Value]) -> Serve {
    let list = json!({"apiVersion": "v1", "kind": "List", "items": objects});
    Serve::Body { body: list.to_string(), tag: None }
}

/// Waits until the server was asked so often after now.
fn wait_asked(server: &Server, more: usize) {
    let before = server.asked().len();
    wait_until("the server to be asked", SOON, || server.asked().len() >= before + more);
}

fn node_events(node: &Node, reason: &str) -> Vec<Value> {
    let text = node.coracle_ok(&["get", "events", "--for", "node/node", "--output", "json"]);
    let list: Value = serde_json::from_str(&text).unwrap();
    let items = list["items"].as_array().cloned().unwrap_or_default();
    items.into_iter().filter(|event| event["reason"] == reason).collect()
}

#[track_caller]
fn wait_node_event(node: &Node, reason: &str, text: &str) -> Value {
    let end = deadline(SOON);
    loop {
        let events = node_events(node, reason);
        let found = |event: &&Value| event["message"].as_str().is_some_and(|message| message.contains(text));
        if let Some(event) = events.iter().find(found) {
            return event.clone();
        }
        assert!(Instant::now() < end, "no {reason} with {text:?}: {events:#?}\n{}", node.agent_log());
        std::thread::sleep(Duration::from_millis(10));
    }
}

/// Ends the pods of the server and then the node.
fn finish(node: Node, server: &Server) {
    server.serve(objects(&[]));
    node.finish();
}

#[test]
fn pods_come_change_and_go_with_what_a_url_serves() {
    needs_root!();
    let node = node();
    let served = |image_command: &str, tag: &str| {
        let web = with(pod("web", vec![idle("c")]), "metadata.labels", json!({"version": image_command}));
        let body = json!({"apiVersion": "v1", "kind": "PodList", "items": [web]}).to_string();
        Serve::Body { body, tag: Some(format!("\"{tag}\"")) }
    };
    let server = Server::start(node.machine(), PORT, served("one", "1"));
    let first = node.wait_running("web");
    assert_eq!(first["metadata"]["annotations"]["kubernetes.io/config.source"], "http");

    // Once it is known, it is not sent again.
    wait_until("answers of 304", SOON, || {
        server.asked().iter().filter(|asked| asked.status.starts_with("304")).count() >= 3
    });
    let asked = server.asked();
    assert_eq!(asked.iter().filter(|asked| asked.status.starts_with("200")).count(), 1, "{asked:#?}");
    assert!(asked[0].head.starts_with("GET /pods?key=query-1 HTTP/1.1\r\n"), "{}", asked[0].head);
    for asked in &asked {
        assert_eq!(header(&asked.head, "authorization"), Some("Basic bWU6cGFzcy0x"));
        assert_eq!(asked.head.matches("x-token: token-").count(), 2, "{}", asked.head);
    }
    for pair in asked.windows(2) {
        let apart = pair[1].at - pair[0].at;
        assert!(apart >= Duration::from_millis(990), "asked again after {apart:?}");
    }

    server.serve(served("two", "2"));
    let second =
        node.wait_pod("web", "to be the new one", |pod| pod["metadata"]["labels"]["version"] == "two");
    assert_ne!(first["metadata"]["uid"], second["metadata"]["uid"], "a changed manifest is a new pod");
    node.wait_running("web");
    server.serve(objects(&[]));
    node.wait_gone("web");

    let said = node.agent_log() + &node.coracle_ok(&["get", "events", "--output", "json"]);
    for secret in ["pass-1", "bWU6cGFzcy0x", "token-1", "query-1"] {
        assert!(!said.contains(secret), "{secret} in {said}");
    }
    finish(node, &server);
}

#[test]
fn a_server_that_fails_takes_nothing_and_is_told_once() {
    needs_root!();
    let node = node();
    let server = Server::start(node.machine(), PORT, objects(&[pod("web", vec![idle("c")])]));
    let before = node.wait_running("web");
    let problems = [
        (Serve::Status("503 Service Unavailable"), "FailedToRetrieveStaticPods", "status 503"),
        (
            Serve::Body { body: "<html>no".to_owned(), tag: None },
            "FailedValidation",
            "/pods:1:1: a manifest must",
        ),
        (Serve::Body { body: String::new(), tag: None }, "FailedValidation", "has answered with no object"),
    ];
    for (serve, reason, text) in problems {
        server.serve(serve);
        let event = wait_node_event(&node, reason, text);
        let logged = node.agent_log().matches(text).count();
        wait_asked(&server, 2);
        assert_eq!(wait_node_event(&node, reason, text)["count"], event["count"], "{event}");
        assert_eq!(node.agent_log().matches(text).count(), logged, "said once");
        assert!(node.coracle(&["get", "pods"]).stderr.contains(text), "whoever asks is told");
    }
    wait_node_event(&node, "RetrievedStaticPods", URL);
    let after = node.wait_running("web");
    assert_eq!(container_id(&after, "c"), container_id(&before, "c"));

    // One that never finishes, and one that is not there.
    server.serve(Serve::Hang);
    wait_node_event(&node, "FailedToRetrieveStaticPods", "has not answered completely within 10 s");
    node.run(&pod("beside", vec![idle("c")]));
    node.wait_running("beside");
    drop(server);
    wait_node_event(&node, "FailedToRetrieveStaticPods", "Connection refused");
    assert_eq!(container_id(&node.wait_running("web"), "c"), container_id(&before, "c"));
    let server = Server::start(node.machine(), PORT, objects(&[]));
    node.wait_gone("web");
    finish(node, &server);
}

#[test]
fn an_agent_that_starts_without_the_server_leaves_its_pods_alone() {
    needs_root!();
    let mut node = node();
    let secret = json!({
        "apiVersion": "v1", "kind": "Secret", "metadata": {"name": "login"}, "stringData": {"user": "admin"},
    });
    let mut web = pod("web", vec![idle("c")]);
    web["spec"]["containers"][0]["env"] = json!([{
        "name": "USER", "valueFrom": {"secretKeyRef": {"name": "login", "key": "user", "optional": true}},
    }]);
    let server = Server::start(node.machine(), PORT, objects(&[web.clone(), secret.clone()]));
    let before = node.wait_running("web");
    let pid = node.container_pid(&before, "c");
    node.stop_agent();
    drop(server);
    node.start_agent();
    // What is not of the URL is not held up by it.
    node.run(&pod("beside", vec![idle("c")]));
    node.wait_running("beside");
    wait_node_event(&node, "FailedToRetrieveStaticPods", "Connection refused");
    holds_for("the pod runs on", Duration::from_secs(3), || {
        node.pod("web").is_some_and(|pod| {
            container_id(&pod, "c") == container_id(&before, "c")
                && pod["metadata"]["deletionTimestamp"].is_null()
        })
    });

    // It comes back with what it had.
    processes::kill(pid);
    let back = |pod: &Value| {
        let status = container_status(pod, "c");
        status["restartCount"] == 1 && status["state"]["running"].is_object()
    };
    let after = node.wait_pod("web", "to be back", back);
    assert_eq!(after["metadata"]["uid"], before["metadata"]["uid"]);
    let user = |pod: &str| node.coracle_ok(&["exec", pod, "--", "sh", "-c", "echo $USER"]);
    assert_eq!(user("web"), "admin\n");

    // What nobody has been told of may still come: it is waited for, though it need not be there.
    let mut other = pod("other", vec![idle("c")]);
    other["spec"]["containers"][0]["env"] = json!([{
        "name": "USER", "valueFrom": {"secretKeyRef": {"name": "other", "key": "user", "optional": true}},
    }]);
    node.run(&other);
    let waiting = wait_for("the container to wait", SOON, || {
        let pod = node.pod("other")?;
        let waiting = container_status(&pod, "c")["state"]["waiting"].clone();
        waiting["message"].as_str().is_some_and(|message| message.contains("not found")).then_some(waiting)
    });
    assert_eq!(waiting["reason"], "CreateContainerConfigError", "{waiting}");
    assert!(waiting["message"].as_str().unwrap().contains("have not been read yet"), "{waiting}");
    let mut more = secret.clone();
    more["metadata"]["name"] = json!("other");
    let server = Server::start(node.machine(), PORT, objects(&[web, secret, more]));
    node.wait_running("other");
    assert_eq!(user("other"), "admin\n");
    assert_eq!(container_status(&node.pod("web").unwrap(), "c")["restartCount"], 1);
    finish(node, &server);
}

#[test]
fn a_url_that_is_no_longer_configured_takes_its_pods_with_it() {
    needs_root!();
    let mut node = node();
    let server = Server::start(node.machine(), PORT, objects(&[pod("web", vec![idle("c")])]));
    let before = node.wait_running("web");
    // Another address: its pods are the node's pods until it answers.
    node.stop_agent();
    fs::write(node.path("config.yaml"), "staticPodURL: http://127.0.0.1:8081/\nhttpCheckFrequency: 1s\n")
        .unwrap();
    node.start_agent();
    wait_node_event(&node, "FailedToRetrieveStaticPods", "127.0.0.1:8081");
    assert_eq!(container_id(&node.wait_running("web"), "c"), container_id(&before, "c"));
    let other = Server::start(node.machine(), 8081, objects(&[pod("db", vec![idle("c")])]));
    node.wait_running("db");
    node.wait_gone("web");
    node.stop_agent();
    fs::write(node.path("config.yaml"), "").unwrap();
    node.start_agent();
    node.wait_gone("db");
    drop((server, other));
    node.finish();
}

#[test]
fn a_pod_in_the_directory_and_at_the_url_is_a_conflict_that_names_both() {
    needs_root!();
    let node = node();
    let server = Server::start(node.machine(), PORT, objects(&[pod("web", vec![idle("url")])]));
    let before = node.wait_running("web");
    node.run(&pod("web", vec![idle("file")]));
    for holder in ["/manifests/web.yaml", URL] {
        let text = format!("{holder}; the pod from {URL} stays as it is until only one defines it");
        let named =
            if holder == URL { "/manifests/web.yaml: pod default/web is defined also in " } else { "" };
        let event = wait_node_event(&node, "FailedValidation", &text);
        assert!(event["message"].as_str().unwrap().contains(named), "{event}");
    }
    assert_eq!(node.pod("web").unwrap()["metadata"]["uid"], before["metadata"]["uid"]);
    server.serve(objects(&[]));
    node.wait_pod("web", "to be the file's", |pod| pod["spec"]["containers"][0]["name"] == "file");
    node.wait_running("web");
    finish(node, &server);
}

//! What happened is told, counted and kept.

use std::fs;
use std::io::{BufRead, BufReader};
use std::process::Stdio;
use std::sync::mpsc;
use std::time::Instant;

use coracle_tests::manifests::{idle, pod, shell};
use coracle_tests::needs_root;
use coracle_tests::node::{Node, uid};
use coracle_tests::wait::{SOON, deadline, wait_for, wait_until};
use serde_json::{Value, json};

/// The events of an object, as `get events -o json` shows them.
fn events(node: &Node, object: &str) -> Vec<Value> {
    let text = node.coracle_ok(&["get", "events", "--for", object, "--output", "json"]);
    let list: Value = serde_json::from_str(&text).unwrap();
    list["items"].as_array().unwrap().clone()
}

/// Waits until the event of that reason has happened so often; the event.
#[track_caller]
fn wait_event(node: &Node, object: &str, reason: &str, count: u64) -> Value {
    let end = deadline(SOON);
    loop {
        let events = events(node, object);
        let wanted = |it: &&Value| it["reason"] == reason && it["count"].as_u64() >= Some(count);
        if let Some(event) = events.iter().find(wanted) {
            return event.clone();
        }
        assert!(Instant::now() < end, "no {reason} x{count} in {events:#?}");
        std::thread::sleep(std::time::Duration::from_millis(10));
    }
}

#[test]
fn events_of_a_crash_loop_are_counted_and_outlive_the_agent_and_the_pod() {
    needs_root!();
    let mut node = Node::start();
    let arguments = ["get", "events", "--for", "pod/loops", "--watch"];
    let mut follower = node.command(&arguments).stdout(Stdio::piped()).stderr(Stdio::null()).spawn().unwrap();
    let (send, followed) = mpsc::channel();
    let output = BufReader::new(follower.stdout.take().unwrap());
    let reading =
        std::thread::spawn(move || output.lines().map_while(Result::ok).try_for_each(|it| send.send(it)));

    node.run(&pod("loops", vec![shell("c", "exit 3")]));
    // Restarted at once, and then after ten seconds.
    let started = wait_event(&node, "pod/loops", "Started", 2);
    let back_off = wait_event(&node, "pod/loops", "BackOff", 1);
    let seen = node.pod("loops").unwrap();
    assert_eq!(started["involvedObject"]["uid"], uid(&seen));
    assert_eq!(started["involvedObject"]["fieldPath"], "spec.containers{c}");
    assert_eq!((&started["type"], &back_off["type"]), (&json!("Normal"), &json!("Warning")));
    let told = wait_for("the watch to tell the back-off", SOON, || {
        followed.try_iter().find(|line: &String| line.contains("BackOff"))
    });
    let words: Vec<&str> = told.split_whitespace().collect();
    assert_eq!(words[1..4], ["Warning", "BackOff", "pod/loops"], "{told}");
    let described = node.coracle_ok(&["describe", "pod", "loops"]);
    let line = described.lines().find(|line| line.contains("Container started")).unwrap();
    assert!(line.contains("(x2 over ") && line.contains("coracle"), "{line}");

    let journal = node.path("root/events/events.jsonl");
    wait_until("the events to be on disk", SOON, || {
        fs::read_to_string(&journal)
            .is_ok_and(|text| text.contains(back_off["metadata"]["name"].as_str().unwrap()))
    });
    node.kill_agent();
    assert!(!follower.wait().unwrap().success(), "a watch that broke off is no success");
    reading.join().unwrap().unwrap();
    // What a loss of power in the middle of writing leaves.
    let mut torn = fs::read(&journal).unwrap();
    torn.extend_from_slice(b"{\"name\":\"loops.1\",\"involvedOb");
    fs::write(&journal, torn).unwrap();
    node.start_agent();
    let kept = events(&node, "pod/loops");
    for event in [&started, &back_off] {
        let same = kept.iter().find(|it| it["metadata"]["name"] == event["metadata"]["name"]).unwrap();
        assert!(same["count"].as_u64() >= event["count"].as_u64(), "{same}");
        assert_eq!(same["firstTimestamp"], event["firstTimestamp"]);
    }
    let again = wait_event(&node, "pod/loops", "Started", started["count"].as_u64().unwrap() + 1);
    assert_eq!(again["metadata"]["name"], started["metadata"]["name"], "it goes on being counted");

    node.remove("loops");
    node.wait_gone("loops");
    assert!(events(&node, "pod/loops").len() >= 3, "what happened is not undone");
    let table = node.coracle_ok(&["get", "events"]);
    assert!(table.starts_with("LAST SEEN   TYPE"), "{table}");
    assert!(table.contains("pod/loops") && table.contains("node/node"), "{table}");
    node.finish();
}

#[test]
fn the_node_tells_of_its_start_and_of_manifests_it_refuses() {
    needs_root!();
    let mut node = Node::start();
    node.stop_agent();
    node.start_agent();
    let starting = wait_event(&node, "node/node", "Starting", 2);
    assert!(starting["message"].as_str().unwrap().starts_with("Starting coracle "), "{starting}");
    wait_event(&node, "node/node", "NodeReady", 2);
    node.write_manifest_text(
        "wrong.yaml",
        b"apiVersion: v1\nkind: Pod\nmetadata: {name: wrong}\nspec:\n  containers: 3\n",
    );
    let refused = wait_event(&node, "node/node", "FailedValidation", 1);
    let message = refused["message"].as_str().unwrap();
    assert!(message.contains("/wrong.yaml:") && message.contains("spec.containers"), "{message}");
    assert_eq!(refused["type"], "Warning");
    node.finish();
}

#[test]
fn a_place_where_events_cannot_be_kept_costs_no_pod_anything() {
    needs_root!();
    let mut node = Node::start();
    node.stop_agent();
    fs::remove_dir_all(node.path("root/events")).unwrap();
    fs::write(node.path("root/events"), "").unwrap();
    node.start_agent();
    for name in ["one", "two", "three"] {
        node.run(&pod(name, vec![idle("c")]));
        node.wait_running(name);
        wait_event(&node, &format!("pod/{name}"), "Started", 1);
    }
    let said = || node.agent_log().matches("cannot write").count();
    wait_until("it to be said", SOON, || said() > 0);
    fs::remove_file(node.path("root/events")).unwrap();
    node.remove("one");
    node.wait_gone("one");
    let journal = node.path("root/events/events.jsonl");
    wait_until("all to be kept again", SOON, || {
        fs::read_to_string(&journal)
            .is_ok_and(|text| ["\"one\"", "\"two\""].iter().all(|name| text.contains(name)))
    });
    assert_eq!(said(), 1, "{}", node.agent_log());
    node.finish();
}

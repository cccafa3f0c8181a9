//! What a container has left to say when it ended, and what it may not reach by it.

use std::fs;

use coracle_tests::manifests::{pod, shell, with, with_host_path, with_shared};
use coracle_tests::needs_root;
use coracle_tests::node::{Node, container_status};
use serde_json::{Value, json};

/// A container that says what it says at /message, and is asked for its log if it failed and said nothing.
fn or_log(name: &str, script: &str) -> Value {
    let container = with(shell(name, script), "terminationMessagePath", json!("/message"));
    with(container, "terminationMessagePolicy", json!("FallbackToLogsOnError"))
}

/// A pod that is not restarted.
fn once(name: &str, containers: Vec<Value>) -> Value {
    with(pod(name, containers), "spec.restartPolicy", json!("Never"))
}

fn message<'a>(pod: &'a Value, container: &str) -> Option<&'a str> {
    container_status(pod, container)["state"]["terminated"]["message"].as_str()
}

#[test]
fn the_message_is_the_file_or_the_end_of_the_log_of_what_failed() {
    needs_root!();
    let mut node = Node::start();
    let containers = vec![
        shell("file", "echo log; printf farewell > /dev/termination-log; exit 1"),
        shell("file-without", "echo log; exit 1"),
        or_log("both", "echo log; printf farewell > /message; exit 1"),
        or_log("log", "echo out; echo '  err' >&2; exit 1"),
        or_log("no-error", "echo log; exit 0"),
    ];
    node.run(&once("few", containers));
    let many = "i=1; while [ $i -le 200 ]; do echo $i; i=$((i+1)); done; exit 1";
    let long = "i=1; while [ $i -le 90 ]; do printf '%0100d\\n' $i; i=$((i+1)); done; exit 1";
    node.run(&once("much", vec![or_log("lines", many), or_log("bytes", long)]));

    let seen = node.wait_phase("few", "Failed");
    assert_eq!(message(&seen, "file"), Some("farewell"));
    assert_eq!(message(&seen, "file-without"), None);
    assert_eq!(message(&seen, "both"), Some("farewell"));
    // The order of the two streams is not kept between them.
    let log = message(&seen, "log").unwrap_or_default();
    assert!(["out\n  err\n", "  err\nout\n"].contains(&log), "{log:?}");
    assert_eq!(message(&seen, "no-error"), None);

    let much = node.wait_phase("much", "Failed");
    let lines: String = (121..=200).map(|number| format!("{number}\n")).collect();
    assert_eq!(message(&much, "lines"), Some(lines.as_str()));
    let all: String = (1..=90).map(|number| format!("{number:0100}\n")).collect();
    assert_eq!(message(&much, "bytes"), Some(&all[all.len() - 2048..]));

    node.kill_agent();
    node.start_agent();
    for pod in [seen, much] {
        let name = pod["metadata"]["name"].as_str().unwrap();
        let again = node.wait_phase(name, "Failed");
        assert_eq!(again["status"]["containerStatuses"], pod["status"]["containerStatuses"]);
    }
    node.finish();
}

#[test]
fn messages_are_limited_for_a_container_and_for_a_pod() {
    needs_root!();
    let node = Node::start();
    let script = "i=1; while [ $i -le 1000 ]; do printf '%08d' $i; i=$((i+1)); done > /dev/termination-log";
    let said: String = (1..=1000).map(|number| format!("{number:08}")).collect();
    let end = &said[said.len() - 4096..];
    node.run(&once("alone", vec![shell("c", script)]));
    let names = ["a", "b", "c", "d", "e"];
    let group = once("group", names.map(|name| shell(name, script)).to_vec());
    node.run(&with(group, "spec.initContainers", json!([shell("first", script)])));
    assert_eq!(message(&node.wait_phase("alone", "Succeeded"), "c"), Some(end));
    let seen = node.wait_phase("group", "Succeeded");
    for name in ["first"].iter().chain(&names) {
        assert_eq!(message(&seen, name), Some(&end[..12 * 1024 / 6]), "{name}");
    }
    node.finish();
}

#[test]
fn a_message_is_read_through_no_link_and_from_nothing_but_a_file() {
    needs_root!();
    let node = Node::start();
    let canary = node.path("canary");
    fs::create_dir(&canary).unwrap();
    let secret = canary.join("secret");
    fs::write(&secret, "the host's secret").unwrap();
    let untouched = || {
        assert_eq!(fs::read_to_string(&secret).unwrap(), "the host's secret");
        assert_eq!(
            fs::read_dir(&canary).unwrap().count(),
            1,
            "something was made in a directory of the host"
        );
    };

    // What is mounted at the path cannot be put away.
    let script = "rm /dev/termination-log; mv /dev/termination-log /dev/other; ln -sf /x /dev/termination-log; \
                  echo said > /dev/termination-log";
    node.run(&once("stays", vec![shell("c", script)]));
    assert_eq!(message(&node.wait_phase("stays", "Succeeded"), "c"), Some("said\n"));

    // A link in a volume, made by a container that ran before, leads beneath the container's root.
    let script = format!("ln -s {} /data/message; ln -s {} /data/dir", secret.display(), canary.display());
    for (name, path) in [("link", "/data/message"), ("through", "/data/dir/new")] {
        let main = with(shell("c", &format!("echo said > {path}")), "terminationMessagePath", json!(path));
        let linked = with(once(name, vec![main]), "spec.initContainers", json!([shell("plant", &script)]));
        node.run(&with_shared(linked, "data", &node.path(format!("data-{name}")), "/data"));
        let seen = node.wait_phase(name, "Succeeded");
        assert_eq!(message(&seen, "c"), Some("said\n"), "{name}");
        untouched();
    }

    // One that can write where the node keeps the files.
    for (name, put) in [
        ("swapped-link", format!("ln -s {} $file", secret.display())),
        ("swapped-pipe", "mkfifo $file".to_owned()),
        ("swapped-directory", "mkdir $file".to_owned()),
    ] {
        let script = format!("for file in $(find /pods -name termination-log); do rm $file && {put}; done");
        let evil =
            with_host_path(once(name, vec![shell("c", &script)]), "pods", &node.path("root/pods"), "/pods");
        node.run(&evil);
        let seen = node.wait_phase(name, "Succeeded");
        let message = message(&seen, "c").unwrap_or_default();
        assert!(message.starts_with("Error on reading termination log "), "{name}: {message}");
        assert!(!message.contains("secret"), "{name}: {message}");
        untouched();
        node.remove(name);
        node.wait_gone(name);
    }
    node.finish();
}

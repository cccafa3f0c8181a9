//! Secrets: in the containers they are for, and nowhere else.

use std::fs;
use std::path::{Path, PathBuf};

use coracle_tests::manifests::{idle, pod, with};
use coracle_tests::needs_root;
use coracle_tests::node::{Node, container_status, uid};
use coracle_tests::processes;
use coracle_tests::wait::{SOON, wait_until};
use serde_json::{Value, json};

use crate::configuration::{mounted, read, sh};

/// No text that is anywhere by chance, plain and as a manifest may have it.
const VALUE: &str = "hunter2-correct-horse";
const ENCODED: &str = "aHVudGVyMi1jb3JyZWN0LWhvcnNl";

fn secret(value: &str) -> Value {
    json!({"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "login"}, "stringData": {"password": value}})
}

/// A pod that has the Secret in every way there is.
fn user(name: &str) -> Value {
    let mut container = mounted(idle("c"), &[("v", "/v"), ("all", "/all")]);
    container["env"] = json!([
        {"name": "PASSWORD", "valueFrom": {"secretKeyRef": {"name": "login", "key": "password"}}},
        {"name": "URL", "value": "db://user:$(PASSWORD)@host"},
    ]);
    container["envFrom"] = json!([{"prefix": "ALL_", "secretRef": {"name": "login"}}]);
    container["args"] = json!(["ignored", "$(URL)"]);
    with(
        pod(name, vec![container]),
        "spec.volumes",
        json!([
            {"name": "v", "secret": {"secretName": "login", "defaultMode": 0o400}},
            {"name": "all", "projected": {"sources": [{"secret": {"name": "login"}}]}},
        ]),
    )
}

/// The files below a directory that hold one of the texts; what is mounted below it is not entered, because the
/// machine's mounts are not the test's.
fn holding(directory: &Path, texts: &[&str], found: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(directory).unwrap().map(Result::unwrap) {
        let (path, kind) = (entry.path(), entry.file_type().unwrap());
        if kind.is_dir() {
            holding(&path, texts, found);
        } else if kind.is_file() {
            let content = fs::read(&path).unwrap();
            if texts.iter().any(|text| content.windows(text.len()).any(|window| window == text.as_bytes())) {
                found.push(path);
            }
        }
    }
}

/// The files on the node's disk that hold the Secret, beside the manifest.
fn on_disk(node: &Node) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in fs::read_dir(node.path("")).unwrap().map(Result::unwrap) {
        if entry.file_name() == "manifests" {
            continue;
        }
        match entry.file_type().unwrap().is_dir() {
            true => holding(&entry.path(), &[VALUE, ENCODED], &mut found),
            false => {
                let content = fs::read(entry.path()).unwrap_or_default();
                let text = String::from_utf8_lossy(&content);
                if text.contains(VALUE) || text.contains(ENCODED) {
                    found.push(entry.path());
                }
            }
        }
    }
    found
}

#[test]
fn a_secret_is_in_its_containers_and_on_no_disk() {
    needs_root!();
    let mut node = Node::start();
    node.write_manifest("login.yaml", &secret(VALUE));
    let mut sharing = user("sharing");
    sharing["spec"]["shareProcessNamespace"] = json!(true);
    let tty = with(user("tty"), "spec.containers.0.tty", json!(true));
    let stdin = with(user("stdin"), "spec.containers.0.stdin", json!(true));
    let names = ["plain", "sharing", "tty", "stdin"];
    for pod in [user("plain"), sharing, tty, stdin] {
        node.run(&pod);
    }
    let seen = names.map(|name| node.wait_running(name));
    let everywhere =
        "cat /v/password; echo; cat /all/password; echo; echo $PASSWORD; echo $ALL_password; echo $URL";
    let expected = format!("{VALUE}\n{VALUE}\n{VALUE}\n{VALUE}\ndb://user:{VALUE}@host\n");
    for name in names {
        assert_eq!(sh(&node, name, everywhere), expected, "{name}");
    }
    assert_eq!(sh(&node, "plain", "stat -f -c %T /v /all; stat -L -c %a /v/password"), "tmpfs\ntmpfs\n400\n");
    assert_eq!(on_disk(&node), Vec::<PathBuf>::new());

    // The next agent knows the environment of what runs, and not by way of the disk.
    node.kill_agent();
    node.start_agent();
    for (name, before) in names.iter().zip(&seen) {
        assert_eq!(sh(&node, name, everywhere), expected, "{name} after a restart");
        let now = node.pod(name).unwrap();
        assert_eq!(container_status(&now, "c")["restartCount"], 0);
        assert_eq!(uid(&now), uid(before));
    }
    for arguments in [
        &["get", "pods", "-o", "yaml"][..],
        &["get", "pods", "-o", "json"],
        &["describe", "pod", "plain"],
        &["get", "events", "-o", "json"],
        &["get", "secrets"],
        &["get", "secrets", "-o", "yaml"],
    ] {
        let answer = node.coracle_ok(arguments);
        assert!(!answer.contains(VALUE) && !answer.contains(ENCODED), "{arguments:?}: {answer}");
    }
    let table = node.coracle_ok(&["get", "secret/login", "--no-headers"]);
    assert_eq!(table.split_whitespace().collect::<Vec<_>>(), ["login", "Opaque", "1"]);
    // A Secret that is wrong is told without its values.
    let text = format!("apiVersion: v1\nkind: Secret\nmetadata: {{name: bad}}\ndata: {{a: {VALUE}}}\n");
    node.write_manifest_text("bad.yaml", text.as_bytes());
    let problems = || node.http_get("/coracle/v1/problems").unwrap_or_default();
    wait_until("the problem", SOON, || problems().contains("bad.yaml"));
    assert!(!problems().contains(VALUE));
    fs::remove_file(node.path("manifests/bad.yaml")).unwrap();

    // A stopped container's remains are not to hold it either.
    processes::kill(node.container_pid(&node.pod("plain").unwrap(), "c"));
    node.wait_pod("plain", "to be restarted", |pod| container_status(pod, "c")["restartCount"] == 1);
    assert_eq!(on_disk(&node), Vec::<PathBuf>::new());
    node.finish();
}

#[test]
fn volumes_outlive_the_agent_and_are_brought_up_to_date() {
    needs_root!();
    let mut node = Node::start();
    node.write_manifest("login.yaml", &secret("one"));
    node.run(&user("user"));
    node.wait_running("user");
    let link = sh(&node, "user", "readlink /v/..data");
    node.kill_agent();
    node.start_agent();
    wait_until("the pod to be known", SOON, || node.pod("user").is_some());
    assert_eq!(sh(&node, "user", "cat /v/password; readlink /v/..data"), format!("one{link}"));
    assert_eq!(sh(&node, "user", "readlink /v/..data"), link, "the same content is not written again");

    node.kill_agent();
    node.write_manifest("login.yaml", &secret("two"));
    node.start_agent();
    wait_until("what changed meanwhile", SOON, || read(&node, "user", "/v/password") == "two");
    assert_eq!(
        sh(&node, "user", "echo $PASSWORD"),
        "one\n",
        "a variable is as it was when the container began"
    );
    node.finish();
}

#[test]
fn a_node_of_ones_own_takes_secrets_beside_its_pods() {
    needs_root!();
    let mut node = Node::start();
    node.stop_agent();
    let once = with(user("once"), "spec.restartPolicy", json!("Never"));
    let once = with(
        once,
        "spec.containers.0.command",
        json!(["sh", "-c", "echo ${#PASSWORD} $(wc -c < /v/password)"]),
    );
    let list = json!({"apiVersion": "v1", "kind": "List", "items": [secret(VALUE), once]});
    let file = node.path("manifests/list.json");
    fs::write(&file, list.to_string()).unwrap();
    let answer = node.coracle(&["run", "-f", file.to_str().unwrap()]);
    assert_eq!(
        (answer.code, answer.stdout.contains("21 21")),
        (0, true),
        "{}{}",
        answer.stdout,
        answer.stderr
    );
    assert_eq!(on_disk(&node), Vec::<PathBuf>::new());
    fs::remove_file(file).unwrap();
    node.assert_nothing_left();
}

//! What went wrong once when somebody walked through a node's features by hand.

use std::fs;
use std::path::Path;
use std::process::Command;

use coracle_tests::images;
use coracle_tests::manifests::{idle, pod, shell, with, with_host_path};
use coracle_tests::needs_root;
use coracle_tests::node::{Node, container_status};
use coracle_tests::wait::{SOON, wait_for};
use serde_json::{Value, json};

#[test]
fn a_real_time_stop_signal_of_the_image_is_sent_as_it_is() {
    needs_root!();
    let node = Node::start();
    let layout = node.path("layout");
    with_stop_signal(&layout, "SIGRTMIN+3");
    node.coracle_ok(&["image", "import", layout.to_str().unwrap(), "--name", "localhost/realtime:1"]);
    let data = node.path("data");
    let script = "trap 'echo 37 > /data/signal; exit' 37; trap 'echo TERM > /data/signal; exit' TERM
        echo ready; while :; do usleep 10000; done";
    let signalled = with_host_path(pod("signalled", vec![shell("c", script)]), "data", &data, "/data");
    let signalled = with(signalled, "spec.terminationGracePeriodSeconds", json!(30));
    node.run(&with(signalled, "spec.containers.0.image", json!("localhost/realtime:1")));
    node.wait_log("signalled", "c", "ready");
    node.remove("signalled");
    node.wait_gone("signalled");
    assert_eq!(fs::read_to_string(data.join("signal")).unwrap(), "37\n");
    node.finish();
}

#[test]
fn what_is_wrong_with_a_manifest_names_its_file_once() {
    needs_root!();
    let node = Node::start();
    node.write_manifest_text(
        "wrong.yaml",
        b"apiVersion: v1\nkind: Pod\nmetadata: {name: x}\nspec: {bogus: 1}\n",
    );
    let warning = wait_for("the warning", SOON, || {
        let text = node.coracle(&["get", "pods"]).stderr;
        text.contains("bogus").then_some(text)
    });
    let file = node.path("manifests/wrong.yaml");
    for line in warning.lines().filter(|line| line.starts_with("warning:")) {
        assert_eq!(line.matches(file.to_str().unwrap()).count(), 1, "{line}");
    }
    node.finish();
}

#[test]
fn containers_of_a_shared_pid_namespace_see_each_other_and_nothing_of_the_host() {
    needs_root!();
    let node = Node::start();
    let listed = shell("a", "until ps | grep -q [m]arker; do usleep 10000; done; ps; echo end; sleep 1000");
    let other = shell("b", "exec sleep 1234 marker || sleep 1234");
    let other = with(other, "command", json!(["/bin/sh", "-c", "while :; do sleep 1234; done", "marker"]));
    node.run(&with(pod("sharing", vec![listed, other]), "spec.shareProcessNamespace", json!(true)));
    let log = node.wait_log("sharing", "a", "end\n");
    assert!(
        log.lines().any(|line| line.trim_start().starts_with("1 root") && line.contains("pause")),
        "{log}"
    );
    assert!(!log.contains("coracle"), "{log}");
    node.finish();
}

#[test]
fn exec_into_a_pod_that_ended_says_that_it_did() {
    needs_root!();
    let node = Node::start();
    node.run(&with(pod("ended", vec![shell("c", "exit 0")]), "spec.restartPolicy", json!("Never")));
    node.wait_phase("ended", "Succeeded");
    let refused = node.coracle(&["exec", "ended", "--", "ls"]);
    assert_eq!(refused.code, 1, "{}", refused.stderr);
    assert!(refused.stderr.contains("in a completed pod; current phase is Succeeded"), "{}", refused.stderr);
    node.finish();
}

#[test]
fn a_program_that_cannot_be_executed_is_told_of_by_exec_and_by_the_status() {
    needs_root!();
    let node = Node::start();
    let wrong = with(idle("wrong"), "command", json!(["/nonexistent"]));
    node.run(&pod("mixed", vec![idle("c"), wrong]));
    let seen = node.wait_pod("mixed", "to have failed to start", |pod| {
        let all = pod["status"]["containerStatuses"].as_array();
        all.is_some_and(|all| {
            all.iter().any(|one| one["state"]["running"].is_object())
                && all.iter().any(|one| one["lastState"]["terminated"]["reason"] == "StartError")
        })
    });
    let ended = &container_status(&seen, "wrong")["lastState"]["terminated"];
    assert_eq!(ended["exitCode"], 128, "{ended}");
    assert!(ended["message"].as_str().unwrap().contains("/nonexistent"), "{ended}");
    let missing = node.coracle(&["exec", "mixed", "-c", "c", "--", "nonexistent"]);
    assert_eq!(missing.code, 1, "{}", missing.stderr);
    assert!(
        missing.stderr.contains("\"nonexistent\": executable file not found in $PATH"),
        "{}",
        missing.stderr
    );
    node.finish();
}

/// The image of busybox with another stop signal, as an OCI image layout.
fn with_stop_signal(layout: &Path, signal: &str) {
    fs::create_dir_all(layout).unwrap();
    let unpacked =
        Command::new("tar").arg("-xf").arg(images::layout("busybox")).arg("-C").arg(layout).status();
    assert!(unpacked.unwrap().success());
    let blob =
        |digest: &Value| layout.join("blobs/sha256").join(&digest.as_str().unwrap()["sha256:".len()..]);
    let read = |path: &Path| -> Value { serde_json::from_slice(&fs::read(path).unwrap()).unwrap() };
    let replace = |descriptor: &mut Value, content: &Value| {
        let bytes = content.to_string();
        let file = layout.join("blobs/sha256/new");
        fs::write(&file, &bytes).unwrap();
        let sum = Command::new("sha256sum").arg(&file).output().unwrap().stdout;
        descriptor["digest"] = json!(format!("sha256:{}", String::from_utf8_lossy(&sum[..64])));
        descriptor["size"] = json!(bytes.len());
        fs::rename(file, blob(&descriptor["digest"])).unwrap();
    };
    let mut index = read(&layout.join("index.json"));
    let mut manifest = read(&blob(&index["manifests"][0]["digest"]));
    let mut config = read(&blob(&manifest["config"]["digest"]));
    config["config"]["StopSignal"] = json!(signal);
    replace(&mut manifest["config"], &config);
    replace(&mut index["manifests"][0], &manifest);
    fs::write(layout.join("index.json"), index.to_string()).unwrap();
}

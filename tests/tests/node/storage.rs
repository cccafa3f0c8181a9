//! Volumes, and the order containers come in.

use std::fs;

use coracle_tests::images;
use coracle_tests::manifests::{pod, shell, with, with_host_path};
use coracle_tests::needs_root;
use coracle_tests::node::{Node, container_status};
use serde_json::json;

#[test]
fn one_container_writes_a_page_and_the_other_serves_it() {
    needs_root!();
    let node = Node::start();
    node.import("nginx", images::NGINX);
    let example = fs::read_to_string(images::project().join("examples/two-containers.yaml")).unwrap();
    let site = node.path("site");
    let example = example.replace("/tmp/coracle-two-containers", site.to_str().unwrap());
    node.write_manifest_text("example.yaml", example.as_bytes());
    let log = node.wait_log("two-containers", "shell", "</h1>");
    assert_eq!(log, "<h1>Written by two-containers, read through nginx</h1>\n");
    assert_eq!(fs::read_to_string(site.join("index.html")).unwrap(), log);
    node.wait_log("two-containers", "web", "\"GET / HTTP/1.1\" 200");
    node.finish();
}

#[test]
fn init_containers_come_one_after_another_and_before_the_others() {
    needs_root!();
    let node = Node::start();
    let mut ordered = with_host_path(
        pod("ordered", vec![shell("main", "echo main >> /data/order; cat /data/order")]),
        "data",
        &node.path("data"),
        "/data",
    );
    let mounts = ordered["spec"]["containers"][0]["volumeMounts"].clone();
    let init = |name: &str| {
        let script = format!("usleep 50000; echo {name} >> /data/order");
        with(shell(name, &script), "volumeMounts", mounts.clone())
    };
    ordered["spec"]["initContainers"] = json!([init("first"), init("second")]);
    ordered["spec"]["restartPolicy"] = json!("Never");
    node.run(&ordered);
    let ordered = node.wait_phase("ordered", "Succeeded");
    assert_eq!(node.logs("ordered", "main"), "first\nsecond\nmain\n");
    assert_eq!(container_status(&ordered, "first")["state"]["terminated"]["reason"], "Completed");
    node.finish();
}

#[test]
fn an_init_container_that_fails_keeps_the_others_from_starting() {
    needs_root!();
    let node = Node::start();
    let mut failing = pod("failing", vec![shell("main", "echo never")]);
    failing["spec"]["initContainers"] = json!([shell("init", "exit 3")]);
    failing["spec"]["restartPolicy"] = json!("Never");
    node.run(&failing);
    let failing = node.wait_phase("failing", "Failed");
    assert_eq!(container_status(&failing, "init")["state"]["terminated"]["exitCode"], 3);
    assert_eq!(container_status(&failing, "main")["state"]["waiting"]["reason"], "PodInitializing");
    node.finish();
}

#[test]
fn the_root_file_system_is_called_what_it_is() {
    needs_root!();
    let node = Node::start();
    node.run(&pod("listed", vec![shell("c", "df / | tail -n 1; grep ' / ' /proc/mounts; sleep 1000")]));
    let log = node.wait_log("listed", "c", "lowerdir");
    assert!(log.lines().all(|line| line.starts_with("overlay ")), "{log}");
    node.finish();
}

#[test]
fn an_empty_dir_is_shared_and_goes_with_the_pod() {
    needs_root!();
    let node = Node::start();
    let mount = json!([{"name": "scratch", "mountPath": "/scratch"}, {"name": "fast", "mountPath": "/fast"}]);
    let writer = shell("writer", "echo hello > /scratch/x; grep ' /fast ' /proc/mounts; sleep 1000");
    let reader = shell("reader", "until cat /scratch/x 2>/dev/null; do usleep 10000; done; sleep 1000");
    let mut shared =
        pod("shared", [writer, reader].map(|one| with(one, "volumeMounts", mount.clone())).to_vec());
    shared["spec"]["volumes"] = json!([
        {"name": "scratch", "emptyDir": {}},
        {"name": "fast", "emptyDir": {"medium": "Memory", "sizeLimit": "1Mi"}},
    ]);
    node.run(&shared);
    node.wait_log("shared", "reader", "hello\n");
    let fast = node.wait_log("shared", "writer", "/fast");
    assert!(fast.contains("tmpfs") && fast.contains("size=1024k"), "{fast}");
    node.remove("shared");
    node.wait_gone("shared");
    node.finish();
}

#[test]
fn read_only_means_read_only_and_a_sub_path_is_beneath_its_volume() {
    needs_root!();
    let node = Node::start();
    let data = node.path("data");
    fs::create_dir_all(data.join("deep/er")).unwrap();
    fs::write(data.join("deep/er/file"), "found\n").unwrap();
    let script = "cat /sub/file; touch /sub/new && echo wrote; touch /ro/new 2>&1; echo done";
    let mut pod = with_host_path(pod("sub", vec![shell("c", script)]), "data", &data, "/ro");
    pod["spec"]["containers"][0]["volumeMounts"] = json!([
        {"name": "data", "mountPath": "/ro", "readOnly": true},
        {"name": "data", "mountPath": "/sub", "subPath": "deep/er"},
    ]);
    pod["spec"]["restartPolicy"] = json!("Never");
    node.run(&pod);
    let log = node.wait_log("sub", "c", "done");
    assert_eq!(log, "found\nwrote\ntouch: /ro/new: Read-only file system\ndone\n");
    assert!(data.join("deep/er/new").exists());
    node.finish();
}

#[test]
fn a_host_path_of_the_wrong_type_is_named_in_an_event_and_no_container_starts() {
    needs_root!();
    let node = Node::start();
    let file = node.path("file");
    fs::write(&file, "").unwrap();
    let mut wrong = with_host_path(pod("wrong", vec![shell("c", "echo never")]), "data", &file, "/data");
    wrong["spec"]["volumes"][0]["hostPath"]["type"] = json!("Directory");
    node.run(&wrong);
    let seen =
        coracle_tests::wait::wait_for("the failed mount to be described", coracle_tests::wait::SOON, || {
            let text = node.coracle(&["describe", "pod", "wrong"]).stdout;
            text.contains("FailedMount").then_some(text)
        });
    assert!(seen.contains(file.to_str().unwrap()), "{seen}");
    assert_eq!(node.logs("wrong", "c"), "");
    node.finish();
}

#[test]
fn a_pod_that_outgrows_its_empty_dir_is_evicted() {
    needs_root!();
    let node = Node::start();
    let mount = json!([{"name": "scratch", "mountPath": "/scratch"}]);
    let write = "dd if=/dev/zero of=/scratch/x bs=64k count=20; sleep 1000";
    let mut greedy = pod("greedy", vec![with(shell("main", write), "volumeMounts", mount.clone())]);
    greedy["spec"]["volumes"] = json!([{"name": "scratch", "emptyDir": {"sizeLimit": "1Mi"}}]);
    let mut modest = greedy.clone();
    modest["metadata"]["name"] = json!("modest");
    modest["spec"]["volumes"][0]["emptyDir"]["sizeLimit"] = json!("2Mi");
    node.run(&greedy);
    node.run(&modest);
    let greedy = node.wait_phase("greedy", "Failed");
    assert_eq!(greedy["status"]["reason"], "Evicted");
    let message = "Usage of EmptyDir volume \"scratch\" exceeds the limit \"1Mi\". ";
    assert_eq!(greedy["status"]["message"], message);
    assert_eq!(node.wait_phase("modest", "Running")["status"]["reason"], json!(null));
    node.finish();
}

//! Image volumes.

use std::sync::{Arc, Mutex};

use coracle_tests::manifests::{idle, pod, shell, with};
use coracle_tests::needs_root;
use coracle_tests::node::{Node, container_id, container_status};
use coracle_tests::processes::kill;
use coracle_tests::registry::{Content, Image, tar_of};
use coracle_tests::wait::{SOON, wait_until};
use serde_json::{Value, json};

use super::{REGISTRY, serve, wait_event, waiting};

/// An image of data, `team/data:1`: two layers, of which the upper one hides a file of the lower.
fn data(mark: &str) -> Content {
    let lower = tar_of(&[("data/mark", b"hidden"), ("data/deep/file", b"deep"), ("data/gone", b"")]);
    let upper = tar_of(&[("data/mark", mark.as_bytes()), ("data/.wh.gone", b"")]);
    let mut content = Content::default();
    let descriptor = content.image(&Image::of(&[lower, upper], &json!({})));
    content.tag("team/data", "1", &descriptor);
    content
}

fn reference() -> String {
    format!("{REGISTRY}/team/data:1")
}

/// A container with the volume mounted at `/volume`.
fn mounting(container: Value, sub_path: &str) -> Value {
    let mount = json!({"name": "data", "mountPath": "/volume", "subPath": sub_path});
    with(container, "volumeMounts", json!([mount]))
}

/// A pod of these containers and the volume.
fn with_volume(name: &str, containers: Vec<Value>, policy: &str) -> Value {
    let volume = json!({"name": "data", "image": {"reference": reference(), "pullPolicy": policy}});
    with(pod(name, containers), "spec.volumes", json!([volume]))
}

#[track_caller]
fn sh(node: &Node, pod: &str, container: &str, script: &str) -> String {
    node.coracle_ok(&["exec", pod, "-c", container, "--", "sh", "-c", script])
}

#[test]
fn an_image_is_mounted_read_only_and_stays_while_the_pod_does() {
    needs_root!();
    let mut node = Node::start();
    let served = Arc::new(Mutex::new(data("one")));
    let answered = Arc::clone(&served);
    let _registry = serve(&node, move |request| answered.lock().unwrap().answer(request));
    let containers = vec![
        mounting(idle("whole"), ""),
        mounting(idle("part"), "data/deep"),
        mounting(idle("file"), "data/mark"),
        idle("without"),
    ];
    node.run(&with_volume("web", containers, "Always"));
    let seen = node.wait_running("web");
    let mounted = |status: &Value| container_status(status, "whole")["volumeMounts"].clone();
    let first = mounted(&seen);
    let image_ref = first[0]["volumeStatus"]["image"]["imageRef"].as_str().unwrap();
    assert!(image_ref.starts_with(&format!("{REGISTRY}/team/data@sha256:")), "{first}");
    let expected = json!([{"name": "data", "mountPath": "/volume", "readOnly": true, "recursiveReadOnly": "Disabled",
        "volumeStatus": {"image": {"imageRef": image_ref}}}]);
    assert_eq!(first, expected);
    wait_event(&node, "pod/web", "Pulled", &format!("Successfully pulled image \"{}\" in ", reference()));
    assert_eq!(sh(&node, "web", "whole", "cd /volume/data && cat mark && ls"), "onedeep\nmark\n");
    assert_eq!(sh(&node, "web", "part", "ls /volume && cat /volume/file"), "file\ndeep");
    assert_eq!(sh(&node, "web", "file", "cat /volume"), "one");
    assert!(sh(&node, "web", "without", "ls -d /volume 2>&1 || true").contains("No such file"));
    let script = "touch /volume/new 2>&1; echo x 2>&1 > /volume/data/mark; mount -o remount,rw /volume 2>&1; cat \
                  /volume/data/mark; grep ' /volume ' /proc/mounts";
    let tried = sh(&node, "web", "whole", script);
    assert!(tried.contains("Read-only file system") && tried.contains("one"), "{tried}");
    let options = tried.lines().last().and_then(|line| line.split(' ').nth(3)).unwrap();
    assert!(options.split(',').any(|one| one == "ro") && options.split(',').any(|one| one == "nodev"));

    // In use: nobody removes it, and whatever its tag comes to mean, the pod's containers see what it had.
    let refused = node.coracle(&["image", "rm", &reference()]);
    assert!(refused.code != 0 && refused.stderr.contains("in use by pod default/web"), "{}", refused.stderr);
    *served.lock().unwrap() = data("two");
    node.kill_agent();
    node.start_agent();
    let id = container_id(&seen, "whole");
    kill(node.container_pid(&seen, "whole"));
    node.wait_pod("web", "to run again", |pod| {
        container_status(pod, "whole")["state"]["running"].is_object() && container_id(pod, "whole") != id
    });
    assert_eq!(sh(&node, "web", "whole", "cat /volume/data/mark"), "one");

    node.run(&with_volume("other", vec![mounting(idle("c"), "")], "Always"));
    node.wait_running("other");
    assert_eq!(sh(&node, "other", "c", "cat /volume/data/mark"), "two");
    for name in ["web", "other"] {
        node.remove(name);
        node.wait_gone(name);
    }
    node.coracle_ok(&["image", "rm", &reference()]);
    node.finish();
}

#[test]
fn what_cannot_be_had_is_told_of_the_container_that_wants_it() {
    needs_root!();
    let node = Node::start();
    let served = Arc::new(Mutex::new(Content::default()));
    let answered = Arc::clone(&served);
    let _registry = serve(&node, move |request| answered.lock().unwrap().answer(request));
    let containers = vec![mounting(idle("c"), ""), idle("without")];
    node.run(&with_volume("web", containers, "IfNotPresent"));
    let seen = node.wait_pod("web", "to back off", |pod| waiting(pod).0 == "ImagePullBackOff");
    let (_, message) = waiting(&seen);
    let beginning = format!("Back-off pulling image \"{}\": ErrImagePull: ", reference());
    assert!(message.starts_with(&beginning) && message.contains("404"), "{message}");
    wait_event(&node, "pod/web", "BackOff", &format!("Back-off pulling image \"{}\"", reference()));
    node.wait_pod("web", "to run what it can", |pod| {
        container_status(pod, "without")["state"]["running"].is_object()
    });
    node.run(&with_volume("never", vec![mounting(idle("c"), "")], "Never"));
    let seen = node.wait_pod("never", "to be told so", |pod| waiting(pod).0 == "ErrImageNeverPull");
    assert!(waiting(&seen).1.contains(&reference()), "{seen}");

    *served.lock().unwrap() = data("one");
    node.wait_running("web");
    node.run(&with_volume("lost", vec![mounting(idle("c"), "data/none")], "IfNotPresent"));
    let seen = node.wait_pod("lost", "to miss its part", |pod| waiting(pod).0 == "CreateContainerError");
    let (_, message) = waiting(&seen);
    let expected =
        "failed to prepare subPath for volumeMount \"data\": open data/none: No such file or directory";
    assert!(message.starts_with(expected), "{message}");
    node.finish();
}

#[test]
fn an_imported_image_is_a_volume_without_a_registry() {
    needs_root!();
    let node = Node::start();
    let volume = json!({"name": "data", "image": {"reference": coracle_tests::images::BUSYBOX}});
    let container = mounting(shell("c", "/volume/busybox echo runs from there"), "bin");
    let once = with(pod("once", vec![container]), "spec.volumes", json!([volume]));
    node.run(&with(once, "spec.restartPolicy", json!("Never")));
    node.wait_phase("once", "Succeeded");
    // Programs in it can be executed, as from 1.33 on under Kubernetes.
    wait_until("the log", SOON, || node.logs("once", "c") == "runs from there\n");
    node.finish();
}

//! What the containers of a pod share, and what each has for itself.

use std::fs;
use std::os::unix::fs::MetadataExt;

use coracle_tests::manifests::{idle, pod, shell, with, with_host_path};
use coracle_tests::needs_root;
use coracle_tests::node::Node;
use coracle_tests::processes::{namespace, status_field};
use serde_json::json;

#[test]
fn containers_share_net_ipc_and_uts_and_have_their_own_mnt_and_pid() {
    needs_root!();
    let node = Node::start();
    let data = node.path("data");
    let mut shared = with_host_path(pod("shared", vec![idle("a"), idle("b")]), "data", &data, "/data");
    shared["spec"]["containers"][1]["volumeMounts"] = json!([{"name": "data", "mountPath": "/elsewhere"}]);
    node.run(&shared);
    let shared = node.wait_running("shared");

    let (pause, a, b) =
        (node.pause_pid(&shared), node.container_pid(&shared, "a"), node.container_pid(&shared, "b"));
    for kind in ["net", "ipc", "uts"] {
        assert_eq!(namespace(a, kind), namespace(pause, kind), "{kind} of a is pause's");
        assert_eq!(namespace(b, kind), namespace(pause, kind), "{kind} of b is pause's");
        assert_ne!(
            namespace(pause, kind),
            namespace(node.machine().init(), kind),
            "{kind} is not the host's"
        );
    }
    for kind in ["mnt", "pid", "cgroup"] {
        assert_ne!(namespace(a, kind), namespace(b, kind), "{kind} of a is not b's");
        assert_ne!(namespace(a, kind), namespace(pause, kind), "{kind} of a is not pause's");
    }
    for kind in ["mnt", "pid"] {
        assert_eq!(
            namespace(pause, kind),
            namespace(node.machine().init(), kind),
            "{kind} of pause is the host's"
        );
    }

    let host = fs::metadata(&data).unwrap();
    for (pid, mount) in [(a, "data"), (b, "elsewhere")] {
        let inside = fs::metadata(format!("/proc/{pid}/root/{mount}")).unwrap();
        assert_eq!(
            (inside.dev(), inside.ino()),
            (host.dev(), host.ino()),
            "the directory is one, at /{mount}"
        );
    }
    node.finish();
}

#[test]
fn a_pod_has_its_name_a_loopback_and_one_interface() {
    needs_root!();
    let node = Node::start();
    let script = "hostname; ls /sys/class/net; cat /sys/class/net/lo/flags; echo done";
    node.run(&with(pod("named", vec![shell("c", script)]), "spec.restartPolicy", json!("Never")));
    assert_eq!(node.wait_log("named", "c", "done"), "named\neth0\nlo\n0x9\ndone\n");

    let other = with(pod("other", vec![shell("c", "hostname")]), "spec.restartPolicy", json!("Never"));
    node.run(&with(other, "spec.hostname", json!("told")));
    assert_eq!(node.wait_log("other", "c", "told"), "told\n");
    node.finish();
}

#[test]
fn host_namespaces_are_the_hosts() {
    needs_root!();
    let node = Node::start();
    let mut host = pod("host", vec![idle("c")]);
    for field in ["hostNetwork", "hostPID", "hostIPC"] {
        host["spec"][field] = json!(true);
    }
    node.run(&host);
    let host = node.wait_running("host");
    let pid = node.container_pid(&host, "c");
    for kind in ["net", "pid", "ipc"] {
        assert_eq!(namespace(pid, kind), namespace(node.machine().init(), kind), "{kind}");
    }
    assert_ne!(namespace(pid, "mnt"), namespace(node.machine().init(), "mnt"));
    node.finish();
}

#[test]
fn a_shared_process_namespace_shows_no_process_with_privileges() {
    needs_root!();
    let node = Node::start();
    let mut shared = pod("shared", vec![idle("a"), idle("b")]);
    shared["spec"]["shareProcessNamespace"] = json!(true);
    node.run(&shared);
    let shared = node.wait_running("shared");
    let (a, b) = (node.container_pid(&shared, "a"), node.container_pid(&shared, "b"));
    assert_eq!(namespace(a, "pid"), namespace(b, "pid"));
    assert_ne!(namespace(a, "pid"), namespace(node.machine().init(), "pid"));

    let script =
        "grep -h CapEff /proc/1/status; ls /proc/1/root/ 2>&1 | wc -l; tr '\\0' ' ' </proc/1/cmdline";
    let seen = node.coracle_ok(&["exec", "shared", "-c", "a", "--", "sh", "-c", script]);
    assert!(seen.starts_with("CapEff:\t0000000000000000\n"), "pid 1 has no capability: {seen}");
    let processes = node.coracle_ok(&["exec", "shared", "-c", "a", "--", "ps", "-o", "args"]);
    assert!(processes.matches("sleep 3600").count() >= 2, "a sees b's processes: {processes}");
    let pause = node.pause_pid(&shared);
    assert_eq!(
        status_field(pause, "NSpid").unwrap_or_default().split_whitespace().count(),
        2,
        "pause is outside"
    );
    node.finish();
}

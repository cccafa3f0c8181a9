//! /dev/shm is the pod's.

use coracle_tests::manifests::{idle, pod, with};
use coracle_tests::needs_root;
use coracle_tests::node::{Node, uid};
use coracle_tests::processes;
use serde_json::json;

#[test]
fn containers_of_a_pod_share_one_dev_shm_also_after_the_agent_was_replaced() {
    needs_root!();
    let mut node = Node::start();
    node.run(&pod("sharing", vec![idle("a"), idle("b")]));
    node.run(&pod("other", vec![idle("c")]));
    let sharing = node.wait_running("sharing");
    node.wait_running("other");
    let shell = |node: &Node, pod: &str, container: &str, script: &str| {
        node.coracle_ok(&["exec", pod, "-c", container, "--", "/bin/sh", "-c", script])
    };
    let mounted = shell(&node, "sharing", "b", "grep ' /dev/shm ' /proc/mounts; stat -c %a /dev/shm");
    for part in ["shm /dev/shm tmpfs rw,nosuid,nodev,noexec", "size=65536k", "\n1777\n"] {
        assert!(mounted.contains(part), "{part:?} in {mounted}");
    }

    shell(&node, "sharing", "a", "echo from a > /dev/shm/file");
    assert_eq!(shell(&node, "sharing", "b", "cat /dev/shm/file"), "from a\n");
    assert_eq!(shell(&node, "other", "c", "ls /dev/shm"), "", "another pod has one of its own");

    node.kill_agent();
    node.start_agent();
    // A container that starts again gets the one the others have.
    processes::kill(node.container_pid(&node.wait_running("sharing"), "b"));
    node.wait_pod("sharing", "to have b started again", |pod| {
        let statuses = pod["status"]["containerStatuses"].as_array();
        statuses.is_some_and(|all| {
            all.iter().any(|one| one["restartCount"] == 1 && one["state"]["running"].is_object())
        })
    });
    assert_eq!(shell(&node, "sharing", "b", "cat /dev/shm/file"), "from a\n");

    let place = node.path("run/pods").join(uid(&sharing)).join("shm");
    let mounted =
        || processes::mounts(node.agent_pid()).iter().any(|line| line.contains(place.to_str().unwrap()));
    assert!(mounted(), "the pod's /dev/shm is mounted on {}", place.display());
    node.remove("sharing");
    node.wait_gone("sharing");
    assert!(!mounted(), "it went with the pod");
    node.finish();
}

#[test]
fn what_lies_in_dev_shm_counts_to_the_pod() {
    needs_root!();
    let node = Node::start();
    let mut counted = pod("counted", vec![idle("c")]);
    counted["spec"]["containers"][0]["resources"] = json!({"limits": {"memory": "24Mi"}});
    node.run(&with(counted, "spec.restartPolicy", json!("Never")));
    node.wait_running("counted");
    let fill = "dd if=/dev/zero of=/dev/shm/file bs=1M count=48 2>&1";
    let filled = node.coracle(&["exec", "counted", "--", "/bin/sh", "-c", fill]);
    assert_ne!(filled.code, 0, "48 MiB do not fit into a limit of 24: {}", filled.stdout);
    node.finish();
}

#[test]
fn a_pod_in_the_hosts_ipc_namespace_has_the_hosts_dev_shm() {
    needs_root!();
    let node = Node::start();
    let name = format!("coracle-test-{}", std::process::id());
    node.run(&with(pod("hostipc", vec![idle("c")]), "spec.hostIPC", json!(true)));
    node.wait_running("hostipc");
    let path = format!("/dev/shm/{name}");
    node.coracle_ok(&["exec", "hostipc", "--", "touch", &path]);
    let seen = node.machine().command("rm").arg(&path).status().unwrap();
    assert!(seen.success(), "the file is on the machine");
    node.finish();
}

//! Kernel settings of a pod's own namespaces.

use coracle_tests::manifests::{idle, pod, shell, with};
use coracle_tests::needs_root;
use coracle_tests::node::Node;
use serde_json::{Value, json};

fn with_sysctls(name: &str, sysctls: Value) -> Value {
    with(pod(name, vec![idle("a"), idle("b")]), "spec.securityContext.sysctls", sysctls)
}

fn read(node: &Node, pod: &str, container: &str, path: &str) -> String {
    node.coracle_ok(&["exec", pod, "-c", container, "--", "cat", path])
        .split_whitespace()
        .collect::<Vec<_>>()
        .join(" ")
}

#[test]
fn a_pod_sets_what_is_safe_or_allowed_and_nothing_of_another() {
    needs_root!();
    let node = Node::start_with("allowedUnsafeSysctls: [\"kernel.msg*\", net.core.somaxconn]\n");
    let before = std::fs::read_to_string("/proc/sys/kernel/msgmax").unwrap();
    node.run(&with_sysctls(
        "set",
        json!([
            {"name": "kernel.shm_rmid_forced", "value": "1"},
            {"name": "kernel.msgmax", "value": "9000"},
            {"name": "net/ipv4/ip_local_port_range", "value": "20000 30000"},
            {"name": "net.core.somaxconn", "value": "77"},
        ]),
    ));
    node.run(&pod("plain", vec![idle("a")]));
    node.wait_running("set");
    node.wait_running("plain");
    for container in ["a", "b"] {
        for (path, value) in [
            ("kernel/shm_rmid_forced", "1"),
            ("kernel/msgmax", "9000"),
            ("net/ipv4/ip_local_port_range", "20000 30000"),
            ("net/core/somaxconn", "77"),
        ] {
            assert_eq!(read(&node, "set", container, &format!("/proc/sys/{path}")), value, "{path}");
        }
    }
    assert_ne!(read(&node, "plain", "a", "/proc/sys/net/core/somaxconn"), "77");
    assert_eq!(std::fs::read_to_string("/proc/sys/kernel/msgmax").unwrap(), before, "the host's own");
    node.finish();
}

#[test]
fn no_port_of_a_pod_is_privileged() {
    needs_root!();
    let node = Node::start();
    let user = shell("a", "id -u; exec nc -l -p 80 -e true");
    let user = with(user, "securityContext", json!({"runAsUser": 1000, "capabilities": {"drop": ["ALL"]}}));
    node.run(&pod("web", vec![user]));
    node.wait_running("web");
    assert_eq!(read(&node, "web", "a", "/proc/sys/net/ipv4/ip_unprivileged_port_start"), "0");
    assert_eq!(read(&node, "web", "a", "/proc/sys/net/ipv4/ping_group_range"), "0 2147483647");
    // 0050 is the port; the peer of a listener is nobody.
    coracle_tests::wait::wait_until("somebody to listen on port 80", coracle_tests::wait::SOON, || {
        ["/proc/net/tcp", "/proc/net/tcp6"]
            .iter()
            .any(|table| read(&node, "web", "a", table).contains(":0050 00000000"))
    });
    let own = json!([{"name": "net.ipv4.ip_unprivileged_port_start", "value": "1024"}]);
    node.run(&with_sysctls("own", own));
    node.wait_running("own");
    assert_eq!(read(&node, "own", "a", "/proc/sys/net/ipv4/ip_unprivileged_port_start"), "1024");
    node.finish();
}

#[test]
fn a_pod_that_asks_for_another_fails_and_is_not_taken_up() {
    needs_root!();
    let mut node = Node::start();
    let host = |name: &str, sysctl: &str, field: &str| {
        with(with_sysctls(name, json!([{"name": sysctl, "value": "1"}])), field, json!(true))
    };
    for (pod, why) in [
        (
            with_sysctls("unsafe", json!([{"name": "net.core.somaxconn", "value": "77"}])),
            "\"net.core.somaxconn\" not allowlisted",
        ),
        (
            with_sysctls("node", json!([{"name": "vm.swappiness", "value": "1"}])),
            "\"vm.swappiness\" not allowlisted",
        ),
        (
            host("net", "net.ipv4.tcp_syncookies", "spec.hostNetwork"),
            "\"net.ipv4.tcp_syncookies\" not allowed with host net enabled",
        ),
        (
            host("ipc", "kernel.shm_rmid_forced", "spec.hostIPC"),
            "\"kernel.shm_rmid_forced\" not allowed with host ipc enabled",
        ),
    ] {
        node.run(&pod);
        let name = pod["metadata"]["name"].as_str().unwrap();
        let failed = node.wait_phase(name, "Failed");
        assert_eq!(failed["status"]["reason"], "SysctlForbidden");
        assert_eq!(failed["status"]["message"], format!("Pod was rejected: forbidden sysctl: {why}"));
        assert!(failed["status"]["containerStatuses"].as_array().is_none_or(Vec::is_empty), "{failed:#}");
        let events = node.coracle_ok(&["get", "events", "--for", &format!("pod/{name}")]);
        assert!(
            events.contains("SysctlForbidden") && events.contains(&format!("forbidden sysctl: {why}")),
            "{events}"
        );
    }
    node.kill_agent();
    node.start_agent();
    assert_eq!(node.wait_phase("unsafe", "Failed")["status"]["reason"], "SysctlForbidden", "it stays so");
    node.finish();
}

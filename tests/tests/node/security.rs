//! Who a container's program is, and what it may do.

use std::fs;
use std::process::Command;

use coracle_tests::manifests::{pod, shell, with, with_host_path};
use coracle_tests::needs_root;
use coracle_tests::node::Node;
use serde_json::{Value, json};

/// Runs a script in a container with this security context; its output.
fn output(node: &Node, name: &str, script: &str, pod_context: &Value, context: &Value) -> String {
    let container = with(shell("c", &format!("{script}\necho end")), "securityContext", context.clone());
    let mut one = with(pod(name, vec![container]), "spec.restartPolicy", json!("Never"));
    one["spec"]["securityContext"] = pod_context.clone();
    node.run(&one);
    let log = node.wait_log(name, "c", "end\n");
    log.trim_end_matches("end\n").to_owned()
}

fn field<'a>(status: &'a str, key: &str) -> &'a str {
    let line = status.lines().find_map(|line| line.strip_prefix(key)?.strip_prefix(':'));
    line.unwrap_or_else(|| panic!("no {key} in {status}")).trim()
}

#[test]
fn the_default_is_the_default_of_other_runtimes() {
    needs_root!();
    let node = Node::start();
    let status = output(&node, "plain", "cat /proc/self/status", &json!({}), &json!({}));
    // chown, dac_override, fowner, fsetid, kill, setgid, setuid, setpcap, net_bind_service, net_raw, sys_chroot,
    // mknod, audit_write, setfcap.
    for set in ["CapPrm", "CapEff", "CapBnd"] {
        assert_eq!(field(&status, set), "00000000a80425fb", "{set}");
    }
    for set in ["CapInh", "CapAmb"] {
        assert_eq!(field(&status, set), "0000000000000000", "{set}");
    }
    assert_eq!(field(&status, "Seccomp"), "2");
    assert_eq!(field(&status, "NoNewPrivs"), "0");
    node.finish();
}

#[test]
fn no_descriptor_of_the_agents_reaches_a_container() {
    needs_root!();
    let node = Node::start();
    let seen = output(&node, "descriptors", "ls /proc/1/fd; ls /proc/1/task", &json!({}), &json!({}));
    assert_eq!(seen, "0\n1\n2\n1\n");
    node.finish();
}

#[test]
fn identity_is_as_asked_for() {
    needs_root!();
    let node = Node::start();
    let pod_context = json!({"runAsUser": 1000, "runAsGroup": 1001, "supplementalGroups": [2000, 2001]});
    let context =
        json!({"runAsUser": 1234, "capabilities": {"drop": ["ALL"]}, "allowPrivilegeEscalation": false});
    let status = output(&node, "somebody", "cat /proc/self/status", &pod_context, &context);
    assert_eq!(field(&status, "Uid"), "1234\t1234\t1234\t1234");
    assert_eq!(field(&status, "Gid"), "1001\t1001\t1001\t1001");
    let groups: Vec<_> = field(&status, "Groups").split_whitespace().collect();
    assert!(groups.contains(&"2000") && groups.contains(&"2001") && !groups.contains(&"0"), "{groups:?}");
    for set in ["CapPrm", "CapEff", "CapBnd", "CapInh", "CapAmb"] {
        assert_eq!(field(&status, set), "0000000000000000", "{set}");
    }
    assert_eq!(field(&status, "NoNewPrivs"), "1");
    node.finish();
}

#[test]
fn a_read_only_root_is_read_only_and_proc_is_masked() {
    needs_root!();
    let node = Node::start();
    let script = "touch /x 2>&1; echo y > /dev/null && echo null; wc -c < /proc/interrupts; \
                  (echo 1 > /proc/sys/kernel/sysrq) 2>/dev/null || echo refused";
    let seen = output(&node, "readonly", script, &json!({}), &json!({"readOnlyRootFilesystem": true}));
    assert_eq!(seen, "touch: /x: Read-only file system\nnull\n0\nrefused\n");
    node.finish();
}

#[test]
fn a_privileged_container_is_privileged() {
    needs_root!();
    let node = Node::start();
    let script = "grep -E 'CapEff|Seccomp:' /proc/self/status; cat /proc/1/status | grep NoNewPrivs";
    let seen = output(&node, "privileged", script, &json!({}), &json!({"privileged": true}));
    // All the node's own capabilities: those are all there are, where nothing holds the node back.
    let own = coracle_tests::processes::status_field(node.agent_pid(), "CapBnd").unwrap();
    assert_eq!(field(&seen, "CapEff"), own);
    assert_eq!(field(&seen, "Seccomp"), "0");
    node.finish();
}

#[test]
fn a_volume_in_the_place_of_dev_is_what_is_there() {
    needs_root!();
    let node = Node::start();
    let dev = node.path("dev");
    fs::create_dir(&dev).unwrap();
    let made = Command::new("mknod").args(["-m", "666"]).arg(dev.join("null")).args(["c", "1", "3"]).status();
    assert!(made.unwrap().success());
    fs::write(dev.join("brought"), "").unwrap();
    let script = "cd /dev; echo x > null && ls; grep -c ' /dev/pts ' /proc/self/mounts; \
                  grep -o ' /dev/shm [^ ]*' /proc/self/mounts; echo end";
    for privileged in [true, false] {
        let name = if privileged { "privileged" } else { "plain" };
        let mut container = shell("c", script);
        container["securityContext"] = json!({"privileged": privileged});
        container["terminationMessagePath"] = json!("/tmp/message");
        let mut one = with_host_path(pod(name, vec![container]), "dev", &dev, "/dev");
        one["spec"]["restartPolicy"] = json!("Never");
        node.run(&one);
        let seen = node.wait_log(name, "c", "end\n");
        assert_eq!(seen, "brought\nnull\nshm\n0\n /dev/shm tmpfs\nend\n", "{name}");
    }
    node.finish();
}

#[test]
fn variables_refer_to_one_another() {
    needs_root!();
    let node = Node::start();
    let mut one = pod("env", vec![shell("c", "env; echo \"$0 $1\"")]);
    one["spec"]["containers"][0]["command"] =
        json!(["/bin/sh", "-c", "echo $B; echo \"$0\"; echo end", "$(B) $$(B) $(NO)"]);
    one["spec"]["containers"][0]["env"] =
        json!([{"name": "A", "value": "1"}, {"name": "B", "value": "$(A)2"}]);
    one["spec"]["restartPolicy"] = json!("Never");
    node.run(&one);
    assert_eq!(node.wait_log("env", "c", "end\n"), "12\n12 $(B) $(NO)\nend\n");
    node.finish();
}

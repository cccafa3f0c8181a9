//! Plugins that fail in every way a program can.

use std::time::{Duration, Instant};

use serde_json::json;

use super::scripted::{Node, RESULT, uid};

/// What ADD fails with, when the second plugin of a chain does this.
fn failing(script: &str, deadline: Duration) -> (Node, String) {
    let mut node = Node::new();
    node.deadline = deadline;
    node.configure("1.0.0", json!([{"type": "first"}, {"type": "bad"}]));
    node.install_answering("first", RESULT);
    node.install("bad", &format!("[ $CNI_COMMAND = ADD ] || exit 0\n{script}"));
    let error = node.add(&node.network()).unwrap_err().to_string();
    (node, error)
}

#[test]
fn a_plugins_own_error_is_shown_with_plugin_network_and_pod() {
    let script =
        r#"echo '{"cniVersion": "1.0.0", "code": 11, "msg": "no room", "details": "try later"}'; exit 1"#;
    let (node, error) = failing(script, Duration::from_secs(60));
    assert_eq!(
        error,
        "pod shop/web: plugin bad of network testnet failed (ADD): no room: try later (code 11)"
    );
    assert_eq!(node.verbs(), ["ADD first", "ADD bad", "DEL bad", "DEL first"]);
    assert!(node.files().is_empty(), "what failed was taken back");
}

#[test]
fn a_plugin_that_says_nothing_of_its_failure_is_quoted() {
    for (script, said) in [
        ("echo cannot do it >&2; exit 3", "exit code 3, and no error in the form of CNI: cannot do it"),
        ("echo oops; exit 1", "exit code 1, and no error in the form of CNI: oops"),
        ("exit 2", "exit code 2"),
        ("kill -9 $$", "killed by signal 9"),
        ("echo '{}'; exit 1", "exit code 1"),
        ("echo not json", "its result is not JSON"),
        ("true", "its result is not JSON"),
        ("echo '{\"cniVersion\": \"0.2.0\", \"ip4\": {}}'", "0.2.0"),
        (
            "echo '{\"cniVersion\": \"1.0.0\", \"ips\": [{\"address\": \"10.0.0.300/8\"}]}'",
            "result of an ADD is wrong",
        ),
        ("echo '[]'", "not a JSON object"),
    ] {
        let (node, error) = failing(script, Duration::from_secs(60));
        assert!(error.contains(said), "{script}: {error}");
        assert!(error.starts_with("pod shop/web: plugin bad of network testnet failed (ADD): "), "{error}");
        assert!(node.files().is_empty());
    }
}

#[test]
fn a_plugin_that_hangs_is_ended_with_all_it_has_started() {
    let node = tempfile::tempdir().unwrap();
    let pid_file = node.path().join("pid");
    let script = format!("sleep 600 & echo $! > {}; echo waiting >&2; wait", pid_file.display());
    let began = Instant::now();
    let (_, error) = failing(&script, Duration::from_secs(2));
    assert!(error.contains("has not answered after"), "{error}");
    assert!(error.contains("waiting"), "{error}");
    assert!(began.elapsed() < Duration::from_secs(120), "the deadline counts");
    let pid = std::fs::read_to_string(pid_file).unwrap();
    let path = format!("/proc/{}/stat", pid.trim());
    let deadline = Instant::now() + Duration::from_secs(30);
    // Killed, it may wait for its new parent to reap it.
    while std::fs::read_to_string(&path).is_ok_and(|stat| !stat.contains(") Z ")) {
        assert!(Instant::now() < deadline, "what the plugin has started is still there");
        std::thread::sleep(Duration::from_millis(10));
    }
}

#[test]
fn a_plugin_that_says_too_much_is_ended() {
    let (_, error) = failing("yes; true", Duration::from_secs(60));
    assert!(error.contains("more than 4194304 bytes"), "{error}");
    // Standard error is only read as far as it is shown.
    let (_, error) =
        failing("head -c 10000000 /dev/zero | tr '\\0' x >&2; echo end >&2; exit 1", Duration::from_secs(60));
    assert!(error.len() < 20_000, "{}", error.len());
}

#[test]
fn what_a_plugin_leaves_running_is_not_waited_for() {
    let node = Node::new();
    node.configure("1.0.0", json!([{"type": "only"}]));
    let pid = node.path("pid");
    node.install(
        "only",
        &format!(
            "[ $CNI_COMMAND = ADD ] || exit 0; sleep 600 & echo $! > {}; echo '{RESULT}'",
            pid.display()
        ),
    );
    node.add(&node.network()).unwrap();
    let pid: i32 = std::fs::read_to_string(pid).unwrap().trim().parse().unwrap();
    let pid = rustix::process::Pid::from_raw(pid).unwrap();
    rustix::process::kill_process(pid, rustix::process::Signal::KILL).unwrap();
}

#[test]
fn a_plugin_that_is_not_installed_is_named_with_where_it_was_looked_for() {
    let node = Node::new();
    node.configure("1.0.0", json!([{"type": "missing"}]));
    let error = node.add(&node.network()).unwrap_err().to_string();
    assert!(error.contains("plugin missing: there is no such program"), "{error}");
    assert!(error.contains(&node.path("bin").display().to_string()), "{error}");
}

#[test]
fn a_list_that_names_a_plugin_that_is_not_installed_owes_nothing_and_may_be_mended() {
    let node = Node::new();
    node.install_answering("right", RESULT);
    let network = node.network();
    let ipam = json!({"type": "missing", "subnet": "10.9.0.0/16"});
    for plugins in [
        json!([{"type": "missing"}]),
        json!([{"type": "right"}, {"type": "missing"}]),
        json!([{"type": "bridge", "ipam": ipam}]),
    ] {
        node.configure("1.0.0", plugins);
        let error = node.add(&network).unwrap_err().to_string();
        assert!(error.contains("plugin missing: there is no such program"), "{error}");
        assert!(node.verbs().is_empty(), "nothing was made that is to be taken back");
        assert!(node.files().is_empty());
        network.del(&uid(), None, false).unwrap();
    }
    node.configure("1.0.0", json!([{"type": "right"}]));
    node.add(&network).unwrap();
    assert_eq!(node.verbs(), ["ADD right"]);
}

#[test]
fn a_plugin_that_was_uninstalled_after_its_add_owes_its_del() {
    let node = Node::new();
    node.configure("1.0.0", json!([{"type": "only"}]));
    node.install_answering("only", RESULT);
    let network = node.network();
    node.add(&network).unwrap();
    std::fs::remove_file(node.path("bin/only")).unwrap();
    let error = network.del(&uid(), None, false).unwrap_err().to_string();
    assert!(error.contains("plugin only: there is no such program"), "{error}");
    assert_eq!(node.files(), ["0f0e-uid-0.json"]);
    node.install_answering("only", RESULT);
    network.del(&uid(), None, false).unwrap();
    assert!(node.files().is_empty());
}

#[test]
fn del_is_owed_until_every_plugin_of_the_chain_has_succeeded() {
    let node = Node::new();
    node.configure("1.0.0", json!([{"type": "first"}, {"type": "second"}]));
    node.install_answering("first", RESULT);
    node.install_answering("second", RESULT);
    let network = node.network();
    node.add(&network).unwrap();
    node.install("second", r#"echo '{"code": 5, "msg": "busy"}'; exit 1"#);
    node.executed();
    let error = network.del(&uid(), None, false).unwrap_err().to_string();
    assert_eq!(error, "pod shop/web: plugin second of network testnet failed (DEL): busy (code 5)");
    assert_eq!(node.verbs(), ["DEL second"]);
    assert_eq!(node.files(), ["0f0e-uid-0.json"]);
    node.install_answering("second", RESULT);
    network.del(&uid(), None, false).unwrap();
    assert_eq!(node.verbs(), ["DEL second", "DEL first"]);
    assert!(node.files().is_empty());
}

#[test]
fn an_add_that_nobody_wants_any_more_ends_without_its_plugin() {
    let node = Node::new();
    node.configure("1.0.0", json!([{"type": "first"}, {"type": "second"}]));
    let reached = node.path("reached");
    node.install(
        "first",
        &format!("[ $CNI_COMMAND != ADD ] || {{ touch {}; sleep 600; }}", reached.display()),
    );
    node.install_answering("second", RESULT);
    let network = node.network();
    network.interrupt(&uid());
    std::thread::scope(|scope| {
        let added = scope.spawn(|| node.add(&network));
        let deadline = Instant::now() + Duration::from_secs(60);
        while !reached.exists() {
            assert!(Instant::now() < deadline, "the plugin is not called");
            std::thread::sleep(Duration::from_millis(5));
        }
        network.interrupt(&uid());
        let error = added.join().unwrap().unwrap_err().to_string();
        assert!(error.contains("killed by signal 9"), "{error}");
    });
    assert_eq!(node.verbs(), ["ADD first", "DEL second", "DEL first"]);
    assert!(node.files().is_empty());
    // It concerns that ADD alone.
    node.install_answering("first", RESULT);
    node.add(&network).unwrap();
}

#[test]
fn a_configuration_that_cannot_be_used_attaches_nobody() {
    let node = Node::new();
    super::scripted::write(&node.path("conf/10-test.conflist"), b"{\"name\": \"x\"");
    let error = node.add(&node.network()).unwrap_err().to_string();
    assert!(error.contains("10-test.conflist cannot be used"), "{error}");
    node.configure("0.3.1", json!([{"type": "only"}]));
    let error = node.add(&node.network()).unwrap_err().to_string();
    assert!(error.contains("0.4.0, 1.0.0, 1.1.0"), "{error}");
    assert!(node.files().is_empty());
}

#[test]
fn the_agents_own_namespace_is_never_given_to_a_plugin() {
    let node = Node::new();
    node.configure("1.0.0", json!([{"type": "only"}]));
    node.install_answering("only", RESULT);
    let (pod, netns) = (super::scripted::pod(), std::path::Path::new("/proc/self/ns/net"));
    let attach = coracle_network::Attach::of_pod(&pod, 0, netns).unwrap();
    let error = node.network().add(&attach).unwrap_err().to_string();
    assert!(error.contains("network namespace of the agent itself"), "{error}");
    assert!(node.verbs().is_empty());
}

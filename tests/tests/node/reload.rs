//! The configuration, read again by an agent that runs.

use std::fs;
use std::os::unix::net::UnixDatagram;

use coracle_tests::http::{Serve, Server, header};
use coracle_tests::login1::Login1;
use coracle_tests::machine::Machine;
use coracle_tests::manifests::{idle, pod, shell, with, with_host_path};
use coracle_tests::needs_root;
use coracle_tests::node::{Node, container_id, container_status};
use coracle_tests::processes::{is_alive, signal};
use coracle_tests::wait::{SOON, wait_for, wait_until};
use rustix::process::Signal;
use serde_json::{Value, json};

/// The node's events of a reason, as (message, how often).
fn events(node: &Node, reason: &str) -> Vec<(String, u64)> {
    let text = node.coracle_ok(&["get", "events", "--for", "node/node", "--output", "json"]);
    let list: Value = serde_json::from_str(&text).unwrap();
    let items = list["items"].as_array().cloned().unwrap_or_default().into_iter();
    let of_reason = items.filter(|event| event["reason"] == reason);
    of_reason
        .map(|event| (event["message"].as_str().unwrap().to_owned(), event["count"].as_u64().unwrap_or(1)))
        .collect()
}

#[track_caller]
fn wait_event(node: &Node, reason: &str, text: &str) -> String {
    wait_for(format!("the event {reason} with {text:?}"), SOON, || {
        events(node, reason).into_iter().map(|(message, _)| message).find(|message| message.contains(text))
    })
}

/// What the node goes by.
fn configz(node: &Node) -> Value {
    let answer = node.http_get("/configz").unwrap();
    let (_, body) = answer.split_once("\r\n\r\n").unwrap();
    serde_json::from_str::<Value>(body).unwrap()["kubeletconfig"].take()
}

#[test]
fn limits_of_logs_change_while_containers_write() {
    needs_root!();
    let node = Node::start_with("containerLogMaxSize: 64Mi\n");
    let data = node.path("data");
    let script =
        "seq 1 2000; until [ -e /data/go ]; do usleep 10000; done; seq 2001 4000; echo all; sleep 1000";
    let counter = with_host_path(pod("counter", vec![shell("c", script)]), "data", &data, "/data");
    node.run(&counter);
    node.wait_log("counter", "c", "\n2000\n");
    let before = node.wait_running("counter");
    assert_eq!(node.log_files(&before, "c").len(), 1);

    node.reload_agent("containerLogMaxSize: 4Ki\ncontainerLogMaxFiles: 2\n");
    wait_event(&node, "ConfigurationReloaded", "from now on: containerLogMaxSize, containerLogMaxFiles");
    let config = configz(&node);
    assert_eq!((&config["containerLogMaxSize"], &config["containerLogMaxFiles"]), (&json!("4Ki"), &json!(2)));
    fs::write(data.join("go"), "").unwrap();
    node.wait_log("counter", "c", "all");
    let after = node.wait_running("counter");
    assert_eq!(node.log_files(&after, "c").len(), 2, "rotated, and no more than two kept");
    assert_eq!(container_id(&after, "c"), container_id(&before, "c"));
    assert_eq!(container_status(&after, "c")["restartCount"], 0);
    node.finish();
}

#[test]
fn a_wrong_configuration_changes_nothing_and_is_said() {
    needs_root!();
    let node = Node::start_with("podPidsLimit: 100\n");
    node.run(&pod("web", vec![idle("c")]));
    let (before, config) = (node.wait_running("web"), configz(&node));
    node.reload_agent("podPidsLimit: 7\ncontainerLogMaxFiles: 1\nmaxPod: 3\n");
    let message = wait_event(&node, "InvalidConfiguration", "the node goes on with the one it has");
    for part in [
        "config.yaml:2:23: containerLogMaxFiles: Invalid value: 1: must be greater than 1\n",
        "config.yaml:3:1: maxPod: unknown field; did you mean \"maxPods\"?",
    ] {
        assert!(message.contains(part), "{message}");
        assert!(node.agent_log().contains(part.trim()), "{}", node.agent_log());
    }
    // What a field names is a part of it.
    node.reload_agent(
        "podPidsLimit: 7\nimageCredentialProviderConfig: /no/such\nimageCredentialProviderBinDir: /b\n",
    );
    wait_event(&node, "InvalidConfiguration", "/no/such");
    assert_eq!(configz(&node), config);
    assert_eq!(events(&node, "ConfigurationReloaded"), []);
    let after = node.wait_running("web");
    assert_eq!(container_id(&after, "c"), container_id(&before, "c"));

    // A right one counts, and what cannot change now is named.
    node.reload_agent("podPidsLimit: 7\nbridgeName: other0\ncniTimeout: 30s\n");
    wait_event(&node, "ConfigurationReloaded", "from now on: podPidsLimit");
    wait_event(&node, "RestartRequired", "when the agent is started again: cniTimeout, bridgeName");
    let now = configz(&node);
    assert_eq!((&now["podPidsLimit"], &now["bridgeName"]), (&json!(7), &config["bridgeName"]));
    assert_eq!(container_id(&node.wait_running("web"), "c"), container_id(&before, "c"));
    node.finish();
}

#[test]
fn what_pods_may_and_get_follows_the_configuration() {
    needs_root!();
    let node = Node::start_with("clusterDNS: [192.0.2.1]\nclusterDomain: one.example\n");
    let asks = |name: &str| {
        let sysctls = json!([{"name": "net.core.somaxconn", "value": "77"}]);
        with(pod(name, vec![idle("c")]), "spec.securityContext.sysctls", sysctls)
    };
    node.run(&pod("first", vec![idle("c")]));
    node.run(&asks("refused"));
    let first = node.wait_running("first");
    node.wait_pod("refused", "to be refused", |pod| pod["status"]["reason"] == "SysctlForbidden");

    node.reload_agent(
        "clusterDNS: [192.0.2.2]\nclusterDomain: two.example\nallowedUnsafeSysctls: [net.core.somaxconn]\n\
         seccompDefault: false\n",
    );
    wait_event(
        &node,
        "ConfigurationReloaded",
        "clusterDNS, clusterDomain, allowedUnsafeSysctls, seccompDefault",
    );
    node.run(&asks("allowed"));
    node.wait_running("allowed");
    let read = |pod: &str, path: &str| node.coracle_ok(&["exec", pod, "--", "cat", path]);
    let resolver = read("allowed", "/etc/resolv.conf");
    assert!(resolver.contains("nameserver 192.0.2.2") && resolver.contains("two.example"), "{resolver}");
    let seccomp = |pod: &str| {
        let status =
            fs::read_to_string(format!("/proc/{}/status", node.container_pid(&node.pod(pod).unwrap(), "c")));
        let status = status.unwrap();
        let filters = status.lines().find_map(|line| line.strip_prefix("Seccomp_filters:")).unwrap();
        filters.trim().parse::<u32>().unwrap()
    };
    // Beside those that the agent itself may have.
    assert_eq!(seccomp("first"), seccomp("allowed") + 1);
    let resolver = read("first", "/etc/resolv.conf");
    assert!(resolver.contains("nameserver 192.0.2.1"), "what is made stays: {resolver}");
    assert_eq!(container_id(&node.wait_running("first"), "c"), container_id(&first, "c"));
    node.finish();
}

#[test]
fn manifests_come_from_another_address_at_once() {
    needs_root!();
    let node = Node::start();
    let serve = |pods: &[Value]| {
        let list = json!({"apiVersion": "v1", "kind": "List", "items": pods});
        Serve::Body { body: list.to_string(), tag: None }
    };
    let one = Server::start(node.machine(), 8080, serve(&[pod("web", vec![idle("c")])]));
    let url = |port: u16, token: &str| {
        format!(
            "staticPodURL: http://127.0.0.1:{port}/\nstaticPodURLHeader: {{X-Token: [{token}]}}\n\
             httpCheckFrequency: 1s\n"
        )
    };
    node.reload_agent(&url(8080, "first"));
    let web = node.wait_running("web");
    node.reload_agent(&url(8080, "second"));
    wait_until("the new header to be sent", SOON, || {
        one.asked().iter().any(|request| header(&request.head, "x-token") == Some("second"))
    });
    // Until the other address answers, the pods of the first are those of the other.
    node.reload_agent(&url(8081, "second"));
    wait_event(&node, "FailedToRetrieveStaticPods", "127.0.0.1:8081");
    assert_eq!(container_id(&node.wait_running("web"), "c"), container_id(&web, "c"));
    let other = Server::start(node.machine(), 8081, serve(&[pod("db", vec![idle("c")])]));
    node.wait_running("db");
    node.wait_gone("web");
    node.reload_agent("");
    node.wait_gone("db");
    drop((one, other));
    node.finish();
}

#[test]
fn the_service_manager_is_told_of_a_reload() {
    needs_root!();
    let machine = Machine::new();
    let path = machine.path("notify");
    let manager = UnixDatagram::bind(&path).unwrap();
    manager.set_read_timeout(Some(SOON)).unwrap();
    let next = || {
        let mut buffer = [0; 4096];
        let length = manager.recv(&mut buffer).unwrap();
        String::from_utf8_lossy(&buffer[..length]).into_owned()
    };
    let until = |wanted: &str| while !next().lines().any(|line| line == wanted) {};
    let environment = vec![("NOTIFY_SOCKET".to_owned(), path.display().to_string())];
    let node = Node::start_on(machine, "", environment);
    until("READY=1");
    for configuration in ["podPidsLimit: 9\n", "podPidsLimit: 0\n"] {
        node.reload_agent(configuration);
        let begin = loop {
            let message = next();
            if message.lines().any(|line| line == "RELOADING=1") {
                break message;
            }
        };
        let at = begin.lines().find_map(|line| line.strip_prefix("MONOTONIC_USEC=")).unwrap();
        assert!(at.parse::<u64>().unwrap() > 0);
        until("READY=1");
    }
    node.finish();
}

#[test]
fn a_reload_asked_of_an_agent_that_starts_does_not_make_it_ready() {
    needs_root!();
    let machine = Machine::new();
    let path = machine.path("notify");
    let manager = UnixDatagram::bind(&path).unwrap();
    manager.set_read_timeout(Some(SOON)).unwrap();
    let environment = vec![("NOTIFY_SOCKET".to_owned(), path.display().to_string())];
    let mut node = Node::start_on(machine, "", environment);
    let ready = || {
        let mut buffer = [0; 4096];
        loop {
            let length = manager.recv(&mut buffer).unwrap();
            if String::from_utf8_lossy(&buffer[..length]).lines().any(|line| line == "READY=1") {
                break;
            }
        }
    };
    ready();
    node.run(&pod("kept", vec![idle("c")]));
    let pause = node.pause_pid(&node.wait_running("kept"));
    node.stop_agent();

    // The agent waits two seconds for a pause that does not answer, and then reads what takes longer than to reload.
    signal(pause, Signal::STOP);
    let many: String = (0..20_000).map(|number| format!("- unknown{number}: {number}\n")).collect();
    node.write_manifest_text("many.yaml", format!("apiVersion: v1\nkind: List\nitems:\n{many}").as_bytes());
    node.launch_agent();
    let status = format!("/proc/{}/status", node.agent_pid());
    wait_until("the agent to catch SIGHUP", SOON, || {
        let status = fs::read_to_string(&status).unwrap_or_default();
        let caught = status.lines().find_map(|line| line.strip_prefix("SigCgt:"));
        caught.is_some_and(|set| u64::from_str_radix(set.trim(), 16).unwrap_or(0) & 1 != 0)
    });
    node.reload_agent("podPidsLimit: 9\n");
    ready();
    let problems = node.http_get("/coracle/v1/problems").unwrap();
    assert!(problems.contains("many.yaml"), "it is ready once the manifests were read: {problems}");
    wait_event(&node, "ConfigurationReloaded", "podPidsLimit");
    assert_eq!(configz(&node)["podPidsLimit"], 9);

    signal(pause, Signal::CONT);
    fs::remove_file(node.path("manifests/many.yaml")).unwrap();
    node.remove("kept");
    node.finish();
}

#[test]
fn images_go_by_the_rules_there_are_now() {
    needs_root!();
    let node = Node::start_with("imageMinimumGCAge: 1ms\n");
    let images = || node.coracle_ok(&["image", "ls"]);
    assert!(images().contains("busybox"), "{}", images());
    // Five minutes would pass before it is looked again at what is there.
    node.reload_agent("imageMinimumGCAge: 1ms\nimageMaximumGCAge: 2ms\n");
    wait_event(&node, "ConfigurationReloaded", "from now on: imageMaximumGCAge");
    wait_until("the unused image to go", SOON, || !images().contains("busybox"));
    node.finish();
}

#[test]
fn what_becomes_of_pods_that_an_agent_leaves_is_what_is_configured_then() {
    needs_root!();
    let machine = Machine::new();
    // A shutdown of the host is not to be delayed, nor its logind configured.
    let login1 = Login1::start(&machine);
    let mut node = Node::start_on(machine, "", login1.environment());
    node.run(&pod("web", vec![idle("c")]));
    node.wait_running("web");
    node.reload_agent("podsOnStop: end\nshutdownGracePeriod: 40s\nshutdownGracePeriodCriticalPods: 10s\n");
    let changed = "from now on: podsOnStop, shutdownGracePeriod, shutdownGracePeriodCriticalPods";
    wait_event(&node, "ConfigurationReloaded", changed);
    node.stop_agent();
    let left = node.machine().processes().into_iter().filter(|pid| is_alive(*pid)).count();
    assert_eq!(left, 0, "nothing of the pods runs");
    node.start_agent();
    assert_eq!(container_status(&node.wait_running("web"), "c")["restartCount"], 1);
    node.remove("web");
    node.wait_gone("web");
    node.finish();
}

//! Ephemeral containers: `coracle debug` on pods that run.

use std::fs;
use std::io::Write;
use std::process::Stdio;
use std::time::Duration;

use coracle_tests::images::BUSYBOX;
use coracle_tests::manifests::{idle, pod, shell, with, with_shared};
use coracle_tests::needs_root;
use coracle_tests::node::{Answer, Node, container_id, container_status};
use coracle_tests::processes::{is_alive, kill, namespace};
use coracle_tests::wait::{SOON, holds_for, wait_until};
use serde_json::{Value, json};

const IDLE: &str = "trap 'exit 0' TERM; echo ready; while :; do sleep 3600 & wait $!; done";

/// `coracle debug` with a shell script in a container of this name.
fn debug(node: &Node, pod: &str, name: &str, more: &[&str], script: &str) -> Answer {
    let command = ["debug", pod, "--image", BUSYBOX, "-c", name];
    node.coracle(&[&command[..], more, &["--", "sh", "-c", script]].concat())
}

#[track_caller]
fn debug_ok(node: &Node, pod: &str, name: &str, more: &[&str], script: &str) -> String {
    let answer = debug(node, pod, name, more, script);
    assert_eq!(answer.code, 0, "{}{}", answer.stdout, answer.stderr);
    answer.stdout
}

#[track_caller]
fn wait_state(node: &Node, pod: &str, name: &str, state: &str) -> Value {
    node.wait_pod(pod, &format!("to have {name} {state}"), |pod| {
        let statuses = pod["status"]["ephemeralContainerStatuses"].as_array();
        let mut all = statuses.into_iter().flatten();
        all.any(|status| status["name"] == name && status["state"][state].is_object())
    })
}

#[test]
fn a_debug_container_stands_beside_the_others_and_sees_its_target() {
    needs_root!();
    let node = Node::start();
    node.run(&pod("web", vec![idle("c"), idle("other")]));
    let before = node.wait_running("web");
    // With --attach and no standard input, all that it says, though it is over at once.
    let text = debug_ok(&node, "web", "plain", &["--attach", "--env", "A=b"], "echo A=$A");
    assert_eq!(text, "A=b\n");
    let said = debug_ok(&node, "web", "apart", &[], IDLE);
    assert_eq!(said, "");
    let list = "exec 2>&1; tr '\\0' ' ' < /proc/1/cmdline; echo; ls -d /proc/[0-9]* | wc -l; \
                echo x > /proc/sys/kernel/domainname; grep Cap /proc/self/status; ";
    debug_ok(&node, "web", "sees", &["--target", "c"], &format!("{list} {IDLE}"));
    for name in ["apart", "sees"] {
        node.wait_log("web", name, "ready");
    }
    let seen = wait_state(&node, "web", "plain", "terminated");
    let space = |name: &str, kind: &str| namespace(node.container_pid(&seen, name), kind);
    for kind in ["net", "ipc", "uts"] {
        assert_eq!(space("apart", kind), space("c", kind), "{kind}");
        assert_eq!(space("sees", kind), space("c", kind), "{kind}");
    }
    for kind in ["mnt", "cgroup"] {
        assert_ne!(space("sees", kind), space("c", kind), "{kind}");
    }
    assert_eq!(space("sees", "pid"), space("c", "pid"));
    assert_ne!(space("apart", "pid"), space("c", "pid"));
    assert_ne!(space("sees", "pid"), space("other", "pid"));

    let log = node.logs("web", "sees");
    let mut lines = log.lines();
    assert!(lines.next().unwrap().contains("sleep 3600"), "its target's first process: {log}");
    let processes: usize = lines.next().unwrap().trim().parse().unwrap();
    assert!((3..10).contains(&processes), "its target's and its own processes: {log}");
    assert!(log.contains("Read-only file system"), "what may not be written may not be in its /proc: {log}");
    // CAP_SYS_PTRACE (19), which the profile for debugging adds.
    let (_, effective) = log.split_once("CapEff:\t").expect("its capabilities");
    let effective = u64::from_str_radix(effective.lines().next().unwrap(), 16).unwrap();
    assert_eq!(effective >> 19 & 1, 1, "{log}");
    // The target sees it as it sees itself, and its root by its /proc.
    let root = node.coracle_ok(&["exec", "web", "-c", "sees", "--", "readlink", "/proc/1/exe"]);
    assert!(root.contains("busybox"), "{root}");

    // It counts for nothing.
    for field in ["phase", "conditions", "containerStatuses", "qosClass"] {
        assert_eq!(seen["status"][field], before["status"][field], "{field}");
    }
    let status = container_status(&seen, "sees");
    assert_eq!((&status["ready"], &status["started"]), (&json!(false), &Value::Null), "{status}");
    assert_eq!(seen["metadata"]["uid"], before["metadata"]["uid"]);
    assert_eq!(seen["spec"]["ephemeralContainers"][2]["targetContainerName"], "c");
    let table = node.coracle_ok(&["get", "pods"]);
    assert!(table.contains("2/2"), "{table}");
    let page = node.coracle_ok(&["describe", "pod", "web"]);
    let (_, section) = page.split_once("Ephemeral Containers:\n  plain:").expect("a section of its own");
    assert!(section.contains("Target:         c\n"), "{page}");
    let events = node.coracle_ok(&["get", "events", "--for", "pod/web", "--output", "json"]);
    assert!(events.contains("spec.ephemeralContainers{sees}"), "{events}");

    // The target's end is no concern of the one that only stands beside it.
    kill(node.container_pid(&seen, "c"));
    let seen = wait_state(&node, "web", "sees", "terminated");
    assert_eq!(container_status(&seen, "sees")["state"]["terminated"]["exitCode"], 137);
    node.wait_pod("web", "to have its container back", |pod| {
        container_status(pod, "c")["restartCount"] == 1 && container_status(pod, "c")["ready"] == true
    });
    holds_for("no debug container is started again", Duration::from_millis(500), || {
        let seen = node.pod("web").unwrap();
        let state = |name| &container_status(&seen, name)["state"];
        state("sees")["terminated"].is_object() && state("apart")["running"].is_object()
    });
    node.finish();
}

#[test]
fn one_that_is_typed_to_answers() {
    needs_root!();
    let node = Node::start();
    node.run(&pod("web", vec![idle("c")]));
    node.wait_running("web");
    let mut command = node.command(&["debug", "web", "-i", "--image", BUSYBOX, "--target=c", "--", "sh"]);
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut client = command.spawn().unwrap();
    // What is typed before it runs is kept.
    client.stdin.take().unwrap().write_all(b"echo $((6 * 7)); exit 3\n").unwrap();
    let answer = Answer::from(client.wait_with_output().unwrap());
    assert_eq!(answer.code, 0, "{}", answer.stderr);
    let (name, said) = answer.stdout.split_once(".\n").expect("the name first");
    assert_eq!(said, "42\n");
    let name = name.strip_prefix("Defaulting debug container name to ").unwrap();
    assert!(name.starts_with("debugger-"), "{name}");
    let seen = wait_state(&node, "web", name, "terminated");
    assert_eq!(container_status(&seen, name)["state"]["terminated"]["exitCode"], 3);
    assert_eq!(node.logs("web", name), "42\n");
    node.finish();
}

#[test]
fn it_outlives_the_agent_and_goes_with_the_pod() {
    needs_root!();
    let mut node = Node::start();
    node.run(&pod("web", vec![idle("c")]));
    node.wait_running("web");
    debug_ok(&node, "web", "over", &["--attach"], "exit 7");
    debug_ok(&node, "web", "sees", &["--target", "c"], IDLE);
    // Whoever was told that it was added finds it, however soon the agent dies.
    node.kill_agent();
    node.start_agent();
    node.wait_log("web", "sees", "ready");
    let seen = wait_state(&node, "web", "sees", "running");
    let (id, pid) = (container_id(&seen, "sees"), node.container_pid(&seen, "sees"));
    node.kill_agent();
    assert!(is_alive(pid));
    node.start_agent();
    let again = wait_state(&node, "web", "sees", "running");
    assert_eq!(container_id(&again, "sees"), id);
    assert_eq!(container_status(&again, "over")["state"]["terminated"]["exitCode"], 7);
    let answer = node.coracle_ok(&["exec", "web", "-c", "sees", "--", "cat", "/proc/1/comm"]);
    assert_eq!(answer, "sh\n");
    debug_ok(&node, "web", "later", &["--target", "c"], IDLE);
    node.wait_log("web", "later", "ready");
    node.remove("web");
    node.wait_gone("web");
    wait_until("its process to be gone", SOON, || !is_alive(pid));
    node.finish();
}

#[test]
fn it_waits_for_a_target_that_does_not_run_yet() {
    needs_root!();
    let node = Node::start();
    let wait = "until [ -e /data/go ]; do usleep 10000; done";
    let waiting = with(pod("web", vec![idle("c")]), "spec.initContainers", json!([shell("first", wait)]));
    let data = node.path("data");
    node.run(&with_shared(waiting, "data", &data, "/data"));
    node.wait_pod("web", "to initialize", |pod| {
        pod["status"]["initContainerStatuses"][0]["state"]["running"].is_object()
    });
    // Beside the init container, which may be the one to be looked into.
    debug_ok(&node, "web", "early", &["--target", "first"], IDLE);
    node.wait_log("web", "early", "ready");
    debug_ok(&node, "web", "sees", &["--target", "c"], IDLE);
    let seen = wait_state(&node, "web", "sees", "waiting");
    let message = &container_status(&seen, "sees")["state"]["waiting"]["message"];
    assert_eq!(message, "waiting for container c, the target, to run");
    fs::write(data.join("go"), "").unwrap();
    let seen = wait_state(&node, "web", "sees", "running");
    let space = |name: &str| namespace(node.container_pid(&seen, name), "pid");
    assert_eq!(space("sees"), space("c"));
    node.finish();
}

#[test]
fn what_cannot_be_is_refused_and_harms_nothing() {
    needs_root!();
    let node = Node::start();
    // One that puts something else in the place of what whoever looks into it would see.
    let hide =
        "mount -t tmpfs none /proc; trap 'exit 0' TERM; echo ready; while :; do sleep 3600 & wait $!; done";
    let hiding = with(shell("hides", hide), "securityContext", json!({"privileged": true}));
    node.run(&with(pod("web", vec![idle("c"), hiding]), "spec.terminationGracePeriodSeconds", json!(20)));
    let before = node.wait_running("web");
    node.wait_log("web", "hides", "ready");
    let refused = |name: &str, more: &[&str], words: &str| {
        let answer = debug(&node, "web", name, more, "true");
        assert_eq!(answer.code, 1, "{name} {more:?}: {}", answer.stdout);
        assert!(answer.stderr.contains(words), "{name} {more:?}: {}", answer.stderr);
    };
    refused("c", &[], "spec.ephemeralContainers[0].name: Duplicate value: \"c\"");
    refused("x", &["--target", "y"], "spec.ephemeralContainers[0].targetContainerName: Not found: \"y\"");
    refused("A_b", &[], "spec.ephemeralContainers[0].name: Invalid value: \"A_b\"");
    refused("x", &["--image-pull-policy", "Perhaps"], "imagePullPolicy: Unsupported value: \"Perhaps\"");
    let absent = node.coracle(&["debug", "no-pod", "--image", BUSYBOX]);
    assert!(absent.stderr.contains("pods \"no-pod\" not found"), "{}", absent.stderr);
    assert_eq!(node.pod("web").unwrap()["spec"]["ephemeralContainers"], Value::Null);

    // What is found only when it is made is told, and the pod goes on.
    node.coracle_ok(&["debug", "web", "--image", "localhost/none:1", "-c", "no-image"]);
    debug_ok(&node, "web", "deceived", &["--target", "hides"], IDLE);
    let seen = node.wait_pod("web", "to say what is wrong", |pod| {
        let reason =
            |name| container_status(pod, name)["state"]["waiting"]["reason"].as_str().unwrap_or_default();
        let statuses = pod["status"]["ephemeralContainerStatuses"].as_array();
        statuses.is_some_and(|all| all.len() == 2)
            && reason("no-image").contains("Image")
            && reason("deceived") == "CreateContainerError"
    });
    let message = &container_status(&seen, "deceived")["state"]["waiting"]["message"];
    assert!(message.as_str().unwrap().contains("what it has at /proc is no procfs"), "{message}");
    for field in ["phase", "conditions", "containerStatuses"] {
        assert_eq!(seen["status"][field], before["status"][field], "{field}");
    }

    // A pod that ends takes none; nor does one that has ended.
    node.run(&with(pod("done", vec![shell("c", "exit 0")]), "spec.restartPolicy", json!("Never")));
    node.wait_phase("done", "Succeeded");
    let late = debug(&node, "done", "x", &[], "true");
    assert!(late.stderr.contains("pod default/done does not run"), "{}", late.stderr);
    debug_ok(&node, "web", "holds", &[], "trap '' TERM; echo ready; while :; do sleep 1; done");
    node.wait_log("web", "holds", "ready");
    node.remove("web");
    node.wait_pod("web", "to be ending", |pod| pod["metadata"]["deletionTimestamp"].is_string());
    refused("x", &[], "pod default/web does not run");
    // Like an app container it has the pod's time to end; the test has less.
    let holds = wait_state(&node, "web", "holds", "running");
    kill(node.container_pid(&holds, "holds"));
    node.finish();
}

#[test]
fn wherever_the_agent_dies_each_runs_once() {
    needs_root!();
    let mut node = Node::start();
    node.run(&pod("web", vec![idle("c")]));
    node.wait_running("web");
    let names: Vec<_> = (0..8).map(|round| format!("round-{round}")).collect();
    for (round, name) in names.iter().enumerate() {
        debug_ok(&node, "web", name, &["--target", "c"], "echo once; exit 5");
        // Moments that differ; none of them is waited for.
        std::thread::sleep(Duration::from_micros(4_001 * round as u64));
        node.kill_agent();
        node.start_agent();
    }
    for name in &names {
        let seen = wait_state(&node, "web", name, "terminated");
        let status = container_status(&seen, name);
        assert_eq!(
            (&status["state"]["terminated"]["exitCode"], &status["restartCount"]),
            (&json!(5), &json!(0))
        );
        assert_eq!(node.log_files(&seen, name).len(), 1, "of one run");
        assert_eq!(node.logs("web", name), "once\n", "{name}");
    }
    node.finish();
}

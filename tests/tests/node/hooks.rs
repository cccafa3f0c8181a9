//! Lifecycle hooks, and the grace period they share with the stop signal.

mod http;

use std::fs;
use std::time::{Duration, Instant};

use coracle_tests::manifests::{idle, pod, shell, with, with_shared};
use coracle_tests::needs_root;
use coracle_tests::node::{Node, container_status};
use coracle_tests::processes::{command_line, is_alive};
use coracle_tests::wait::{SOON, wait_for, wait_until};
use serde_json::{Value, json};

const STUBBORN: &str = "trap '' TERM; while :; do sleep 3600; done";

fn exec(script: &str) -> Value {
    json!({"exec": {"command": ["/bin/sh", "-c", script]}})
}

/// A pod with this grace period, whose only container has these hooks, and /data.
fn hooked(node: &Node, name: &str, container: Value, lifecycle: Value, grace: u64) -> Value {
    let hooked = pod(name, vec![with(container, "lifecycle", lifecycle)]);
    let hooked = with(hooked, "spec.terminationGracePeriodSeconds", json!(grace));
    with_shared(hooked, "data", &node.path("data"), "/data")
}

/// Takes a pod's manifest away; how long its container lives on.
fn time_to_end(node: &Node, name: &str) -> Duration {
    let pid = node.container_pid(&node.wait_running(name), "c");
    let start = Instant::now();
    node.remove(name);
    wait_until("the container to end", 2 * SOON, || !is_alive(pid));
    start.elapsed()
}

/// Removes a pod as often as the machine is too busy to be on time; it must never be early.
fn assert_ends_after(node: &Node, name: &str, pod: &Value, time: Duration) {
    const SLACK: Duration = Duration::from_millis(500);
    let mut late = Vec::new();
    while late.len() < 5 {
        node.run(pod);
        let took = time_to_end(node, name);
        node.wait_gone(name);
        assert!(took >= time.saturating_sub(Duration::from_millis(20)), "{name} ended early, after {took:?}");
        if took <= time + SLACK {
            return;
        }
        late.push(took);
    }
    panic!("{name} was to end after {time:?}, and took {late:?}");
}

#[test]
fn a_container_runs_once_its_post_start_hook_is_done() {
    needs_root!();
    let node = Node::start();
    let hook = exec("echo from the hook >> /data/hook; until [ -e /data/go ]; do usleep 10000; done");
    let hooked = hooked(&node, "hooked", idle("c"), json!({"postStart": hook}), 1);
    let mut both = hooked;
    both["spec"]["containers"].as_array_mut().unwrap().push(idle("later"));
    node.run(&both);
    let hook = node.path("data/hook");
    wait_until("the hook to run", SOON, || hook.exists());
    let seen = node.pod("hooked").unwrap();
    for name in ["c", "later"] {
        let status = container_status(&seen, name);
        assert_eq!(status["state"]["waiting"]["reason"], "ContainerCreating", "{status}");
    }
    fs::write(node.path("data/go"), "").unwrap();
    let seen = node.wait_running("hooked");
    assert_eq!(container_status(&seen, "c")["started"], true);
    assert_eq!(fs::read_to_string(hook).unwrap(), "from the hook\n");
    node.finish();
}

#[test]
fn a_failed_post_start_hook_ends_its_container() {
    needs_root!();
    let node = Node::start();
    node.run(&hooked(&node, "hooked", idle("c"), json!({"postStart": exec("echo why; exit 3")}), 1));
    node.wait_pod("hooked", "to be in a crash loop", |pod| {
        let status = container_status(pod, "c");
        status["restartCount"] == 1 && status["state"]["waiting"]["reason"] == "CrashLoopBackOff"
    });
    let events = node.coracle_ok(&["get", "events", "--for", "pod/hooked", "--output", "json"]);
    assert!(events.contains("FailedPostStartHook") && events.contains("PostStartHook failed"), "{events}");
    assert!(!events.contains("why"), "what a hook says may be a secret: {events}");
    node.finish();
}

#[test]
fn the_pre_stop_hook_and_the_signal_share_the_grace_period() {
    needs_root!();
    let node = Node::start();
    // The hook, and then a program that takes a moment.
    let polite = shell("c", "trap 'sleep 1; exit 0' TERM; while :; do sleep 3600 & wait $!; done");
    let sleep = |seconds: u64| json!({"preStop": {"sleep": {"seconds": seconds}}});
    let seconds = Duration::from_secs;
    assert_ends_after(&node, "polite", &hooked(&node, "polite", polite, sleep(1), 30), seconds(2));
    // Killed when the grace period ends, whatever the hook has taken of it.
    let stubborn = || shell("c", STUBBORN);
    assert_ends_after(&node, "stubborn", &hooked(&node, "stubborn", stubborn(), sleep(1), 4), seconds(4));
    // A hook that takes too long is given up; the signal has two seconds.
    assert_ends_after(&node, "slow", &hooked(&node, "slow", stubborn(), sleep(2), 2), seconds(4));
    node.finish();
}

#[test]
fn a_container_that_ignores_the_signal_is_killed_when_its_time_is_over() {
    needs_root!();
    let node = Node::start();
    let stubborn =
        with(pod("stubborn", vec![shell("c", STUBBORN)]), "spec.terminationGracePeriodSeconds", json!(3));
    assert_ends_after(&node, "stubborn", &stubborn, Duration::from_secs(3));
    node.finish();
}

#[test]
fn the_hook_runs_before_the_signal_and_in_the_container() {
    needs_root!();
    let node = Node::start();
    let script = "touch /only-here; trap 'echo signal >> /data/course; exit 0' USR1; echo ready; \
                  while :; do sleep 3600 & wait $!; done";
    let hook = exec("ls /only-here >> /data/course; usleep 300000; echo hook >> /data/course");
    let lifecycle = json!({"preStop": hook, "stopSignal": "SIGUSR1"});
    let hooked = hooked(&node, "hooked", shell("c", script), lifecycle, 30);
    node.run(&with(hooked, "spec.os", json!({"name": "linux"})));
    let seen = node.wait_running("hooked");
    assert_eq!(container_status(&seen, "c")["stopSignal"], "SIGUSR1");
    node.wait_log("hooked", "c", "ready");
    node.remove("hooked");
    node.wait_gone("hooked");
    assert_eq!(fs::read_to_string(node.path("data/course")).unwrap(), "/only-here\nhook\nsignal\n");
    node.finish();
}

#[test]
fn what_hooks_leave_running_is_the_containers() {
    needs_root!();
    let node = Node::start();
    // The container's last deed is to look who is still there.
    let script = "trap 'for pid in $(cat /data/left); do kill -0 $pid && echo $pid >> /data/seen; done; exit 0' TERM; \
                  echo ready; while :; do sleep 3600 & wait $!; done";
    // The second one fails, and is told; what it has left is the container's nevertheless.
    let leave =
        |code: u8| exec(&format!("setsid sleep 7777 </dev/null & echo $! >> /data/left; exit {code}"));
    let lifecycle = json!({"postStart": leave(0), "preStop": leave(3)});
    node.run(&hooked(&node, "hooked", shell("c", script), lifecycle, 30));
    let running = node.wait_running("hooked");
    node.wait_log("hooked", "c", "ready");
    let left = |pod: &Value| {
        let all = node.container_processes(pod, "c");
        all.into_iter().filter(|pid| command_line(*pid) == "sleep 7777").collect::<Vec<_>>()
    };
    let own = left(&running);
    assert_eq!(own.len(), 1);
    wait_until("the hook's own cgroup to be gone", SOON, || {
        let all = node.machine().cgroups().directories();
        !all.iter().any(|path| path.to_string_lossy().contains("/coracle-exec-"))
    });
    assert!(is_alive(own[0]));
    node.remove("hooked");
    node.wait_gone("hooked");
    let read = |file: &str| fs::read_to_string(node.path("data").join(file)).unwrap();
    assert_eq!(read("seen"), read("left"), "both were there");
    assert_eq!(read("seen").lines().count(), 2);
    assert!(!is_alive(own[0]), "it ends with its container");
    let events = node.coracle_ok(&["get", "events", "--for", "pod/hooked", "--output", "json"]);
    assert!(events.contains("FailedPreStopHook"), "{events}");
    node.finish();
}

#[test]
fn an_agent_killed_during_a_pre_stop_hook_begins_at_the_hook_again() {
    needs_root!();
    let mut node = Node::start();
    let script =
        "trap 'echo signal >> /data/course; exit 0' TERM; echo ready; while :; do sleep 3600 & wait $!; done";
    let hook = exec("echo hook >> /data/course; until [ -e /data/go ]; do usleep 10000; done");
    node.run(&hooked(&node, "hooked", shell("c", script), json!({"preStop": hook}), 600));
    let pid = node.container_pid(&node.wait_running("hooked"), "c");
    node.wait_log("hooked", "c", "ready");
    node.remove("hooked");
    let course = node.path("data/course");
    let noted = |lines: usize| {
        let text = fs::read_to_string(&course).unwrap_or_default();
        (text.lines().count() >= lines).then_some(text)
    };
    wait_for("the hook to begin", SOON, || noted(1));
    node.kill_agent();
    assert!(is_alive(pid));
    node.start_agent();
    wait_for("the hook to begin again", SOON, || noted(2));
    fs::write(node.path("data/go"), "").unwrap();
    node.wait_gone("hooked");
    assert_eq!(fs::read_to_string(&course).unwrap(), "hook\nhook\nsignal\n");
    node.finish();
}

#[test]
fn a_removal_with_what_is_left_goes_on_in_the_next_agent() {
    needs_root!();
    let mut node = Node::start();
    let stubborn =
        with(pod("stubborn", vec![shell("c", STUBBORN)]), "spec.terminationGracePeriodSeconds", json!(6));
    node.run(&stubborn);
    let pid = node.container_pid(&node.wait_running("stubborn"), "c");
    let start = Instant::now();
    node.remove("stubborn");
    node.wait_pod("stubborn", "to be ending", |pod| pod["metadata"]["deletionTimestamp"].is_string());
    node.kill_agent();
    node.start_agent();
    wait_until("the container to end", SOON, || !is_alive(pid));
    let took = start.elapsed();
    assert!(took >= Duration::from_secs(6), "killed early, after {took:?}");
    assert!(took < Duration::from_secs(11), "the grace period began anew: {took:?}");
    node.finish();
}

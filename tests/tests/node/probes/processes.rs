//! What probes run, and that nothing of it is left.

use std::collections::BTreeSet;
use std::fs;

use coracle_tests::manifests::{idle, with};
use coracle_tests::needs_root;
use coracle_tests::node::{Node, container_id, container_status};
use coracle_tests::processes;
use coracle_tests::wait::{SOON, wait_for, wait_until};
use serde_json::json;

use super::{by_shell, is_ready, note, times, wait_message, wait_ready, with_data};

/// The processes of a container whose command line holds a text.
fn matching(node: &Node, name: &str, text: &str) -> BTreeSet<String> {
    let Some(pod) = node.pod(name) else { return BTreeSet::new() };
    let all = node.container_processes(&pod, "c");
    all.into_iter().map(processes::command_line).filter(|line| line.contains(text)).collect()
}

#[test]
fn a_probe_that_takes_too_long_is_killed_with_all_it_started() {
    needs_root!();
    let node = Node::start();
    let detached =
        "setsid sleep 7777 & (sleep 7777 & exit 0); nohup sleep 7777 >/dev/null 2>&1 & exec sleep 7777";
    let mut hangs = by_shell(&format!("{}; {detached}", note("probed")), 1000);
    hangs["timeoutSeconds"] = json!(1);
    hangs["periodSeconds"] = json!(3);
    let container = with(idle("c"), "readinessProbe", hangs);
    node.run(&with_data(&node, "hangs", vec![container]));
    node.wait_running("hangs");
    wait_until("the probe's processes", SOON, || !matching(&node, "hangs", "sleep 7777").is_empty());
    let command = format!("/bin/sh -c {}; {detached}", note("probed"));
    let message = wait_message(&node, "hangs", "Unhealthy", "timed out");
    assert_eq!(message, format!("Readiness probe failed: command {command:?} timed out"));
    for attempt in 1..=3 {
        wait_until("the next attempt", SOON, || times(&node, "probed").len() > attempt);
        wait_until("all it started to be gone", SOON, || matching(&node, "hangs", "sleep 7777").is_empty());
    }
    let cgroup = container_id(&node.pod("hangs").unwrap(), "c");
    wait_until("its cgroups to be gone", SOON, || {
        let all = node.machine().cgroups().directories();
        !all.iter().any(|path| path.to_string_lossy().contains(&format!("{cgroup}/coracle-exec-")))
    });
    node.finish();
}

#[test]
fn what_a_probe_leaves_running_is_killed_though_it_succeeds() {
    needs_root!();
    let node = Node::start();
    let leaves = by_shell(&format!("setsid sleep 7777 </dev/null >/dev/null 2>&1 & {}", note("probed")), 3);
    node.run(&with_data(&node, "leaves", vec![with(idle("c"), "readinessProbe", leaves)]));
    node.wait_running("leaves");
    wait_ready(&node, "leaves", true);
    wait_until("some probes", SOON, || times(&node, "probed").len() > 3);
    wait_until("all they started to be gone", SOON, || matching(&node, "leaves", "sleep 7777").is_empty());
    node.finish();
}

#[test]
fn results_outlive_the_agent_and_its_probes_do_not() {
    needs_root!();
    let mut node = Node::start();
    let mut container = idle("c");
    container["startupProbe"] = by_shell(&format!("{}; exit 0", note("up")), 30);
    // Hangs whenever it is told to.
    container["readinessProbe"] = by_shell("[ ! -e /data/hang ] || sleep 7777", 1000);
    container["readinessProbe"]["timeoutSeconds"] = json!(3600);
    node.run(&with_data(&node, "keeps", vec![container]));
    let before = wait_ready(&node, "keeps", true);
    fs::write(node.path("data/hang"), "").unwrap();
    wait_until("a probe that hangs", SOON, || !matching(&node, "keeps", "sleep 7777").is_empty());
    let pid = *node
        .container_processes(&before, "c")
        .iter()
        .find(|pid| processes::command_line(**pid).contains("sleep 7777"))
        .unwrap();
    let up = times(&node, "up").len();
    node.kill_agent();
    assert!(processes::is_alive(pid), "nobody is there to end it");
    node.start_agent();
    wait_until("what the killed agent's probe has left to be gone", SOON, || !processes::is_alive(pid));
    // From the first moment on, though no probe of this agent has ended.
    let after = wait_for("the pod", SOON, || {
        node.pod("keeps").filter(|pod| container_status(pod, "c")["state"]["running"].is_object())
    });
    assert!(is_ready(&after), "{after:#}");
    assert_eq!(container_id(&after, "c"), container_id(&before, "c"));
    assert_eq!(times(&node, "up").len(), up, "who has started is not asked again");
    node.finish();
}

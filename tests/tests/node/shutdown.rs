//! The node's own end: pods end with the machine, and begin again with it.

use std::fs;
use std::time::Duration;

use coracle_tests::login1::Login1;
use coracle_tests::machine::Machine;
use coracle_tests::manifests::{idle, pod, shell, slow_to_end, with, with_host_path};
use coracle_tests::needs_root;
use coracle_tests::node::{Node, container_id, container_status, uid};
use coracle_tests::processes::is_alive;
use coracle_tests::wait::{SOON, holds_for, wait_until};
use serde_json::{Value, json};

/// Twice what a test may take: no time is over before all pods of its group have ended.
const LONG: &str = "shutdownGracePeriod: 100s\nshutdownGracePeriodCriticalPods: 50s\n";

fn on_a_bus(configuration: &str) -> (Login1, Node) {
    let machine = Machine::new();
    let login1 = Login1::start(&machine);
    let node = Node::start_on(machine, configuration, login1.environment());
    login1.wait_locked();
    (login1, node)
}

fn logs(node: &Node, pod: &Value) -> Vec<std::ffi::OsString> {
    let files = node.log_files(pod, "c").into_iter();
    files.map(|file| file.file_name().unwrap().to_owned()).collect()
}

fn restarts(pod: &Value) -> i64 {
    container_status(pod, "c")["restartCount"].as_i64().unwrap()
}

#[test]
fn pods_end_by_priority_with_the_machine_and_begin_again_with_it() {
    needs_root!();
    let by_priority = "shutdownGracePeriodByPodPriority:\n\
                       - {priority: 1000, shutdownGracePeriodSeconds: 60}\n\
                       - {priority: 0, shutdownGracePeriodSeconds: 50}\n";
    let (login1, mut node) = on_a_bus(by_priority);
    wait_until("logind to wait for long enough", SOON, || login1.delay() == Duration::from_secs(110));
    let why = "Pods are given time to end when the machine shuts down";
    assert_eq!(login1.locks(), [["shutdown", "coracle", why, "delay"].map(str::to_owned)]);
    let out = node.path("out");
    for (name, priority) in [("low", 999), ("high", 1000)] {
        node.run(&slow_to_end(name, priority, &out));
        node.wait_running(name);
        node.wait_log(name, "c", "run");
    }

    login1.prepare_for_shutdown(true);
    wait_until("the first group's turn", SOON, || out.join("order").exists());
    assert_eq!(login1.locks().len(), 1, "the machine waits");
    node.run(&pod("late", vec![idle("c")]));
    let late = node.wait_phase("late", "Failed");
    assert_eq!(late["status"]["reason"], "NodeShutdown");
    assert_eq!(late["status"]["message"], "Pod was rejected: Pod was rejected as the node is shutting down.");
    assert_eq!(late["status"]["containerStatuses"], Value::Null);
    let said = node.coracle(&["get", "pods"]).stderr;
    assert!(said.contains("node is shutting down"), "{said}");
    login1.wait_unlocked();
    let order = fs::read_to_string(out.join("order")).unwrap();
    assert_eq!(order, "low asked\nlow ended\nhigh asked\nhigh ended\n");
    let uids: Vec<_> = ["low", "high"]
        .map(|name| {
            let seen = node.pod(name).unwrap();
            assert_eq!(
                (&seen["status"]["phase"], &seen["status"]["reason"]),
                (&json!("Failed"), &json!("Terminated"))
            );
            let message = "Pod was terminated in response to imminent node shutdown.";
            assert_eq!(seen["status"]["message"], message);
            let conditions = seen["status"]["conditions"].as_array().unwrap();
            let target = conditions.iter().find(|condition| condition["type"] == "DisruptionTarget").unwrap();
            let told = (&target["status"], &target["reason"], &target["message"]);
            assert_eq!(told, (&json!("True"), &json!("TerminationByKubelet"), &json!(message)));
            assert_eq!(container_status(&seen, "c")["state"]["terminated"]["exitCode"], 0);
            uid(&seen).to_owned()
        })
        .into();
    let events = node.coracle_ok(&["get", "events"]);
    assert!(events.contains("NodeShutdown") && events.contains("NodeNotReady"), "{events}");

    // As systemd does it when the lock is let go: the agent ends, then whatever is left, then the machine.
    node.stop_agent();
    login1.prepare_for_shutdown(false);
    fs::remove_dir_all(node.path("run")).unwrap();
    node.reboot();
    for (name, before) in ["low", "high"].into_iter().zip(uids) {
        let after = node.wait_running(name);
        assert_eq!(uid(&after), before);
        assert_eq!((restarts(&after), &after["status"]["reason"]), (1, &Value::Null));
        assert_eq!(container_status(&after, "c")["lastState"]["terminated"]["exitCode"], 0);
        // Its emptyDir on disk has both runs, the one in memory the second alone.
        node.wait_log(name, "c", "run\nrun\nrun\n");
    }
    assert_eq!(restarts(&node.wait_running("late")), 0);
    node.finish();
}

#[test]
fn what_runs_when_its_time_is_over_is_killed_and_a_shutdown_that_is_called_off_begins_all_again() {
    needs_root!();
    let (login1, node) = on_a_bus("shutdownGracePeriod: 3s\nshutdownGracePeriodCriticalPods: 1s\n");
    assert_eq!(login1.delay(), Duration::from_secs(5), "which is enough");
    let out = node.path("out");
    let script = "trap '' TERM; echo up; until [ -e /out/go ]; do usleep 10000; done";
    let stubborn = with_host_path(pod("stubborn", vec![shell("c", script)]), "out", &out, "/out");
    node.run(&with(stubborn, "spec.terminationGracePeriodSeconds", json!(600)));
    node.wait_log("stubborn", "c", "up");
    login1.prepare_for_shutdown(true);
    login1.wait_unlocked();
    let seen = node.wait_phase("stubborn", "Failed");
    assert_eq!(container_status(&seen, "c")["state"]["terminated"]["exitCode"], 137);

    login1.prepare_for_shutdown(false);
    login1.wait_locked();
    let again = node.wait_running("stubborn");
    assert_eq!(restarts(&again), 1);
    assert_eq!(node.coracle(&["get", "pods"]).stderr, "");
    let events = node.coracle_ok(&["get", "events"]);
    assert!(events.contains("Shutdown manager detected shutdown cancellation"), "{events}");
    fs::write(out.join("go"), "").unwrap();
    node.finish();
}

#[test]
fn the_time_that_pods_have_follows_the_configuration() {
    needs_root!();
    let machine = Machine::new();
    let login1 = Login1::start(&machine);
    let node = Node::start_on(machine, "", login1.environment());
    let out = node.path("out");
    node.run(&slow_to_end("kept", 0, &out));
    let before = node.wait_running("kept");
    node.wait_log("kept", "c", "run");
    node.reload_agent(LONG);
    wait_until("logind to wait for long enough", SOON, || login1.delay() == Duration::from_secs(100));
    login1.wait_locked();
    node.reload_agent("shutdownGracePeriod: 200s\nshutdownGracePeriodCriticalPods: 50s\n");
    wait_until("logind to wait for longer", SOON, || login1.delay() == Duration::from_secs(200));
    login1.wait_locked();
    assert_eq!(container_id(&node.wait_running("kept"), "c"), container_id(&before, "c"));

    login1.prepare_for_shutdown(true);
    login1.wait_unlocked();
    let ended = node.wait_phase("kept", "Failed");
    assert_eq!(container_status(&ended, "c")["state"]["terminated"]["exitCode"], 0, "it had its time");
    login1.prepare_for_shutdown(false);
    login1.wait_locked();
    node.wait_running("kept");

    node.reload_agent(
        "shutdownGracePeriodByPodPriority:\n- {priority: 0, shutdownGracePeriodSeconds: 170}\n\
         - {priority: 1000, shutdownGracePeriodSeconds: 80}\n",
    );
    wait_until("logind to wait for all priorities", SOON, || login1.delay() == Duration::from_secs(250));
    login1.wait_locked();

    // Nobody waits for pods that have no time any more.
    node.reload_agent("");
    login1.wait_unlocked();
    login1.prepare_for_shutdown(true);
    holds_for("the pod is left alone", Duration::from_millis(300), || {
        fs::read_to_string(out.join("order")).unwrap() == "kept asked\nkept ended\n"
    });
    node.wait_running("kept");
    node.finish();
}

#[test]
fn an_agent_that_ends_ends_no_pod_and_the_next_one_is_told_how_things_are() {
    needs_root!();
    let (login1, mut node) = on_a_bus(LONG);
    let out = node.path("out");
    node.run(&slow_to_end("kept", 0, &out));
    let before = node.wait_running("kept");
    node.wait_log("kept", "c", "run");
    let pid = node.container_pid(&before, "c");
    for graceful in [true, false] {
        if graceful {
            node.stop_agent();
        } else {
            node.kill_agent();
        }
        login1.wait_unlocked();
        assert!(is_alive(pid));
        node.start_agent();
        login1.wait_locked();
        let after = node.wait_running("kept");
        assert_eq!(container_id(&after, "c"), container_id(&before, "c"));
    }
    assert!(!out.join("order").exists(), "it was asked to end");

    // One that starts while the machine shuts down ends what the one before has left.
    node.kill_agent();
    login1.prepare_for_shutdown(true);
    node.start_agent();
    node.wait_phase("kept", "Failed");
    // And one that finds that it does not, begins all again.
    node.kill_agent();
    login1.prepare_for_shutdown(false);
    node.start_agent();
    assert_eq!(restarts(&node.wait_running("kept")), 1);
    node.finish();
}

#[test]
fn logind_and_the_bus_may_come_and_go() {
    needs_root!();
    let machine = Machine::new();
    let mut login1 = Login1::bus(&machine);
    let node = Node::start_on(machine, LONG, login1.environment());
    wait_until("the agent to say that there is no logind", SOON, || {
        node.agent_log().contains("there is no logind on the system's D-Bus")
    });
    node.run(&pod("kept", vec![idle("c")]));
    let before = node.wait_running("kept");
    login1.start_logind();
    let waits = |times| node.agent_log().matches("waits for pods, 100 s").count() == times;
    wait_until("the lock to be taken", SOON, || waits(1));
    login1.stop_logind();
    login1.start_logind();
    wait_until("the lock to be taken again", SOON, || waits(2));
    login1.restart_bus();
    wait_until("the lock to be taken again", SOON, || waits(3));
    login1.wait_locked();
    assert_eq!(container_id(&node.wait_running("kept"), "c"), container_id(&before, "c"));
    login1.prepare_for_shutdown(true);
    login1.wait_unlocked();
    assert_eq!(node.pod("kept").unwrap()["status"]["reason"], "Terminated");
    node.finish();
}

#[test]
fn without_a_bus_the_log_says_what_that_means() {
    needs_root!();
    let machine = Machine::new();
    let nowhere = format!("unix:path={}", machine.path("bus").display());
    let node = Node::start_on(machine, LONG, vec![("DBUS_SYSTEM_BUS_ADDRESS".to_owned(), nowhere)]);
    wait_until("the agent to say that there is no bus", SOON, || {
        node.agent_log().contains("there is no D-Bus on this machine")
    });
    node.run(&pod("runs", vec![idle("c")]));
    node.wait_running("runs");
    node.finish();
}

#[test]
fn a_machine_that_went_down_without_a_word_leaves_nothing_of_the_old_boot() {
    needs_root!();
    for on_disk in [true, false] {
        let mut node = Node::start();
        let out = node.path("out");
        let mut slow = slow_to_end("kept", 0, &out);
        slow["spec"]["terminationGracePeriodSeconds"] = json!(1);
        slow["spec"]["containers"][0]["command"][2] = json!(
            "echo run >> /kept/runs; echo run >> /memory/runs; cat /kept/runs /memory/runs; touch /layer; sleep 3600"
        );
        node.run(&slow);
        let before = node.wait_running("kept");
        node.wait_log("kept", "c", "run");
        let checkpoint = node.path(format!("root/checkpoints/{}.json", uid(&before)));
        let id = container_id(&before, "c");
        wait_until("the checkpoint", SOON, || {
            fs::read_to_string(&checkpoint).is_ok_and(|it| it.contains(&id))
        });
        let layers = node.path(format!("root/pods/{}/containers", uid(&before)));
        assert!(layers.join(&id).exists());
        node.kill_agent();
        node.machine().reboot();
        if !on_disk {
            fs::remove_dir_all(node.path("run")).unwrap();
        }
        node.reboot();
        let after = node.wait_running("kept");
        assert_eq!((uid(&after), restarts(&after)), (uid(&before), 1));
        let last = &container_status(&after, "c")["lastState"]["terminated"];
        assert_eq!((&last["exitCode"], &last["reason"]), (&json!(255), &json!("Unknown")));
        node.wait_log("kept", "c", "run\nrun\nrun\n");
        assert!(!layers.join(&id).exists(), "the writable layer of a container that is gone");
        let sandboxes: Vec<_> =
            fs::read_dir(node.path(format!("run/pods/{}/containers", uid(&after)))).unwrap().collect();
        assert_eq!(sandboxes.len(), 1, "{sandboxes:?}");
        assert_eq!(logs(&node, &after), ["0.log", "1.log"], "what was said last before the reboot is kept");
        // And once more, with the last run dead for good: only the last log of a run that nobody knows is kept.
        if on_disk {
            wait_until("the checkpoint", SOON, || {
                let id = container_id(&after, "c");
                fs::read_to_string(&checkpoint).is_ok_and(|it| it.contains(&id))
            });
            node.reboot();
            let again = node.wait_pod("kept", "to run again", |pod| restarts(pod) == 2);
            assert_eq!(logs(&node, &again), ["1.log", "2.log"]);
            let links = fs::read_dir(node.path("log/containers")).unwrap().count();
            assert_eq!(links, 2, "links to logs that are gone");
        }
        node.finish();
    }
}

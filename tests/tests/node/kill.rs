//! The agent is killed at random moments while pods of every kind come and go.
//!
//! `CORACLE_KILLS` says how often: a few times in every run, 200 for the whole of it. A failing run prints the
//! seed that repeats it as `CORACLE_TEST_SEED`, as far as the machine's own timing allows.

use std::collections::VecDeque;
use std::fs;
use std::path::Path;
use std::time::Duration;

use coracle_tests::manifests::{idle, pod, shell, with, with_host_path};
use coracle_tests::needs_root;
use coracle_tests::node::{Node, container_id, container_status, uid};
use coracle_tests::processes::{self, Pid};
use coracle_tests::random::Random;
use coracle_tests::wait::{SOON, wait_until};
use serde_json::{Value, json};

use crate::configuration::{config_map, mounted, sh};

/// How many pods there are besides the survivors; the oldest goes when there is one more.
const PRESENT: usize = 6;

/// Writes numbered lines for as long as it lives.
const COUNTING: &str = "i=0; while :; do i=$((i+1)); echo line $i; usleep 3000; done";

#[test]
fn pods_of_every_kind_outlive_an_agent_that_is_killed_at_random() {
    needs_root!();
    let mut node = Node::start();
    let mut random = Random::new();
    let settings = |round: usize| config_map("settings", json!({"round": round.to_string()}));
    node.write_manifest("settings.yaml", &settings(0));
    let survivors: Vec<Value> = survivors(&node.path("ran"));
    survivors.iter().for_each(|pod| node.run(pod));
    let before: Vec<Seen> = survivors.iter().map(|pod| Seen::of(&node, pod)).collect();

    let mut present = VecDeque::new();
    for number in 0..kills() {
        node.write_manifest("settings.yaml", &settings(number));
        node.run(&passing(number, &node.path("ran")));
        present.push_back(number);
        if present.len() > PRESENT {
            let oldest = present.pop_front().expect("just counted");
            node.remove(&name(oldest));
        }
        std::thread::sleep(Duration::from_micros(random.below(150_000)));
        node.kill_agent();
        if random.below(3) == 0 {
            // Once more, while it takes over what the one before has left.
            node.launch_agent();
            std::thread::sleep(Duration::from_micros(random.below(80_000)));
            node.kill_agent();
        }
        node.start_agent();
    }

    for number in present {
        check_passing(&node, number);
    }
    for (pod, before) in survivors.iter().zip(before) {
        assert_eq!(Seen::of(&node, pod), before, "a pod was touched");
    }
    let last = kills() - 1;
    wait_until("the last change in the survivor's files", SOON, || {
        sh(&node, "configured", "cat /settings/round; echo; echo $ROUND") == format!("{last}\n0\n")
    });
    for (pod, container) in [("counting", "c"), ("terminal", "c"), ("shared", "a"), ("shared", "b")] {
        let log = node.logs(pod, container);
        for (line, number) in log.lines().zip(1..) {
            assert_eq!(line.trim_end(), format!("line {number}"), "lost or doubled in {pod}/{container}");
        }
        assert!(log.lines().count() > kills(), "{pod}/{container} wrote all the time");
    }
    node.finish();
}

/// What must be the same after all kills.
#[derive(Debug, PartialEq)]
struct Seen {
    uid: String,
    /// Two where the containers share a pid namespace.
    pauses: Vec<Pid>,
    /// Per container: id, first process, restart count.
    containers: Vec<(String, Pid, Value)>,
}

// === impl Seen ===

impl Seen {
    fn of(node: &Node, manifest: &Value) -> Self {
        let pod = node.wait_running(manifest["metadata"]["name"].as_str().expect("a name"));
        let names = manifest["spec"]["containers"].as_array().expect("containers");
        let containers = names.iter().map(|container| {
            let name = container["name"].as_str().expect("a name");
            let first = node.container_pid(&pod, name);
            (container_id(&pod, name), first, container_status(&pod, name)["restartCount"].clone())
        });
        let all = node.machine().cgroups().processes(&format!("pod{}", uid(&pod)));
        let pauses = all.into_iter().filter(|pid| processes::name(*pid).starts_with("pause")).collect();
        Self { uid: uid(&pod).to_owned(), pauses, containers: containers.collect() }
    }
}

fn survivors(ran: &Path) -> Vec<Value> {
    fs::create_dir_all(ran).expect("the machine's directory is writable");
    let terminal = with(pod("terminal", vec![shell("c", COUNTING)]), "spec.containers.0.tty", json!(true));
    let shared = pod("shared", vec![shell("a", COUNTING), shell("b", COUNTING)]);
    vec![
        pod("counting", vec![shell("c", COUNTING)]),
        terminal,
        with(shared, "spec.shareProcessNamespace", json!(true)),
        in_memory(pod("memory", vec![idle("c")])),
        configured(pod("configured", vec![idle("c")])),
    ]
}

/// The pods that come and go, of every kind in turn. Those that end note each run of theirs on the host.
fn passing(number: usize, ran: &Path) -> Value {
    let name = name(number);
    let noting = |script: &str| format!("echo run >> /ran/{name}; {script}");
    let never = |pod| with(pod, "spec.restartPolicy", json!("Never"));
    match number % 7 {
        0 => never(noted(pod(&name, vec![shell("c", &noting(&format!("exit {}", number % 100)))]), ran)),
        1 => pod(&name, vec![idle("a"), idle("b")]),
        2 => noted(pod(&name, vec![shell("c", &noting("exit 3"))]), ran),
        3 => with(pod(&name, vec![idle("c")]), "spec.containers.0.tty", json!(true)),
        4 => with(pod(&name, vec![idle("a"), idle("b")]), "spec.shareProcessNamespace", json!(true)),
        5 => configured(pod(&name, vec![idle("c")])),
        _ => in_memory(pod(&name, vec![idle("c")])),
    }
}

fn check_passing(node: &Node, number: usize) {
    let name = name(number);
    let runs = || fs::read_to_string(node.path("ran").join(&name)).unwrap_or_default().lines().count();
    match number % 7 {
        0 => {
            let code = number % 100;
            let seen = node.wait_phase(&name, if code == 0 { "Succeeded" } else { "Failed" });
            let status = container_status(&seen, "c");
            assert_eq!(status["state"]["terminated"]["exitCode"], code, "{name}");
            assert_eq!(runs(), 1, "{name} ran once");
        }
        2 => {
            let seen = node.wait_pod(&name, "to have ended once", |pod| {
                container_status(pod, "c")["lastState"]["terminated"].is_object()
                    || container_status(pod, "c")["state"]["waiting"]["reason"] == "CrashLoopBackOff"
            });
            let restarts = container_status(&seen, "c")["restartCount"].as_u64().expect("a count");
            let ran = runs() as u64;
            assert!(ran == restarts + 1 || ran == restarts + 2, "{name}: {restarts} restarts, {ran} runs");
        }
        _ => {
            let seen = node.wait_running(&name);
            let statuses = seen["status"]["containerStatuses"].as_array().expect("statuses");
            for status in statuses {
                assert_eq!(status["restartCount"], 0, "{name} was started once");
            }
        }
    }
}

fn name(number: usize) -> String {
    format!("p{number}")
}

/// With the directory where runs are noted.
fn noted(pod: Value, ran: &Path) -> Value {
    with_host_path(pod, "ran", ran, "/ran")
}

/// Gives the pod's first container a file and a variable of a ConfigMap.
fn configured(mut pod: Value) -> Value {
    pod["spec"]["volumes"] = json!([{"name": "settings", "configMap": {"name": "settings"}}]);
    let container = mounted(pod["spec"]["containers"][0].take(), &[("settings", "/settings")]);
    let source =
        json!([{"name": "ROUND", "valueFrom": {"configMapKeyRef": {"name": "settings", "key": "round"}}}]);
    pod["spec"]["containers"][0] = with(container, "env", source);
    pod
}

fn in_memory(pod: Value) -> Value {
    let pod = with(pod, "spec.volumes", json!([{"name": "memory", "emptyDir": {"medium": "Memory"}}]));
    with(pod, "spec.containers.0.volumeMounts", json!([{"name": "memory", "mountPath": "/memory"}]))
}

fn kills() -> usize {
    std::env::var("CORACLE_KILLS").ok().and_then(|text| text.parse().ok()).unwrap_or(20)
}

//! Pods whose cgroups systemd makes: `cgroupDriver: systemd`. All but the first need a real systemd as PID 1, which
//! the VM has (`make test-vm`); there the other tests run with this driver, too (`CORACLE_TEST_CGROUP_DRIVER=systemd`).

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Instant;

use coracle_tests::manifests::{idle, pod, with};
use coracle_tests::needs_root;
use coracle_tests::node::{Answer, Node, container_id, container_status, uid};
use coracle_tests::processes::{is_alive, kill};
use coracle_tests::wait::{SOON, wait_until};
use serde_json::{Value, json};

const BY_SYSTEMD: &str = "cgroupDriver: systemd\n";

pub(crate) fn has_systemd() -> bool {
    let there = Path::new("/run/systemd/system").is_dir();
    if !there {
        println!("skipped: needs systemd as PID 1, which the VM has (make test-vm)");
    }
    there
}

pub(crate) fn systemctl(arguments: &[&str]) -> String {
    let output = Command::new("systemctl").args(arguments).output().unwrap();
    assert!(output.status.success(), "systemctl {arguments:?}: {output:?}");
    String::from_utf8(output.stdout).unwrap()
}

/// The directory of a pod's scope.
pub(crate) fn scope(node: &Node, pod: &Value) -> PathBuf {
    let found = node.machine().cgroups().named(&format!("pod{}", uid(pod)));
    assert_eq!(found.len(), 1, "{found:?}");
    found[0].clone()
}

fn is_scope(path: &Path) -> bool {
    path.extension().is_some_and(|extension| extension == "scope")
}

/// With limits of every kind.
fn limited(name: &str) -> Value {
    let resources = json!({"requests": {"cpu": "50m"}, "limits": {"cpu": "125m", "memory": "64Mi"}});
    pod(name, vec![with(idle("c"), "resources", resources)])
}

/// The limits and processes of a pod's cgroup and those below.
fn state(scope: &Path) -> BTreeMap<PathBuf, Vec<String>> {
    let below = fs::read_dir(scope).unwrap().map(|entry| entry.unwrap().path()).filter(|path| path.is_dir());
    let files = ["cpu.max", "cpu.weight", "memory.max", "pids.max", "cgroup.subtree_control", "cgroup.procs"];
    let read = |dir: PathBuf| {
        let values = files.map(|file| fs::read_to_string(dir.join(file)).unwrap()).to_vec();
        (dir, values)
    };
    below.chain([scope.to_owned()]).map(read).collect()
}

#[test]
fn a_host_without_systemd_is_told_so_before_anything_runs() {
    needs_root!();
    // Natively it is cgroup v1 that is in the way, in the VM the bus.
    let mut node = Node::start_with("cgroupDriver: cgroupfs\n");
    node.stop_agent();
    fs::write(node.path("config.yaml"), BY_SYSTEMD).unwrap();
    let mut agent = node.command(&["agent"]);
    agent.env("DBUS_SYSTEM_BUS_ADDRESS", "unix:path=/nonexistent");
    let answer = Answer::from(agent.output().unwrap());
    assert_eq!(answer.code, 1, "{}", answer.stderr);
    let said = answer.stderr.lines().last().unwrap_or_default().to_owned();
    assert!(said.contains("the cgroup driver \"systemd\"") && said.contains("cgroupDriver"), "{said}");
    let checked = node.coracle(&["check"]);
    assert_eq!(checked.stdout.contains("systemd, and"), !has_systemd(), "{}", checked.stdout);
    fs::write(node.path("config.yaml"), "cgroupDriver: cgroupfs\n").unwrap();
    node.finish();
}

#[test]
fn pods_in_scopes_outlive_reloads_of_systemd_and_the_agent() {
    needs_root!();
    if !has_systemd() {
        return;
    }
    let mut node = Node::start_with(&format!("podPidsLimit: 77\n{BY_SYSTEMD}"));
    node.run(&limited("kept"));
    let before = node.wait_running("kept");
    let scope = scope(&node, &before);
    assert!(is_scope(&scope));
    let unit = scope.file_name().unwrap().to_str().unwrap();
    let shown = systemctl(&["show", unit, "-p", "Description,TasksMax,MemoryMax,CPUQuotaPerSecUSec"]);
    for line in
        ["Description=Pod default/kept", "TasksMax=77", "MemoryMax=67108864", "CPUQuotaPerSecUSec=130ms"]
    {
        assert!(shown.lines().any(|it| it == line), "{line} in {shown}");
    }
    let cgroups = state(&scope);
    let (pause, container) = (node.pause_pid(&before), node.container_pid(&before, "c"));
    let own = scope.join(container_id(&before, "c"));
    assert_eq!(cgroups[&own][0], "12500 100000\n");
    let devices =
        |node: &Node| node.coracle(&["exec", "kept", "--", "sh", "-c", "mknod /d b 8 0 && cat /d"]).stderr;
    let denied = devices(&node);
    assert!(denied.contains("not permitted"), "{denied}");
    systemctl(&["daemon-reload"]);
    node.kill_agent();
    systemctl(&["daemon-reexec"]);
    node.start_agent();
    systemctl(&["daemon-reload"]);
    let after = node.wait_running("kept");
    assert_eq!(state(&scope), cgroups);
    assert_eq!((node.pause_pid(&after), node.container_pid(&after, "c")), (pause, container));
    assert_eq!(container_status(&after, "c")["restartCount"], 0);
    // One that starts while systemd is busy with itself is waited for.
    node.run(&limited("meanwhile"));
    for _ in 0..3 {
        systemctl(&["daemon-reexec"]);
    }
    let meanwhile = node.wait_running("meanwhile");
    assert_eq!(container_status(&meanwhile, "c")["restartCount"], 0);

    // A pause that dies takes its scope with it; the next has the same name.
    kill(pause);
    wait_until("the container to die with its pause", SOON, || !is_alive(container));
    let again = node.wait_pod("kept", "to come back", |pod| {
        let status = container_status(pod, "c");
        status["state"]["running"].is_object()
            && status["containerID"] != container_status(&before, "c")["containerID"]
    });
    assert!(is_alive(node.pause_pid(&again)));
    assert_eq!(fs::read_to_string(scope.join("pids.max")).unwrap(), "77\n");
    node.finish();
    assert!(systemctl(&["list-units", "--all", "--plain", "--no-legend", unit]).is_empty());
}

#[test]
fn pods_of_the_driver_before_run_on_and_new_ones_have_the_other() {
    needs_root!();
    if !has_systemd() {
        return;
    }
    let mut node = Node::start_with("cgroupDriver: cgroupfs\n");
    node.run(&limited("old"));
    node.run(&limited("older"));
    let before = ["old", "older"].map(|name| node.wait_running(name));
    let places = before.each_ref().map(|pod| scope(&node, pod));
    assert!(!places.iter().any(|place| is_scope(place)));
    let containers = before.each_ref().map(|pod| node.container_pid(pod, "c"));
    node.stop_agent();
    fs::write(node.path("config.yaml"), BY_SYSTEMD).unwrap();
    node.start_agent();
    node.run(&limited("new"));
    let new = node.wait_running("new");
    assert!(is_scope(&scope(&node, &new)));
    for ((pod, place), container) in before.iter().zip(&places).zip(containers) {
        assert_eq!(&scope(&node, pod), place);
        assert_eq!(node.container_pid(pod, "c"), container);
    }
    // One that is removed goes from where it was; one that begins again does so with the new driver.
    node.remove("older");
    node.wait_gone("older");
    assert!(!places[1].exists());
    kill(node.pause_pid(&before[0]));
    wait_until("the pod to be in a scope", SOON, || {
        let found = node.machine().cgroups().named(&format!("pod{}", uid(&before[0])));
        found.len() == 1 && is_scope(&found[0])
    });
    node.wait_running("old");

    // And back again.
    node.stop_agent();
    fs::write(node.path("config.yaml"), "cgroupDriver: cgroupfs\n").unwrap();
    node.start_agent();
    assert!(is_scope(&scope(&node, &node.wait_running("new"))));
    node.finish();
}

/// What a pod's start costs under both drivers, for `--ignored --nocapture cost_of_a_scope`.
#[test]
#[ignore = "a measurement, not a test"]
fn cost_of_a_scope() {
    if !has_systemd() {
        return;
    }
    const ROUNDS: usize = 15;
    for driver in ["cgroupfs", "systemd", "cgroupfs", "systemd"] {
        let node = Node::start_with(&format!("cgroupDriver: {driver}\n"));
        let mut times = Vec::new();
        for round in 0..ROUNDS {
            let name = format!("p{round}");
            let out = node.path("up");
            let container = coracle_tests::manifests::shell("c", "touch /up/$HOSTNAME; exec sleep 3600");
            let manifest =
                coracle_tests::manifests::with_host_path(pod(&name, vec![container]), "up", &out, "/up");
            let begun = Instant::now();
            node.run(&manifest);
            wait_until("the pod to be up", SOON, || out.join(&name).exists());
            times.push(begun.elapsed());
        }
        times.sort();
        let begun = Instant::now();
        let many: Vec<_> = (0..20).map(|it| format!("m{it}")).collect();
        many.iter().for_each(|name| node.run(&pod(name, vec![idle("c")])));
        many.iter().for_each(|name| drop(node.wait_running(name)));
        let together = begun.elapsed();
        println!("{driver}: one p50 {:?} min {:?}; 20 at once {together:?}", times[ROUNDS / 2], times[0]);
        node.finish();
    }
}

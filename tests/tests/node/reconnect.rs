//! pause waits for no agent: one that does not read what it is told is hung up on, and has to come back.

use std::fs;

use coracle_tests::manifests::{idle, pod, shell, with, with_host_path};
use coracle_tests::needs_root;
use coracle_tests::node::{Node, container_id, container_status};
use coracle_tests::processes::{self, Pid, is_alive};
use coracle_tests::wait::{SOON, wait_until};
use serde_json::{Value, json};

/// Children of pause that end: more than a socket's buffer takes reports of (some 280 with Linux's defaults).
const ORPHANS: usize = 2000;

/// A pod whose containers do what they are told by files in `data`: one floods its pause with orphans, which
/// become pause's children where there is no pid namespace, one ends with 7, and one stays.
fn flooded(data: &std::path::Path) -> Value {
    let flood = format!(
        "until [ -e /data/flood ]; do usleep 10000; done; \
         i=0; while [ $i -lt {ORPHANS} ]; do i=$((i+1)); (: &); done; touch /data/flooded; \
         until [ -e /data/stop ]; do usleep 10000; done; exit 3"
    );
    let ends = "until [ -e /data/end ]; do usleep 10000; done; exit 7";
    let pod = pod("flooded", vec![shell("floods", &flood), shell("ends", ends), idle("stays")]);
    let pod = with(with(pod, "spec.hostPID", json!(true)), "spec.restartPolicy", json!("Never"));
    let pod = with_host_path(pod, "data", data, "/data");
    let mount = pod["spec"]["containers"][0]["volumeMounts"].clone();
    with(pod, "spec.containers.1.volumeMounts", mount)
}

fn sockets(pid: Pid) -> usize {
    processes::descriptors(pid).values().filter(|target| target.starts_with("socket:")).count()
}

#[test]
fn an_agent_that_pause_hung_up_on_comes_back_and_learns_what_it_missed() {
    needs_root!();
    let node = Node::start();
    let data = node.path("data");
    node.run(&flooded(&data));
    let before = node.wait_running("flooded");
    let pause = node.pause_pid(&before);
    let [ends, stays] = ["ends", "stays"].map(|name| node.container_pid(&before, name));

    let connected = sockets(pause);
    node.suspend_agent();
    fs::write(data.join("flood"), "").unwrap();
    wait_until("pause to hang up", SOON, || sockets(pause) < connected);
    wait_until("the flood to be over", SOON, || data.join("flooded").exists());
    fs::write(data.join("end"), "").unwrap();
    wait_until("a container to end that nobody is told of", SOON, || !is_alive(ends));
    node.resume_agent();

    let exit_code =
        |pod: &Value, name: &str| container_status(pod, name)["state"]["terminated"]["exitCode"].clone();
    node.wait_pod("flooded", "to show the exit that was missed", |pod| exit_code(pod, "ends") == 7);
    // What pause held for the container that ended, its control socket among it, is closed by then.
    assert_eq!(sockets(pause), connected - 1, "the agent is connected again");
    // The new connection does all that the old one did.
    assert_eq!(node.coracle_ok(&["exec", "flooded", "-c", "stays", "--", "echo", "there"]), "there\n");
    fs::write(data.join("stop"), "").unwrap();
    let after =
        node.wait_pod("flooded", "to show an exit it is told of", |pod| exit_code(pod, "floods") == 3);
    assert_eq!(node.pause_pid(&after), pause);
    assert_eq!(node.container_pid(&after, "stays"), stays);
    assert_eq!(container_id(&after, "stays"), container_id(&before, "stays"));
    assert!(node.agent_log().contains("lost the connection to pause and made it again"), "it was never lost");
    node.finish();
}

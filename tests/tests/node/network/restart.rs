//! Networks outlive the agent, and end with the sandbox.

use std::fs::File;
use std::net::SocketAddr;

use coracle_tests::manifests::{idle, pod};
use coracle_tests::needs_root;
use coracle_tests::network::{connect_from, interfaces, listen_in};
use coracle_tests::node::{Node, uid};
use coracle_tests::processes::kill;
use coracle_tests::wait::{SOON, wait_until};

use super::{addresses, echo, ip, speak, tcp};

#[test]
fn addresses_and_connections_outlive_the_agent() {
    needs_root!();
    let mut node = Node::start();
    node.run(&pod("kept", vec![idle("c")]));
    let kept = node.wait_running("kept");
    let inside = node.container_pid(&kept, "c");
    let listener = listen_in(inside, SocketAddr::new(addresses(&kept)[0], 0)).unwrap();
    let there = listener.local_addr().unwrap();
    echo(listener);
    let mut stream = connect_from(node.machine().init(), there).unwrap();
    speak(&mut stream);
    node.kill_agent();
    speak(&mut stream);
    node.start_agent();
    speak(&mut stream);
    let again = node.wait_running("kept");
    assert_eq!(addresses(&again), addresses(&kept));
    assert_eq!(again["status"]["containerStatuses"], kept["status"]["containerStatuses"]);
    node.run(&pod("new", vec![idle("c")]));
    assert_ne!(addresses(&node.wait_running("new")), addresses(&kept));

    // What is on record is not needed for a pod to run on: it is read back from its namespace.
    node.kill_agent();
    let record = node.path(format!("run/network/{}-0.json", uid(&kept)));
    std::fs::write(&record, "").unwrap();
    node.start_agent();
    let again = node.wait_running("kept");
    assert_eq!(addresses(&again), addresses(&kept));
    assert_eq!(again["status"]["containerStatuses"], kept["status"]["containerStatuses"]);
    speak(&mut stream);
    node.finish();
}

#[test]
fn a_new_sandbox_has_a_new_attachment_and_of_the_old_one_nothing_is_left() {
    needs_root!();
    let mut node = Node::start();
    node.run(&pod("again", vec![idle("c")]));
    let first = node.wait_running("again");
    kill(node.pause_pid(&first));
    let runs_again = |pod: &serde_json::Value| {
        let status = &pod["status"]["containerStatuses"][0];
        status["restartCount"].as_u64() > Some(0) && status["state"]["running"].is_object()
    };
    let second = node.wait_pod("again", "to run in a new sandbox", runs_again);
    let record = |attempt| node.path(format!("run/network/{}-{attempt}.json", uid(&first)));
    assert!(!record(0).exists() && record(1).exists());
    ip(node.container_pid(&second, "c"), "link show eth0");

    // Also where the sandbox dies while no agent is there.
    let pause = node.pause_pid(&second);
    node.kill_agent();
    kill(pause);
    node.start_agent();
    node.wait_pod("again", "to run in a third sandbox", |pod| {
        pod["status"]["containerStatuses"][0]["restartCount"].as_u64() > Some(1) && runs_again(pod)
    });
    node.finish();
}

#[test]
fn a_pod_that_comes_back_at_once_keeps_the_interface_that_it_has_then() {
    needs_root!();
    let node = Node::start();
    for name in ["back", "held"] {
        node.run(&pod(name, vec![idle("c")]));
    }
    let (first, held) = (node.wait_running("back"), node.wait_running("held"));
    node.remove("back");
    node.wait_gone("back");
    node.run(&pod("back", vec![idle("c")]));
    let back = node.wait_running("back");
    assert_eq!(uid(&back), uid(&first), "so its interface has the name of the one before");

    // Some seconds after a pod was removed the agent looks whether its interface has ended with its namespace. That
    // of one that is removed later has not, here: once it is gone, the agent has looked for that of the first.
    let namespace = File::open(format!("/proc/{}/ns/net", node.container_pid(&held, "c"))).unwrap();
    let of_pods = || {
        let all = interfaces(node.machine().init());
        all.iter().filter(|name| name.starts_with("veth")).count()
    };
    node.remove("held");
    node.wait_gone("held");
    wait_until("one interface to be left", SOON, || of_pods() == 1);
    drop(namespace);
    let inside = node.container_pid(&back, "c");
    ip(inside, "link show eth0");
    let listener = listen_in(inside, SocketAddr::new(addresses(&back)[0], 0)).unwrap();
    let there = listener.local_addr().unwrap();
    echo(listener);
    tcp(node.machine().init(), there);
    node.finish();
}

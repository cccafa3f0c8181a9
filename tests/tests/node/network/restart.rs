//! Networks outlive the agent, and end with the sandbox.

use std::net::SocketAddr;

use coracle_tests::manifests::{idle, pod};
use coracle_tests::needs_root;
use coracle_tests::network::{connect_from, listen_in};
use coracle_tests::node::Node;
use coracle_tests::processes::kill;

use super::{addresses, echo, ip, speak};

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
    let record = node.path(format!("run/network/{}-0.json", coracle_tests::node::uid(&kept)));
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
    let record =
        |attempt| node.path(format!("run/network/{}-{attempt}.json", coracle_tests::node::uid(&first)));
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

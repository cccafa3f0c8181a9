//! The networks of `coracle run`.

use std::fs;
use std::process::Stdio;

use coracle_tests::manifests::{idle, pod, shell, with};
use coracle_tests::needs_root;
use coracle_tests::network::interfaces;
use coracle_tests::node::Node;
use coracle_tests::processes::{command_line, descendants, kill};
use coracle_tests::wait::{SOON, wait_for, wait_until};
use serde_json::json;

use super::addresses;

#[test]
fn a_run_has_a_network_of_its_own_beside_the_agents_and_takes_it_away() {
    needs_root!();
    let mut node = Node::start();
    node.run(&pod("theirs", vec![idle("c")]));
    let theirs = node.wait_running("theirs");
    let field = json!([{"name": "IP", "valueFrom": {"fieldRef": {"fieldPath": "status.podIPs"}}}]);
    let own = with(
        pod("own", vec![with(shell("c", "echo $IP"), "env", field)]),
        "spec.restartPolicy",
        json!("Never"),
    );
    let (once, forever) = (node.path("once.json"), node.path("forever.json"));
    fs::write(&once, own.to_string()).unwrap();
    fs::write(&forever, pod("stays", vec![idle("c")]).to_string()).unwrap();
    let before = interfaces(node.machine().init());
    let printed = node.coracle_ok(&["run", "-f", once.to_str().unwrap()]);
    assert!(printed.contains("10.84.") && printed.contains("fd83:c07a:c1e1:"), "{printed}");
    assert_eq!(interfaces(node.machine().init()), before, "its bridge goes with it");

    // One that is killed: the next agent takes away what it has left, and nothing of its own pods.
    let mut child =
        node.command(&["run", "-f", forever.to_str().unwrap()]).stdout(Stdio::null()).spawn().unwrap();
    let is_run = |link: &String| link.starts_with("cr");
    wait_until("its bridge", SOON, || interfaces(node.machine().init()).iter().any(is_run));
    let run = wait_for("coracle run", SOON, || {
        let all = descendants(child.id().cast_signed());
        all.into_iter().find(|pid| command_line(*pid).contains(" run -f "))
    });
    kill(run);
    child.wait().unwrap();
    node.kill_agent();
    node.start_agent();
    wait_until("its bridge to be gone", SOON, || !interfaces(node.machine().init()).iter().any(is_run));
    assert_eq!(addresses(&node.wait_running("theirs")), addresses(&theirs));
    node.finish();
}

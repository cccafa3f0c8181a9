//! Many pods come and go, and the agent is killed among them.

use std::collections::BTreeSet;
use std::fs;
use std::process::Command;
use std::time::{Duration, Instant};

use coracle_tests::manifests::{idle, pod, with};
use coracle_tests::needs_root;
use coracle_tests::network::interfaces;
use coracle_tests::node::Node;
use coracle_tests::random::Random;
use coracle_tests::wait::wait_until;
use serde_json::json;

use super::addresses;

/// So many pods come and go, unless `CORACLE_TEST_CHURN` says how many.
const PODS: usize = 500;
/// So many at a time.
const WAVE: usize = 20;
/// How long a wave may take on a busy machine.
const LIMIT: Duration = Duration::from_secs(120);

/// What the rule set has that belongs to pods: the elements of all sets and maps, each on a line of its own.
fn elements(node: &Node) -> Vec<String> {
    let mut command = Command::new("nsenter");
    command.args(["--target", &node.machine().init().to_string(), "--net"]);
    let output = command.args(["nft", "list", "table", "inet", "coracle"]).output().unwrap();
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    text.lines()
        .filter(|line| line.contains("comment \"coracle/"))
        .map(|line| line.trim().to_owned())
        .collect()
}

#[test]
fn pods_that_come_and_go_with_agents_that_are_killed_leave_nothing() {
    needs_root!();
    let pods = std::env::var("CORACLE_TEST_CHURN").ok().and_then(|text| text.parse().ok()).unwrap_or(PODS);
    let mut random = Random::new();
    let mut node = Node::start();
    let began = Instant::now();
    let before = interfaces(node.machine().init());
    for wave in 0..pods.div_ceil(WAVE) {
        let names: Vec<String> = (0..WAVE).map(|number| format!("churn-{wave}-{number}")).collect();
        for (number, name) in names.iter().enumerate() {
            let port = json!([{"containerPort": 80, "hostPort": 20_000 + wave * WAVE + number}]);
            node.run(&pod(name, vec![with(idle("c"), "ports", port)]));
        }
        // Wherever it may be with them.
        for _ in 0..3 {
            std::thread::sleep(Duration::from_millis(random.below(400)));
            node.kill_agent();
            node.start_agent();
        }
        let running = || {
            let pods = node.pods();
            let running = pods.iter().filter(|pod| pod["status"]["phase"] == "Running");
            running.count() == WAVE
        };
        wait_until(format!("wave {wave} to run"), LIMIT, running);
        let given: BTreeSet<_> = node.pods().iter().flat_map(addresses).collect();
        assert_eq!(given.len(), 2 * WAVE, "every address is one pod's");
        for name in &names {
            node.remove(name);
        }
        for _ in 0..3 {
            std::thread::sleep(Duration::from_millis(random.below(400)));
            node.kill_agent();
            node.start_agent();
        }
        wait_until(format!("wave {wave} to be gone"), LIMIT, || node.pods().is_empty());
        node.assert_nothing_left();
        assert_eq!(elements(&node), Vec::<String>::new());
        let mut left = interfaces(node.machine().init());
        left.retain(|link| !before.contains(link) && link != "coracle0");
        assert_eq!(left, BTreeSet::new());
        let owners = node.path("run/cni/networks/coracle/.owners");
        assert_eq!(fs::read_dir(owners).map_or(0, Iterator::count), 0);
    }
    println!("{pods} pods in {:?}", began.elapsed());
    node.finish();
}

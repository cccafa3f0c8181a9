//! Pods that get their addresses at the same time.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use coracle_tests::node::Node;

use crate::{Signal, row, wait_removed};

const PODS: usize = 200;

/// From the first of the manifests to the last of the programs, each in a network of its own.
pub(crate) fn addresses_at_once(node: &Node, signal: &Signal) {
    let names: Vec<String> = (0..PODS).map(|number| format!("addressed{number}")).collect();
    let manifests: Vec<_> = names.iter().map(|name| signal.pod(name)).collect();
    let begin = Instant::now();
    manifests.iter().for_each(|manifest| node.run(manifest));
    let mut last = begin;
    for _ in &names {
        let said = signal.lines.recv_timeout(Duration::from_secs(300));
        (_, last) = said.expect("all programs say they run");
    }
    let seconds = (last - begin).as_secs_f64();
    let pods = node.pods();
    let address = |pod: &serde_json::Value| pod["status"]["podIP"].as_str().map(str::to_owned);
    let addresses: BTreeSet<String> = pods.iter().filter_map(address).collect();
    assert_eq!(addresses.len(), PODS, "every pod has an address of its own");
    row(
        &format!("{PODS} pods with addresses at once, all programs running"),
        format_args!("{seconds:.2} s, {:.0} a second", PODS as f64 / seconds),
    );
    let begin = Instant::now();
    names.iter().for_each(|name| node.remove(name));
    let removed = wait_removed(node) - begin;
    row(
        &format!("removal of {PODS} pods with addresses at once"),
        format_args!("{:.2} s", removed.as_secs_f64()),
    );
}

//! What devices add to a pod's start, through the agent: the same pod with none, one and all of a plugin's, in turn.

use std::ffi::OsStr;
use std::process::{Child, Command};
use std::time::{Duration, Instant};

use coracle_tests::node::Node;
use coracle_tests::wait::{SOON, wait_until};
use serde_json::{Value, json};

use crate::{Signal, quantile, row, spread, wait_removed};

/// How many devices the plugin has.
const DEVICES: u64 = 64;
/// How often each kind of pod is started.
const STARTS: usize = 200;
/// What the plugin offers (`device-cost`).
const RESOURCE: &str = "example.com/x";

/// The plugin's process, ended when this is dropped.
struct Plugin(Child);

impl Drop for Plugin {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// `plugin` is the example `device-cost` of the device manager, which is a plugin too.
pub(crate) fn run(node: &Node, signal: &Signal, plugin: &OsStr) {
    let mut command = Command::new(plugin);
    command.arg(node.path("kubelet/device-plugins")).args([&DEVICES.to_string(), "0", "false"]);
    let plugin = Plugin(command.spawn().expect("the plugin can be started"));
    wait_until("the plugin's devices", SOON, || {
        let text = node.coracle_ok(&["get", "node", "node", "-o", "json"]);
        let object: Value = serde_json::from_str(&text).expect("JSON");
        object["status"]["allocatable"][RESOURCE] == json!(DEVICES.to_string())
    });
    let kinds = [(0, "no device"), (1, "one of 64 devices"), (DEVICES, "64 of 64 devices")];
    let mut times = [const { Vec::new() }; 3];
    for number in 0..STARTS {
        for ((devices, _), times) in kinds.iter().zip(&mut times) {
            times.push(start(node, signal, &format!("d{devices}-{number}"), *devices));
        }
    }
    for ((_, what), times) in kinds.iter().zip(&times) {
        row(&format!("start of a pod with {what}, p50 / p99 / min"), spread(times));
    }
    let [none, with @ ..] = &times;
    for ((_, what), with) in kinds[1..].iter().zip(with) {
        let more = |share| quantile(with, share) - quantile(none, share);
        let ratio = quantile(with, 0.5) / quantile(none, 0.5);
        row(
            &format!("what {what} add, p50 / min; ratio of p50"),
            format_args!("{:.2} / {:.2} ms; {ratio:.3}", more(0.5), more(0.0)),
        );
    }
    drop(plugin);
}

/// From the manifest to the program.
fn start(node: &Node, signal: &Signal, name: &str, devices: u64) -> Duration {
    let mut pod = signal.pod(name);
    if devices > 0 {
        pod["spec"]["containers"][0]["resources"] = json!({"limits": {RESOURCE: devices}});
    }
    let begin = Instant::now();
    node.run(&pod);
    let time = signal.wait(name) - begin;
    node.remove(name);
    wait_removed(node);
    // Its devices are free when it is no more.
    node.wait_gone(name);
    time
}

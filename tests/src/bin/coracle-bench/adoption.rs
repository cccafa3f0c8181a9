//! How long a node is without an agent when its agent is started anew: from the order to start one until it says, as to a
//! service manager, that it is ready, with a hundred pods to take over.

use std::os::unix::net::UnixDatagram;
use std::time::{Duration, Instant};

use coracle_tests::machine::Machine;
use coracle_tests::manifests::{pod, shell};
use coracle_tests::node::Node;

use crate::{cpu_time, row, spread};

const PODS: usize = 100;
const STARTS: usize = 20;

pub(crate) fn run() {
    let machine = Machine::new();
    let path = machine.path("notify");
    let socket = UnixDatagram::bind(&path).expect("the machine's directory is writable");
    socket.set_read_timeout(Some(Duration::from_secs(60))).expect("sockets have time-outs");
    let mut node =
        Node::start_on(machine, "", vec![("NOTIFY_SOCKET".to_owned(), path.display().to_string())]);
    ready(&socket);
    let names: Vec<String> = (0..PODS).map(|number| format!("kept-{number}")).collect();
    names.iter().for_each(|name| node.run(&pod(name, vec![shell("c", "exec sleep 100000")])));
    let mut before: Vec<_> = names.iter().map(|name| node.wait_running(name)).collect();
    let take = |how: &str, node: &mut Node, end: fn(&mut Node)| {
        let mut used = Duration::ZERO;
        let times: Vec<Duration> = (0..STARTS)
            .map(|_| {
                end(node);
                let begin = Instant::now();
                node.launch_agent();
                let time = ready(&socket) - begin;
                used += cpu_time(node.agent_pid());
                node.wait_answering();
                time
            })
            .collect();
        row(
            &format!("start to ready with {PODS} pods to take over, {how}, p50 / p99 / min; processor time"),
            format_args!("{}; {:.0} ms", spread(&times), used.as_secs_f64() * 1e3 / STARTS as f64),
        );
    };
    take("the one before stopped", &mut node, Node::stop_agent);
    take("the one before killed", &mut node, Node::kill_agent);
    for (name, before) in names.iter().zip(&mut before) {
        let id = |pod: &serde_json::Value| pod["status"]["containerStatuses"][0]["containerID"].clone();
        assert_eq!(id(before), id(&node.wait_running(name)), "{name} was started anew");
    }
    node.finish();
}

/// When the agent says that it is ready.
fn ready(socket: &UnixDatagram) -> Instant {
    let mut buffer = [0; 4096];
    loop {
        let length = socket.recv(&mut buffer).expect("the agent becomes ready");
        if String::from_utf8_lossy(&buffer[..length]).lines().any(|line| line == "READY=1") {
            return Instant::now();
        }
    }
}

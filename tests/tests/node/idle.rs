//! Pods that do nothing cost nothing: no processor time, no memory that grows, no wear of the disk.

use std::fmt;
use std::fs;
use std::thread::sleep;
use std::time::Duration;

use coracle_tests::manifests::{pod, shell};
use coracle_tests::needs_root;
use coracle_tests::node::Node;
use coracle_tests::processes::{self, Pid};
use coracle_tests::wait::{SOON, wait_until};

/// What there is after a pod's start that is written later: records after a second, events after five.
const SETTLED: Duration = Duration::from_secs(8);

/// What the node has used so far.
struct Used {
    /// Of the agent and all pauses, in clock ticks.
    ticks: u64,
    /// How often any of them was woken.
    wakes: u64,
    /// What they have caused to be written to disks, in bytes.
    written: u64,
    /// The agent's own memory, in kB.
    memory: u64,
}

impl Used {
    fn by(node: &Node) -> Self {
        let agent = node.agent_pid();
        let of_node = |pid: &Pid| *pid == agent || processes::name(*pid).starts_with("pause");
        let all: Vec<Pid> = node.machine().processes().into_iter().filter(of_node).collect();
        let number = |text: Option<String>| text.and_then(|it| it.trim().parse().ok()).unwrap_or(0_u64);
        let written = |pid: &Pid| {
            let text = fs::read_to_string(format!("/proc/{pid}/io")).unwrap_or_default();
            number(text.lines().find_map(|line| Some(line.strip_prefix("write_bytes:")?.to_owned())))
        };
        Self {
            ticks: all.iter().filter_map(|pid| processes::ticks(*pid)).sum(),
            wakes: all
                .iter()
                .map(|pid| number(processes::status_field(*pid, "voluntary_ctxt_switches")))
                .sum(),
            written: all.iter().map(written).sum(),
            memory: processes::memory_kb(agent, "Anonymous").unwrap_or_default(),
        }
    }
}

impl fmt::Display for Used {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { ticks, wakes, written, memory } = self;
        write!(
            f,
            "{ticks} ticks, {wakes} wake-ups of first threads, {written} bytes written, {memory} kB of memory"
        )
    }
}

/// `CORACLE_IDLE_SECONDS`: for how long, 15 by default. An hour is for by hand.
#[test]
fn fifty_pods_that_do_nothing_cost_nothing() {
    needs_root!();
    let seconds = std::env::var("CORACLE_IDLE_SECONDS").ok().and_then(|text| text.parse().ok()).unwrap_or(15);
    let node = Node::start();
    let names: Vec<String> = (0..50).map(|number| format!("idle-{number}")).collect();
    for name in &names {
        node.run(&pod(name, vec![shell("c", "exec sleep 100000")]));
    }
    for name in &names {
        node.wait_running(name);
    }
    let mut before = Used::by(&node);
    wait_until("the node to come to rest", SOON * 2, || {
        sleep(SETTLED);
        let now = Used::by(&node);
        let at_rest = now.written == before.written && now.ticks - before.ticks <= 1;
        before = now;
        at_rest
    });
    println!("{before}");
    sleep(Duration::from_secs(seconds));
    let after = Used::by(&node);
    println!("{after}, {seconds} s later");
    // A thousandth of a processor; what an hour may write; and no less memory than the allocator gives out at a time.
    assert!(after.ticks - before.ticks <= 2 + seconds / 10, "processor time: {before}; {after}");
    assert!(after.written - before.written < 1_000_000, "writes: {before}; {after}");
    assert!(after.memory <= before.memory + 256, "memory: {before}; {after}");
    node.finish();
}

//! Takes the figures of `docs/benchmarks.md` and prints them as its tables. Run by `make bench`.
//!
//! usage: coracle-bench FLOOR      FLOOR: the program made of `tests/bench/floor.c`
//!        coracle-bench network    only what pods get their addresses in
//!        coracle-bench images [large | many | files]...     only what pulling images costs, of these or of all
//!        coracle-bench adoption   only how long an agent takes to be ready
//!        coracle-bench devices PLUGIN     only what devices add to a start; PLUGIN: the example `device-cost`

#![allow(
    clippy::expect_used,
    clippy::panic,
    clippy::unwrap_used,
    reason = "a benchmark whose surroundings fail has no figures to give"
)]

mod adoption;
mod crun;
mod devices;
mod images;
mod network;
mod turns;

use std::fs::{self, File};
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use coracle_tests::images as test_images;
use coracle_tests::manifests::{pod, shell, with_host_path};
use coracle_tests::node::{Node, binary};
use coracle_tests::processes::{self, Pid, memory_kb};
use serde_json::{Value, json};

use crate::turns::Turns;

const STARTS: usize = 200;
const PODS: usize = 50;
/// How many do nothing, or only answer their probes, while the agent is looked at.
const IDLE: usize = 100;
/// Long, because processor time is counted in hundredths of a second.
const REST: Duration = Duration::from_secs(60);

fn main() {
    let arguments: Vec<_> = std::env::args_os().skip(1).collect();
    if let [first, rootfs] = arguments.as_slice()
        && first == "crun"
    {
        crun::run(Path::new(rootfs));
        return;
    }
    let (floor, rest) = match arguments.as_slice() {
        [floor, rest @ ..] if rest.is_empty() || floor == "images" => (floor, rest),
        [devices, plugin] if devices == "devices" => (devices, std::slice::from_ref(plugin)),
        _ => panic!(
            "usage: coracle-bench FLOOR | network | images [large | many | files]... | adoption | devices PLUGIN"
        ),
    };
    assert!(
        rustix::process::geteuid().is_root(),
        "coracle-bench makes namespaces and cgroups: run it as root"
    );
    if floor != "images" || std::env::var_os(images::INSIDE).is_none() {
        describe_machine();
    }
    if floor == "images" {
        images::run(rest);
        return;
    }
    println!("\n| figure | value |\n|---|---|");
    if floor == "adoption" {
        adoption::run();
        return;
    }
    let node = Node::start();
    let signal = Signal::new(&node);
    if let ("devices", [plugin]) = (floor.to_str().unwrap_or_default(), rest) {
        devices::run(&node, &signal, plugin);
        node.finish();
        return;
    }
    if floor == "network" {
        network::addresses_at_once(&node, &signal);
        node.finish();
        return;
    }
    let at_rest_before = rss(node.agent_pid());
    let mut floor = Turns::start(Command::new(floor).arg(images_directory()).arg(STARTS.to_string()));
    in_turn(&node, &signal, &mut floor);
    all_at_once(&node, &signal, at_rest_before);
    network::addresses_at_once(&node, &signal);
    let http = ("readinessProbe", json!({"httpGet": {"port": 8080, "path": "/passwd"}}));
    let exec = ("livenessProbe", json!({"exec": {"command": ["true"]}}));
    at_rest(&node, &signal, "that do nothing", &[]);
    at_rest(&node, &signal, "with an HTTP probe each", std::slice::from_ref(&http));
    at_rest(&node, &signal, "with an HTTP and an exec probe each", &[http, exec]);
    node.finish();
    adoption::run();
    println!("\nThe floor, {STARTS} times, in turn with the starts above:\n\n{}", floor.end());
    let _ = fs::remove_dir_all(images_directory());
}

fn row(figure: &str, value: impl std::fmt::Display) {
    println!("| {figure} | {value} |");
}

fn describe_machine() {
    let output = |program: &str, arguments: &[&str]| {
        let output = Command::new(program).args(arguments).output().map(|output| output.stdout);
        String::from_utf8_lossy(&output.unwrap_or_default()).trim().to_owned()
    };
    let cgroups = if Path::new("/sys/fs/cgroup/cgroup.controllers").exists() { "v2" } else { "v1" };
    println!(
        "Linux {}, {} cores, cgroup {cgroups}, load {}; {}; {}",
        output("uname", &["-r"]),
        output("nproc", &[]),
        fs::read_to_string("/proc/loadavg").unwrap_or_default().split(' ').next().unwrap_or_default(),
        output(&binary().display().to_string(), &["version"]),
        output("crun", &["--version"]).lines().next().unwrap_or_default(),
    );
}

/// busybox's root file system, unpacked once, for what is no pod.
fn images_directory() -> PathBuf {
    let directory = std::env::temp_dir().join(format!("coracle-bench-{}", std::process::id()));
    if !directory.exists() {
        test_images::unpack("busybox", &directory);
    }
    directory
}

// --- Programs that say they run ---

/// A pipe that containers write a line into as the first thing they do.
struct Signal {
    lines: std::sync::mpsc::Receiver<(String, Instant)>,
    directory: PathBuf,
}

impl Signal {
    fn new(node: &Node) -> Self {
        Self::in_directory(node.path("signal"))
    }

    fn in_directory(directory: PathBuf) -> Self {
        fs::create_dir(&directory).expect("a directory for the pipe");
        let path = directory.join("pipe");
        assert!(Command::new("mkfifo").arg(&path).status().expect("mkfifo").success());
        // Open for writing too: the pipe then never ends, and a writer never waits.
        let pipe = File::options().read(true).write(true).open(&path).expect("the pipe");
        let (sender, lines) = std::sync::mpsc::channel();
        std::thread::spawn(move || {
            for line in BufReader::new(pipe).lines().map_while(Result::ok) {
                if sender.send((line, Instant::now())).is_err() {
                    return;
                }
            }
        });
        Self { lines, directory }
    }

    /// When that line came.
    fn wait(&self, expected: &str) -> Instant {
        loop {
            let (line, time) =
                self.lines.recv_timeout(Duration::from_secs(60)).expect("a program that says it runs");
            if line == expected {
                return time;
            }
        }
    }

    /// A pod of one container that says the pod's name and then sleeps.
    fn pod(&self, name: &str) -> Value {
        let container = shell("c", &format!("echo {name} > /signal/pipe; exec sleep 100000"));
        let mut pod = with_host_path(pod(name, vec![container]), "signal", &self.directory, "/signal");
        // What is pid 1 and handles no signal is deaf to all others: removal is measured without a grace period, of
        // which there are two seconds at least.
        pod["spec"]["os"] = json!({"name": "linux"});
        pod["spec"]["containers"][0]["lifecycle"] = json!({"stopSignal": "SIGKILL"});
        pod
    }
}

// --- Figures ---

/// The time that this share of the times does not exceed, in milliseconds.
fn quantile(times: &[Duration], share: f64) -> f64 {
    let mut sorted = times.to_vec();
    sorted.sort();
    sorted[((sorted.len() - 1) as f64 * share).round() as usize].as_secs_f64() * 1e3
}

/// The times in milliseconds as `p50 / p99 / min`.
fn spread(times: &[Duration]) -> String {
    let at = |share| quantile(times, share);
    format!("{:.1} / {:.1} / {:.1} ms", at(0.5), at(0.99), at(0.0))
}

fn rss(pid: Pid) -> u64 {
    memory_kb(pid, "VmRSS").unwrap_or_default()
}

/// Waits, without the agent's help, until nothing of any pod is on the machine.
fn wait_removed(node: &Node) -> Instant {
    let deadline = Instant::now() + Duration::from_secs(120);
    let pods = ["run/pods", "root/pods"].map(|directory| node.path(directory));
    loop {
        let empty = |directory: &PathBuf| {
            fs::read_dir(directory).map_or(true, |mut entries| entries.next().is_none())
        };
        let cgroups = || {
            let mut all = node.machine().cgroups().directories();
            all.retain(|path| path.file_name().is_some_and(|name| name.to_string_lossy().starts_with("pod")));
            all.is_empty()
        };
        if pods.iter().all(empty) && cgroups() {
            return Instant::now();
        }
        assert!(Instant::now() < deadline, "pods are not removed\n{}", node.agent_log());
        std::thread::sleep(Duration::from_micros(500));
    }
}

/// Starts, `crun run` and the floor take turns: what else the machine does meanwhile falls on all of them alike.
fn in_turn(node: &Node, signal: &Signal, floor: &mut Turns) {
    let mut crun = Turns::start(&mut crun::where_it_can());
    let [mut starts, mut removals, mut to_program, mut whole, mut least] = [const { Vec::new() }; 5];
    for number in 0..STARTS {
        let name = format!("one{number}");
        let manifest = signal.pod(&name);
        let begin = Instant::now();
        node.run(&manifest);
        starts.push(signal.wait(&name) - begin);
        let begin = Instant::now();
        node.remove(&name);
        removals.push(wait_removed(node) - begin);
        let [program, command] = crun.take()[..] else { panic!("crun takes two times") };
        to_program.push(program);
        whole.push(command);
        least.extend(floor.take());
    }
    crun.end();
    row("start of a pod of one container, p50 / p99 / min", spread(&starts));
    row("`crun run` of the same root file system, to the program, p50 / p99 / min", spread(&to_program));
    row("`crun run`, whole command, p50 / p99 / min", spread(&whole));
    row("the floor, to the program, p50 / p99 / min", spread(&least));
    let ratio = |to: &[Duration]| format!("{:.2}", quantile(&starts, 0.5) / quantile(to, 0.5));
    row("start to `crun run`, p50", ratio(&to_program));
    row("start to the floor, p50", ratio(&least));
    row("removal of a pod, p50 / p99 / min", spread(&removals));
}

fn all_at_once(node: &Node, signal: &Signal, rss_without_pods: u64) {
    let names: Vec<String> = (0..PODS).map(|number| format!("many{number}")).collect();
    let manifests: Vec<Value> = names.iter().map(|name| signal.pod(name)).collect();
    let begin = Instant::now();
    manifests.iter().for_each(|manifest| node.run(manifest));
    let mut waiting = PODS;
    let mut last = begin;
    while waiting > 0 {
        let (_, time) =
            signal.lines.recv_timeout(Duration::from_secs(120)).expect("all programs say they run");
        (waiting, last) = (waiting - 1, time);
    }
    row(
        &format!("{PODS} pods at once, all programs running"),
        format_args!("{:.2} s", (last - begin).as_secs_f64()),
    );

    let agent = node.agent_pid();
    let supervisors: Vec<Pid> = {
        let all = node.machine().processes().into_iter();
        all.filter(|pid| *pid != agent && processes::name(*pid) != "sleep").collect()
    };
    let pss: u64 = supervisors.iter().filter_map(|pid| memory_kb(*pid, "Pss")).sum();
    let each = pss as f64 / PODS as f64;
    row(
        "supervision per pod, PSS",
        format_args!("{each:.0} kB ({} processes for {PODS} pods)", supervisors.len()),
    );

    row(
        &format!("agent, resident: before any pod / with {PODS}"),
        format_args!("{:.1} / {:.1} MB", rss_without_pods as f64 / 1e3, rss(agent) as f64 / 1e3),
    );

    let begin = Instant::now();
    names.iter().for_each(|name| node.remove(name));
    let removed = wait_removed(node) - begin;
    row(&format!("removal of {PODS} pods at once"), format_args!("{:.2} s", removed.as_secs_f64()));
}

/// What the agent uses for pods that do nothing, or nothing but answer these probes, each every ten seconds.
fn at_rest(node: &Node, signal: &Signal, what: &str, probes: &[(&str, Value)]) {
    let names: Vec<String> = (0..IDLE).map(|number| format!("idle{}-{number}", probes.len())).collect();
    for name in &names {
        let mut pod = signal.pod(name);
        let container = &mut pod["spec"]["containers"][0];
        if !probes.is_empty() {
            let serve = format!("echo {name} > /signal/pipe; exec httpd -f -p 8080 -h /etc");
            container["command"][2] = json!(serve);
        }
        for (kind, probe) in probes {
            container[*kind] = probe.clone();
        }
        node.run(&pod);
    }
    for _ in &names {
        signal.lines.recv_timeout(Duration::from_secs(120)).expect("all programs say they run");
    }
    // What was started has settled, and the first probes were made; what is used from here on is used at rest.
    std::thread::sleep(Duration::from_secs(12));
    let agent = node.agent_pid();
    let (begin, before, switches) = (Instant::now(), cpu_time(agent), context_switches(agent));
    std::thread::sleep(REST);
    let length = begin.elapsed().as_secs_f64();
    let used = (cpu_time(agent) - before).as_secs_f64() / length;
    let woken = (context_switches(agent).saturating_sub(switches)) as f64 / length;
    row(
        &format!("agent at rest with {IDLE} pods {what}: of one core, context switches a second, RSS / PSS"),
        format_args!(
            "{:.3} %, {woken:.1}, {:.1} / {:.1} MB",
            used * 100.0,
            rss(agent) as f64 / 1e3,
            memory_kb(agent, "Pss").unwrap_or_default() as f64 / 1e3
        ),
    );
    names.iter().for_each(|name| node.remove(name));
    wait_removed(node);
}

/// How often threads of a process that live have given up a processor, of their own will or not.
fn context_switches(pid: Pid) -> u64 {
    let threads = fs::read_dir(format!("/proc/{pid}/task")).expect("the agent runs").flatten();
    let of = |thread: fs::DirEntry| -> u64 {
        let text = fs::read_to_string(thread.path().join("status")).unwrap_or_default();
        let counts = text.lines().filter_map(|line| line.split_once("ctxt_switches:"));
        counts.filter_map(|(_, count)| count.trim().parse::<u64>().ok()).sum()
    };
    threads.map(of).sum()
}

/// Processor time so far, that of threads that ended included: Linux counts it in hundredths of a second.
fn cpu_time(pid: Pid) -> Duration {
    Duration::from_millis(10 * processes::ticks(pid).expect("the agent runs"))
}

//! A node under test: the real agent on a machine of its own, spoken to as a user would.

use std::fs::{self, File};
use std::io::{Read, Write};
use std::net::IpAddr;
use std::os::fd::OwnedFd;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output};
use std::time::Duration;

use serde_json::Value;

use crate::cgroups::{self, is_skeleton};
use crate::images;
use crate::machine::Machine;
use crate::network;
use crate::processes::{self, Pid};
use crate::wait::{SOON, deadline, wait_for, wait_until};

/// A machine with an agent on it. Dropping it ends both; [`Node::finish`] also checks that nothing was left.
pub struct Node {
    machine: Machine,
    /// Variables of the agent's environment.
    environment: Vec<(String, String)>,
    /// The API's socket, which agents are handed.
    listener: Option<UnixListener>,
    agent: Option<Agent>,
    baseline: Option<Baseline>,
}

/// The agent's process, and the `nsenter` it is the child of.
struct Agent {
    entry: Child,
    pid: Pid,
}

/// What the agent had before any pod.
struct Baseline {
    mounts: Vec<String>,
    machine_mounts: Vec<String>,
}

/// What a command of the user's gave.
pub struct Answer {
    /// The exit code; 128 plus the signal's number where a signal ended it.
    pub code: i32,
    /// Standard output.
    pub stdout: String,
    /// Standard error.
    pub stderr: String,
}

/// The `coracle` binary: `$CORACLE_BIN`, or the one built beside this test.
pub fn binary() -> PathBuf {
    if let Some(path) = std::env::var_os("CORACLE_BIN") {
        return path.into();
    }
    let test = std::env::current_exe().expect("a test knows its own path");
    let profile = test.parent().and_then(Path::parent).expect("target/<profile>/deps/<test>");
    let path = profile.join("coracle");
    assert!(path.exists(), "{} is missing: build it first (make build)", path.display());
    path
}

impl Node {
    /// A node with an agent that is ready, and the busybox image.
    pub fn start() -> Self {
        Self::start_with("")
    }

    /// As [`Node::start`], with this in the agent's configuration file.
    pub fn start_with(configuration: &str) -> Self {
        Self::start_on(Machine::new(), configuration, Vec::new())
    }

    /// As [`Node::start_with`], on this machine and with these variables in the agent's environment.
    pub fn start_on(machine: Machine, configuration: &str, environment: Vec<(String, String)>) -> Self {
        let mut node = Self { machine, environment, listener: None, agent: None, baseline: None };
        for directory in ["log", "manifests"] {
            fs::create_dir(node.path(directory)).expect("the machine's directory is writable");
        }
        node.configure(configuration);
        node.start_agent();
        node.import("busybox", images::BUSYBOX);
        node.baseline = Some(Baseline {
            mounts: processes::mounts(node.agent_pid()),
            machine_mounts: processes::mounts(node.machine.init()),
        });
        node
    }

    /// The machine.
    pub fn machine(&self) -> &Machine {
        &self.machine
    }

    /// A path in the node's own directory.
    pub fn path(&self, name: impl AsRef<Path>) -> PathBuf {
        self.machine.path(name)
    }

    /// Writes the agent's configuration file.
    fn configure(&self, configuration: &str) {
        // However full the disk is that the tests run on, it is not to be the reason for anything.
        let collection = match configuration.contains("imageGC") {
            true => "",
            false => "imageGCHighThresholdPercent: 100\nimageGCLowThresholdPercent: 99\n",
        };
        // Only logind is on a bus that a test has made.
        let own_bus = self.environment.iter().any(|(name, _)| name == "DBUS_SYSTEM_BUS_ADDRESS");
        let driver = match cgroups::by_systemd() && !own_bus && !configuration.contains("cgroupDriver") {
            true => "cgroupDriver: systemd\n",
            false => "",
        };
        // The host's specifications are not the node's, and the node's not the host's.
        let cdi = match configuration.contains("cdiSpecDirs") {
            true => String::new(),
            false => format!("cdiSpecDirs: [{}]\n", self.path("cdi").display()),
        };
        let configuration = format!("{configuration}\n{collection}{driver}{cdi}");
        fs::write(self.path("config.yaml"), configuration).expect("the machine's directory is writable");
    }

    // --- The agent ---

    /// The flags that say where the node's things are.
    pub fn flags(&self) -> Vec<String> {
        let places = [
            ("--config", "config.yaml"),
            ("--root-dir", "root"),
            ("--run-dir", "run"),
            ("--log-dir", "log/pods"),
            ("--manifest-dir", "manifests"),
            ("--cni-conf-dir", "cni/net.d"),
            ("--cni-bin-dir", "cni/bin"),
            ("--device-plugin-dir", "kubelet/device-plugins"),
        ];
        let flags = places.map(|(flag, name)| [flag.to_owned(), self.path(name).display().to_string()]);
        let cgroups = ["--cgroup-parent".to_owned(), self.machine.cgroups().name().to_owned()];
        let name = ["--node-name".to_owned(), "node".to_owned()];
        flags.into_iter().chain([cgroups, name]).flatten().collect()
    }

    /// Starts the agent and waits until it answers.
    pub fn start_agent(&mut self) {
        self.launch_agent();
        self.wait_answering();
    }

    /// Waits until an agent that was launched answers.
    pub fn wait_answering(&mut self) {
        wait_until("the agent to answer", SOON, || {
            let agent = self.agent.as_mut().expect("just launched");
            if let Ok(Some(status)) = agent.entry.try_wait() {
                panic!("the agent ended: {status}\n{}", self.agent_log());
            }
            self.http_get("/healthz").is_some_and(|answer| answer.starts_with("HTTP/1.1 200"))
        });
    }

    /// Starts the agent and does not wait.
    pub fn launch_agent(&mut self) {
        assert!(self.agent.is_none(), "an agent runs already");
        let log = File::options().create(true).append(true).open(self.path("agent.log")).expect("agent.log");
        let mut command = match &self.listener {
            None => self.machine.command(binary()),
            Some(listener) => self.command_with_socket(listener),
        };
        command.args(self.flags()).arg("agent").env("RUST_BACKTRACE", "1");
        command.envs(self.environment.iter().cloned());
        command.stdout(log.try_clone().expect("a second descriptor")).stderr(log);
        let mut entry = command.spawn().expect("util-linux's nsenter is installed");
        let parent = entry.id().cast_signed();
        let pid = wait_for("the agent's process", SOON, || {
            if let Ok(Some(status)) = entry.try_wait() {
                panic!("the agent ended: {status}\n{}", self.agent_log());
            }
            let children = processes::descendants(parent);
            children.into_iter().find(|pid| processes::command_line(*pid).contains(" agent"))
        });
        self.agent = Some(Agent { entry, pid });
    }

    /// Holds the API's socket from now on, as a service manager does, and hands it to agents.
    pub fn hold_socket(&mut self, listener: UnixListener) {
        self.listener = Some(listener);
    }

    /// The binary as a command to be run on the machine, which is handed this socket.
    pub fn command_with_socket(&self, listener: &UnixListener) -> Command {
        let script = "LISTEN_PID=$$ LISTEN_FDS=1 exec \"$0\" \"$@\" 3<&0 </dev/null";
        let mut command = self.machine.command("sh");
        command.args(["-c", script]).arg(binary());
        command.stdin(OwnedFd::from(listener.try_clone().expect("a second descriptor")));
        command
    }

    /// The agent's pid, as the tests see it.
    pub fn agent_pid(&self) -> Pid {
        self.agent.as_ref().expect("the agent runs").pid
    }

    /// Kills the agent as a crash would.
    pub fn kill_agent(&mut self) {
        let mut agent = self.agent.take().expect("the agent runs");
        processes::kill(agent.pid);
        let _ = agent.entry.wait();
    }

    /// Writes this into the agent's configuration file, and has the agent read it as `systemctl reload` would.
    pub fn reload_agent(&self, configuration: &str) {
        self.configure(configuration);
        processes::signal(self.agent_pid(), rustix::process::Signal::HUP);
    }

    /// Ends the agent as systemd would; its pods stay.
    pub fn stop_agent(&mut self) {
        let mut agent = self.agent.take().expect("the agent runs");
        processes::signal(agent.pid, rustix::process::Signal::TERM);
        let status = wait_for("the agent to end", SOON, || agent.entry.try_wait().ok().flatten());
        assert!(status.success(), "the agent ended with {status}\n{}", self.agent_log());
    }

    /// Stops the agent where it is, as a debugger would.
    pub fn suspend_agent(&self) {
        let agent = self.agent.as_ref().expect("the agent runs");
        processes::signal(agent.pid, rustix::process::Signal::STOP);
        // `nsenter` stops itself with its child, and has to be continued with it.
        let both = [agent.pid, agent.entry.id().cast_signed()];
        wait_until("the agent to be stopped", SOON, || both.into_iter().all(processes::is_stopped));
    }

    /// Lets a stopped agent go on.
    pub fn resume_agent(&self) {
        let agent = self.agent.as_ref().expect("the agent runs");
        for pid in [agent.pid, agent.entry.id().cast_signed()] {
            processes::signal(pid, rustix::process::Signal::CONT);
        }
    }

    /// The machine goes down and comes up again, and with it the agent: no process is left, no mount, no cgroup,
    /// and the boot is another. The run directory stays, as on a disk, unless the test takes it away before.
    pub fn reboot(&mut self) {
        if let Some(mut agent) = self.agent.take() {
            processes::kill(agent.pid);
            let _ = agent.entry.wait();
        }
        self.machine.reboot();
        self.start_agent();
        let boot_id =
            processes::mounts(self.machine.init()).into_iter().filter(|it| it.contains("/boot_id "));
        if let Some(Baseline { mounts, machine_mounts }) = &mut self.baseline {
            mounts.extend(boot_id.clone());
            machine_mounts.extend(boot_id);
        }
    }

    /// What the agent wrote.
    pub fn agent_log(&self) -> String {
        fs::read(self.path("agent.log"))
            .map(|bytes| String::from_utf8_lossy(&bytes).into_owned())
            .unwrap_or_default()
    }

    /// Asks the agent's socket; the whole answer, head and body.
    pub fn http_get(&self, path: &str) -> Option<String> {
        let mut socket = UnixStream::connect(self.path("run/coracle.sock")).ok()?;
        socket.set_read_timeout(Some(SOON)).ok()?;
        write!(socket, "GET {path} HTTP/1.1\r\nHost: node\r\nConnection: close\r\n\r\n").ok()?;
        let mut answer = Vec::new();
        socket.read_to_end(&mut answer).ok()?;
        Some(String::from_utf8_lossy(&answer).into_owned())
    }

    // --- The user ---

    /// A command line of the user's, to be run on the machine.
    pub fn command(&self, arguments: &[&str]) -> Command {
        let mut command = self.machine.command(binary());
        command.args(self.flags()).args(arguments);
        command
    }

    /// Runs a command line of the user's and waits for its end.
    pub fn coracle(&self, arguments: &[&str]) -> Answer {
        self.command(arguments).output().expect("util-linux's nsenter is installed").into()
    }

    /// Runs a command line of the user's that must succeed; its standard output.
    #[track_caller]
    pub fn coracle_ok(&self, arguments: &[&str]) -> String {
        let answer = self.coracle(arguments);
        assert_eq!(answer.code, 0, "coracle {arguments:?}: {}{}", answer.stdout, answer.stderr);
        answer.stdout
    }

    /// Imports one of the images made of Debian packages.
    pub fn import(&self, image: &str, name: &str) {
        let layout = images::layout(image);
        self.coracle_ok(&["image", "import", &layout.display().to_string(), "--name", name]);
    }

    /// Puts a manifest into the manifest directory, whole, under a file name.
    pub fn write_manifest(&self, file: &str, manifest: &Value) {
        self.write_manifest_text(file, manifest.to_string().as_bytes());
    }

    /// Puts bytes into the manifest directory, whole, under a file name.
    pub fn write_manifest_text(&self, file: &str, text: &[u8]) {
        let temporary = self.path("manifest.new");
        fs::write(&temporary, text).expect("the machine's directory is writable");
        fs::rename(&temporary, self.path("manifests").join(file)).expect("same file system");
    }

    /// Runs a pod from a manifest named after it.
    pub fn run(&self, pod: &Value) {
        let name = pod["metadata"]["name"].as_str().expect("a pod has a name");
        self.write_manifest(&format!("{name}.yaml"), pod);
    }

    /// Takes a pod's manifest away.
    pub fn remove(&self, name: &str) {
        fs::remove_file(self.path("manifests").join(format!("{name}.yaml"))).expect("the manifest is there");
    }

    // --- What there is ---

    /// Every pod, as `get pods -o json` shows it.
    pub fn pods(&self) -> Vec<Value> {
        let text = self.coracle_ok(&["get", "pods", "--all-namespaces", "--output", "json"]);
        let list: Value = serde_json::from_str(&text).unwrap_or_else(|error| panic!("{error} in {text}"));
        list["items"].as_array().cloned().unwrap_or_default()
    }

    /// A pod by its name, if the agent knows it.
    pub fn pod(&self, name: &str) -> Option<Value> {
        self.pods().into_iter().find(|pod| pod["metadata"]["name"] == name)
    }

    /// Waits until a pod is as wanted; the pod.
    #[track_caller]
    pub fn wait_pod(&self, name: &str, what: &str, wanted: impl Fn(&Value) -> bool) -> Value {
        let mut last = None;
        let end = deadline(SOON);
        loop {
            if let Some(pod) = self.pod(name) {
                if wanted(&pod) {
                    return pod;
                }
                last = Some(pod);
            }
            if std::time::Instant::now() > end {
                let seen =
                    last.map_or_else(|| "no such pod".to_owned(), |pod| format!("{:#}", pod["status"]));
                panic!("waited {SOON:?} in vain for pod {name} {what}; seen: {seen}\n{}", self.agent_log());
            }
            std::thread::sleep(Duration::from_millis(10));
        }
    }

    /// Waits until every container of a pod runs.
    #[track_caller]
    pub fn wait_running(&self, name: &str) -> Value {
        self.wait_pod(name, "to run", |pod| {
            let statuses = pod["status"]["containerStatuses"].as_array();
            statuses.is_some_and(|statuses| {
                !statuses.is_empty() && statuses.iter().all(|status| status["state"]["running"].is_object())
            })
        })
    }

    /// Waits until a pod is in a phase.
    #[track_caller]
    pub fn wait_phase(&self, name: &str, phase: &str) -> Value {
        self.wait_pod(name, &format!("to be {phase}"), |pod| pod["status"]["phase"] == phase)
    }

    /// Waits until the agent no longer knows a pod.
    #[track_caller]
    pub fn wait_gone(&self, name: &str) {
        wait_until(format_args!("pod {name} to be gone"), SOON, || self.pod(name).is_none());
    }

    /// The processes of a container, by what the kernel says of its cgroup.
    pub fn container_processes(&self, pod: &Value, container: &str) -> std::collections::BTreeSet<Pid> {
        self.machine.cgroups().processes(&container_id(pod, container))
    }

    /// The first process of a container.
    #[track_caller]
    pub fn container_pid(&self, pod: &Value, container: &str) -> Pid {
        let processes = self.container_processes(pod, container);
        processes::oldest(&processes).unwrap_or_else(|| panic!("no process in container {container}"))
    }

    /// The pod's pause: not its copy that is pid 1 of a shared pid namespace.
    #[track_caller]
    pub fn pause_pid(&self, pod: &Value) -> Pid {
        let cgroup = format!("pod{}", uid(pod));
        let all = self.machine.cgroups().processes(&cgroup);
        let outside = processes::namespace(self.machine.init(), "pid");
        let is_pause = |pid: &Pid| {
            processes::name(*pid).starts_with("pause") && processes::namespace(*pid, "pid") == outside
        };
        let pauses: Vec<_> = all.into_iter().filter(is_pause).collect();
        assert_eq!(pauses.len(), 1, "one pause per pod: {pauses:?}");
        pauses[0]
    }

    /// A container's log as the user sees it.
    pub fn logs(&self, pod: &str, container: &str) -> String {
        self.coracle(&["logs", pod, "--container", container]).stdout
    }

    /// Waits until a container's log holds a text; the log.
    #[track_caller]
    pub fn wait_log(&self, pod: &str, container: &str, text: &str) -> String {
        wait_for(format_args!("{text:?} in the log of {pod}/{container}"), SOON, || {
            let log = self.logs(pod, container);
            log.contains(text).then_some(log)
        })
    }

    /// The files of a container's log, oldest first by their names.
    pub fn log_files(&self, pod: &Value, container: &str) -> Vec<PathBuf> {
        let text = |key: &str| pod["metadata"][key].as_str().unwrap_or_default();
        let directory = format!("log/pods/{}_{}_{}/{container}", text("namespace"), text("name"), uid(pod));
        let Ok(entries) = fs::read_dir(self.path(directory)) else { return Vec::new() };
        let mut files: Vec<_> = entries.filter_map(|entry| Some(entry.ok()?.path())).collect();
        files.sort();
        files
    }

    // --- The end ---

    /// Takes every manifest away, waits until all pods are gone, and checks that nothing is left of them.
    #[track_caller]
    pub fn finish(mut self) {
        if self.agent.is_none() {
            self.start_agent();
        }
        for entry in fs::read_dir(self.path("manifests")).expect("the manifest directory") {
            fs::remove_file(entry.expect("an entry").path()).expect("a manifest can be removed");
        }
        wait_until("every pod to be gone", SOON, || self.pods().is_empty());
        self.assert_nothing_left();
        self.stop_agent();
    }

    /// Checks that no trace of any pod is on the machine.
    #[track_caller]
    pub fn assert_nothing_left(&self) {
        // Removal of what nobody uses any more may trail behind: it is done when it is seen to be.
        let end = deadline(SOON);
        loop {
            let leaks = self.leaks();
            if leaks.is_empty() {
                return;
            }
            assert!(
                std::time::Instant::now() < end,
                "left behind:\n  {}\n{}",
                leaks.join("\n  "),
                self.agent_log()
            );
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    /// What is on the machine and would not be there without pods.
    fn leaks(&self) -> Vec<String> {
        let mut leaks = Vec::new();
        let agent = self.agent.as_ref().map(|agent| agent.pid);
        let processes = self.machine.processes().into_iter().filter(|pid| Some(*pid) != agent);
        leaks.extend(processes.map(|pid| format!("process {pid}: {}", processes::command_line(pid))));

        let cgroups = self.machine.cgroups().directories().into_iter();
        let cgroups = cgroups.filter(|path| !is_skeleton(path));
        leaks.extend(cgroups.map(|path| format!("cgroup {}", path.display())));

        let kept = [
            "run/pods",
            "run/records",
            "run/network",
            "root/pods",
            "root/checkpoints",
            "root/images/leases",
            "log/pods",
            "log/containers",
        ];
        for directory in kept {
            let entries = fs::read_dir(self.path(directory)).into_iter().flatten().filter_map(Result::ok);
            leaks.extend(entries.map(|entry| format!("file {}", entry.path().display())));
        }

        // The files of addresses that are given are named after them.
        let given = fs::read_dir(self.path("run/cni/networks/coracle")).into_iter().flatten();
        let given = given.filter_map(|entry| entry.ok()?.file_name().into_string().ok());
        leaks.extend(
            given.filter(|name| name.parse::<IpAddr>().is_ok()).map(|name| format!("address {name}")),
        );
        let links = network::interfaces(self.machine.init()).into_iter();
        leaks.extend(links.filter(|link| link.starts_with("veth")).map(|link| format!("interface {link}")));

        if let Some(baseline) = &self.baseline {
            let machine = Some((self.machine.init(), &baseline.machine_mounts));
            let agent = agent.map(|agent| (agent, &baseline.mounts));
            for (pid, before) in machine.into_iter().chain(agent) {
                let mounts = processes::mounts(pid).into_iter().filter(|mount| !before.contains(mount));
                // Of the node, not of a pod: the first agent of a boot makes it.
                let configs = format!(" {} ", self.path("run/configs").display());
                let mounts = mounts.filter(|mount| !mount.contains(&configs));
                leaks.extend(mounts.map(|mount| format!("mount of process {pid}: {mount}")));
            }
        }
        // A descriptor of a pod keeps what it names: a namespace, a pipe, a process, a deleted file.
        for (number, target) in agent.map(processes::descriptors).unwrap_or_default() {
            let of_pod = ["/pods/", "(deleted)", "net:[", "mnt:[", "pid:[", "anon_inode:[pidfd]"];
            // A memfd is a program's, but for containers' environments.
            let own = target.starts_with("/memfd:") && !target.contains("environment");
            if of_pod.iter().any(|mark| target.contains(mark)) && !own {
                leaks.push(format!("descriptor {number} of the agent: {target}"));
            }
        }
        leaks
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        if std::thread::panicking() {
            let log = self.agent_log();
            let tail: Vec<_> = log.lines().rev().take(60).collect();
            eprintln!("--- the end of the agent's log");
            tail.iter().rev().for_each(|line| eprintln!("{line}"));
        }
        if let Some(mut agent) = self.agent.take() {
            processes::kill(agent.pid);
            let _ = agent.entry.wait();
        }
    }
}

impl From<Output> for Answer {
    fn from(output: Output) -> Self {
        use std::os::unix::process::ExitStatusExt;
        let text = |bytes: Vec<u8>| String::from_utf8_lossy(&bytes).into_owned();
        let code = output.status.code().or_else(|| output.status.signal().map(|signal| 128 + signal));
        Self { code: code.unwrap_or(-1), stdout: text(output.stdout), stderr: text(output.stderr) }
    }
}

/// A pod's UID.
pub fn uid(pod: &Value) -> &str {
    pod["metadata"]["uid"].as_str().expect("a pod has a UID")
}

/// The status of one of a pod's containers.
#[track_caller]
pub fn container_status<'a>(pod: &'a Value, container: &str) -> &'a Value {
    let lists = ["containerStatuses", "initContainerStatuses", "ephemeralContainerStatuses"];
    let mut all = lists.into_iter().filter_map(|list| pod["status"][list].as_array()).flatten();
    all.find(|status| status["name"] == container)
        .unwrap_or_else(|| panic!("no status of {container} in {pod:#}"))
}

/// The 64 digits of a container's id, without the runtime's name in front.
#[track_caller]
pub fn container_id(pod: &Value, container: &str) -> String {
    let id = container_status(pod, container)["containerID"].as_str().expect("the container has an id");
    id.rsplit('/').next().expect("rsplit gives one part at least").to_owned()
}

//! Networks of a test's own.

use std::any::type_name_of_val;
use std::env;
use std::fs::File;
use std::os::fd::AsFd;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use coracle_linux::in_network_namespace;

/// Set in the process that runs inside.
const INSIDE: &str = "CORACLE_TEST_INSIDE";

/// Runs a test in a process of its own, whose network namespace nobody else has: the test calls this with all it does.
pub(crate) fn in_own_network(work: impl FnOnce()) {
    if !rustix::process::geteuid().is_root() {
        println!("skipped: making a network namespace needs root");
        return;
    }
    if env::var_os(INSIDE).is_some() {
        return work();
    }
    let name = type_name_of_val(&work);
    let name = name.strip_suffix("::{{closure}}").unwrap_or(name);
    let (_, name) = name.split_once("::").expect("a test is in a crate");
    let mut inside = Command::new("unshare");
    inside.arg("--net").arg(env::current_exe().unwrap()).args(["--exact", name, "--nocapture"]);
    let status = inside.env(INSIDE, "1").status().unwrap();
    assert!(status.success(), "{name}: {status}");
}

/// Runs a command line (of words without spaces) that must succeed, and tells what it printed.
pub(crate) fn run(line: &str) -> String {
    let words: Vec<&str> = line.split_whitespace().collect();
    finish(Command::new(words[0]).args(&words[1..]), line)
}

/// Runs a shell's script.
pub(crate) fn script(text: &str) -> String {
    finish(Command::new("sh").args(["-e", "-c", text]), text)
}

fn finish(command: &mut Command, line: &str) -> String {
    let output = command.output();
    let output = output.unwrap_or_else(|error| panic!("{line}: {error}: see scripts/install-missing test"));
    let complaint = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{line}: {}: {complaint}", output.status);
    String::from_utf8(output.stdout).unwrap()
}

/// Another network namespace. It ends with the test.
pub(crate) struct Namespace {
    keeper: Child,
    file: File,
}

impl Namespace {
    pub(crate) fn new() -> Self {
        let mut keeper = Command::new("setpriv");
        keeper.args(["--pdeathsig", "KILL", "unshare", "--net", "sleep", "infinity"]);
        let keeper = keeper.stdin(Stdio::null()).spawn().unwrap();
        let path = format!("/proc/{}/ns/net", keeper.id());
        let own = std::fs::read_link("/proc/self/ns/net").unwrap();
        let deadline = Instant::now() + Duration::from_secs(30);
        while std::fs::read_link(&path).unwrap() == own {
            assert!(Instant::now() < deadline, "unshare makes no namespace");
            std::thread::yield_now();
        }
        let namespace = Self { file: File::open(&path).unwrap(), keeper };
        namespace.run("ip link set lo up");
        namespace
    }

    pub(crate) fn path(&self) -> String {
        format!("/proc/{}/ns/net", self.keeper.id())
    }

    pub(crate) fn pid(&self) -> u32 {
        self.keeper.id()
    }

    /// As [`run`], inside.
    pub(crate) fn run(&self, line: &str) -> String {
        run(&format!("nsenter --net={} {line}", self.path()))
    }

    /// Does something inside.
    pub(crate) fn inside<T>(&self, work: impl FnOnce() -> T) -> T {
        in_network_namespace(self.file.as_fd(), work).unwrap()
    }
}

impl Drop for Namespace {
    fn drop(&mut self) {
        let _ = self.keeper.kill();
        let _ = self.keeper.wait();
    }
}

//! A network of a test's own.

use std::fs::{self, File};
use std::os::fd::{AsFd, BorrowedFd};
use std::process::{Child, Command, Stdio};
use std::{env, thread};

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
    // libtest runs a test on a thread of its name.
    let thread = thread::current();
    let name = thread.name().filter(|name| name.contains("::")).expect("a test's thread has its name");
    let mut inside = Command::new("unshare");
    inside.arg("--net").arg(env::current_exe().unwrap()).args(["--exact", name, "--nocapture"]);
    let status = inside.env(INSIDE, "1").status().unwrap();
    assert!(status.success(), "{name}: {status}");
}

/// Another network namespace, which goes with this.
pub(crate) struct Namespace {
    holder: Child,
    file: File,
}

impl Namespace {
    pub(crate) fn new() -> Self {
        let mut holder = Command::new("unshare");
        let holder = holder.args(["--net", "cat"]).stdin(Stdio::piped()).spawn().unwrap();
        let path = format!("/proc/{}/ns/net", holder.id());
        let own = fs::read_link("/proc/self/ns/net").unwrap();
        while fs::read_link(&path).unwrap() == own {
            thread::yield_now();
        }
        let file = File::open(path).unwrap();
        Self { holder, file }
    }
}

impl AsFd for Namespace {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.file.as_fd()
    }
}

impl Drop for Namespace {
    fn drop(&mut self) {
        drop(self.holder.stdin.take());
        let _ = self.holder.wait();
    }
}

//! Networks of a test's own, and no more: where a whole [`crate::machine`] is not needed.

use std::fs::{self, File};
use std::os::fd::{AsFd, BorrowedFd};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::{env, thread};

use coracle_linux::in_network_namespace;

use crate::is_root;
use crate::processes::Pid;
use crate::wait::{SOON, wait_until};

/// Set in the process that runs inside.
const INSIDE: &str = "CORACLE_TEST_INSIDE";

/// A network namespace that nobody else has, kept by a process, and gone with this.
pub struct Namespace {
    keeper: Child,
    file: File,
}

/// Runs a test in a process of its own, whose network namespace nobody else has: the test calls this with all it does.
/// Needs root, and says so where that is missing. `more` are further flags of unshare(1).
///
/// # Panics
/// When the test fails inside.
pub fn in_own_network_with(more: &[&str], work: impl FnOnce()) {
    if !is_root() {
        return;
    }
    if env::var_os(INSIDE).is_some() {
        return work();
    }
    // libtest runs a test on a thread of its name.
    let thread = thread::current();
    let name = thread.name().filter(|name| name.contains("::")).expect("a test's thread has its name");
    let mut inside = Command::new("unshare");
    inside.arg("--net").args(more).arg(env::current_exe().expect("a test knows its own path"));
    let status = inside.args(["--exact", name, "--nocapture"]).env(INSIDE, "1").status();
    let status = status.expect("util-linux's unshare is installed");
    assert!(status.success(), "{name}: {status}");
}

/// As [`in_own_network_with`], and nothing else of its own.
///
/// # Panics
/// When the test fails inside.
pub fn in_own_network(work: impl FnOnce()) {
    in_own_network_with(&[], work);
}

impl Namespace {
    /// Makes one, with its loopback down.
    ///
    /// # Panics
    /// Where there is no unshare(1), or it makes none.
    pub fn new() -> Self {
        let mut keeper = Command::new("unshare");
        // It ends when nobody holds its standard input any more, also where a test is killed.
        let keeper = keeper.args(["--net", "cat"]).stdin(Stdio::piped()).stdout(Stdio::null()).spawn();
        let keeper = keeper.expect("util-linux's unshare is installed");
        let path = path_of(&keeper);
        let namespace = || fs::read_link(&path).expect("the process lives");
        let own = fs::read_link("/proc/self/ns/net").expect("every process is in one");
        wait_until("a network namespace", SOON, || namespace() != own);
        let file = File::open(&path).expect("the process lives");
        Self { keeper, file }
    }

    /// Its path, as long as this lives.
    pub fn path(&self) -> PathBuf {
        path_of(&self.keeper)
    }

    /// The process in it.
    pub fn pid(&self) -> Pid {
        self.keeper.id().cast_signed()
    }

    /// Does something inside.
    ///
    /// # Panics
    /// Where it cannot be entered.
    pub fn inside<T>(&self, work: impl FnOnce() -> T) -> T {
        in_network_namespace(self.as_fd(), work).expect("root may enter it")
    }
}

impl Default for Namespace {
    fn default() -> Self {
        Self::new()
    }
}

impl AsFd for Namespace {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.file.as_fd()
    }
}

impl Drop for Namespace {
    fn drop(&mut self) {
        drop(self.keeper.stdin.take());
        let _ = self.keeper.wait();
    }
}

fn path_of(keeper: &Child) -> PathBuf {
    format!("/proc/{}/ns/net", keeper.id()).into()
}

//! A machine for a node to run on, inside the machine the tests run on.

use std::collections::BTreeSet;
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};

use tempfile::TempDir;

use crate::cgroups::CgroupTree;
use crate::network;
use crate::processes::{self, Pid};
use crate::wait::{SOON, wait_for};

/// Namespaces, directories and cgroups of its own. Everything in it ends with it, and it ends with the test, even
/// with one that is killed: its processes live in a pid namespace whose init dies with the test's thread.
pub struct Machine {
    /// `unshare`, the parent of the namespace's init.
    keeper: Child,
    init: Pid,
    directory: TempDir,
    cgroups: CgroupTree,
}

impl Machine {
    /// A fresh one: network with only loopback, which is up, private mounts, no processes but an init that reaps.
    pub fn new() -> Self {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let count = COUNT.fetch_add(1, Ordering::Relaxed);
        let cgroups = CgroupTree::new(&format!("/coracle-test-{}-{count}", std::process::id()));
        // A short path: it is the beginning of unix sockets' names, which have 107 bytes.
        let directory = tempfile::Builder::new().prefix("ct-").tempdir().expect("a temporary directory");
        let complaints = directory.path().join("unshare.log");
        // The shell is init: it waits for its one child and reaps whatever else ends.
        let mut keeper = Command::new("setpriv")
            .args(["--pdeathsig", "KILL", "unshare", "--net", "--ipc", "--uts", "--mount-proc"])
            .args(["--propagation", "private", "--pid", "--fork", "--kill-child", "--"])
            .args(["sh", "-c", "hostname node; sleep infinity & wait"])
            .stdin(Stdio::null())
            .stderr(File::create(&complaints).expect("a temporary directory is writable"))
            .spawn()
            .expect("util-linux's setpriv and unshare are installed");
        let parent = keeper.id().cast_signed();
        let init = wait_for("the machine's init", SOON, || {
            if let Ok(Some(status)) = keeper.try_wait() {
                panic!("no namespaces: {status}: {}", fs::read_to_string(&complaints).unwrap_or_default());
            }
            let init =
                processes::descendants(parent).into_iter().find(|pid| processes::name(*pid) == "sh")?;
            // Its child is there: the namespaces are, too.
            (!processes::descendants(init).is_empty()).then_some(init)
        });
        network::bring_loopback_up(init).expect("the machine's loopback comes up");
        Self { keeper, init, directory, cgroups }
    }

    /// A path in the machine's own directory.
    pub fn path(&self, name: impl AsRef<Path>) -> PathBuf {
        self.directory.path().join(name)
    }

    /// The machine's cgroups.
    pub fn cgroups(&self) -> &CgroupTree {
        &self.cgroups
    }

    /// The pid of its init, as the tests see it: its namespaces are the machine's.
    pub fn init(&self) -> Pid {
        self.init
    }

    /// A command that runs on the machine. It dies with the test's thread.
    pub fn command(&self, program: impl AsRef<std::ffi::OsStr>) -> Command {
        let mut command = Command::new("nsenter");
        command.arg("--target").arg(self.init.to_string());
        command.args(["--net", "--ipc", "--uts", "--mount", "--pid", "--", "setpriv", "--pdeathsig", "KILL"]);
        command.arg(program);
        command.stdin(Stdio::null());
        command
    }

    /// Every process on it, in whatever pid namespace below its own, but its init and init's own child.
    pub fn processes(&self) -> BTreeSet<Pid> {
        let on_it = processes::in_namespace("pid", processes::namespace(self.init, "pid"));
        let mut all: BTreeSet<Pid> = on_it.iter().flat_map(|pid| processes::descendants(*pid)).collect();
        all.extend(on_it);
        all.retain(|pid| *pid != self.init && processes::command_line(*pid) != "sleep infinity");
        all
    }
}

impl Default for Machine {
    fn default() -> Self {
        Self::new()
    }
}

impl Drop for Machine {
    fn drop(&mut self) {
        processes::kill(self.init);
        let _ = self.keeper.wait();
        self.cgroups.remove();
    }
}

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
use crate::wait::{SOON, wait_for, wait_until};

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

    /// Gives it an /etc of its own, a copy of the host's: what is written there is not the host's.
    pub fn take_etc(&self) {
        let etc = self.path("etc");
        fs::create_dir(&etc).expect("the machine's directory is writable");
        let script = format!("cp -a /etc/. {0} && mount --bind {0} /etc", etc.display());
        let made = self.command("sh").args(["-c", &script]).status().expect("nsenter is installed");
        assert!(made.success(), "the machine has no /etc of its own");
    }

    /// Ends every process on it, and leaves none of its mounts and cgroups; the boot id is another from then on.
    pub fn reboot(&self) {
        self.processes().into_iter().for_each(processes::kill);
        wait_until("all processes to end", SOON, || self.processes().is_empty());
        self.cgroups.remove();
        let own = |line: &String| line.split(' ').nth(4).map(PathBuf::from);
        let mounts = processes::mounts(self.init);
        let boot_id = Path::new("/proc/sys/kernel/random/boot_id");
        let goes = |mount: &PathBuf| {
            mount == boot_id || ["root", "run"].iter().any(|name| mount.starts_with(self.path(name)))
        };
        for mount in mounts.iter().rev().filter_map(own).filter(goes) {
            let done = self.command("umount").arg("-l").arg(&mount).status().expect("nsenter is installed");
            assert!(done.success(), "{} cannot be unmounted", mount.display());
        }
        let next = self.path("boot_id");
        fs::copy("/proc/sys/kernel/random/uuid", &next).expect("the machine's directory is writable");
        let mut mount = self.command("mount");
        let done =
            mount.arg("--bind").args([next.as_path(), boot_id]).status().expect("nsenter is installed");
        assert!(done.success(), "the machine cannot be booted again");
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

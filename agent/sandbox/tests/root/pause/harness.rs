//! A pod's directory with a pause in it, and shells as its children.

use std::fs::{self, File};
use std::io::{ErrorKind, Read, Seek, Write};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::sync::LazyLock;
use std::time::{Duration, Instant};

use coracle_model::ContainerId;
use coracle_sandbox::pause::{
    Event, Exited, Launch, Launched, Ledger, PauseClient, PauseError, Spawn, Spawned, launch, read_ledger,
};
use coracle_sandbox::programs::Programs;
use rustix::fs::{MemfdFlags, memfd_create};
use tempfile::TempDir;
use tokio::sync::mpsc::UnboundedReceiver;

/// Far more than anything here takes.
pub(crate) const DEADLINE: Duration = Duration::from_secs(20);

pub(crate) struct Pod {
    pub(crate) directory: TempDir,
    pub(crate) handle: &'static File,
    pub(crate) pause: Launched,
}

pub(crate) struct Agent {
    pub(crate) client: PauseClient,
    pub(crate) events: UnboundedReceiver<Event>,
}

/// What a shell is to have otherwise than most.
#[derive(Default)]
pub(crate) struct Wishes<'a> {
    /// A pid and a mount namespace of its own.
    pub(crate) namespaces: bool,
    pub(crate) program: Option<BorrowedFd<'a>>,
    pub(crate) stdout: Option<BorrowedFd<'a>>,
    pub(crate) cgroup: Option<BorrowedFd<'a>>,
    pub(crate) held: &'a [BorrowedFd<'a>],
}

/// A shell that runs a script, with the other ends of its output and its control socket.
pub(crate) struct Shell {
    pub(crate) spawned: Spawned,
    pub(crate) output: File,
    /// The shell reads from its descriptor 3 what is written here.
    pub(crate) control: File,
}

// === impl Pod ===

impl Pod {
    /// A pause that holds nothing.
    pub(crate) async fn plain() -> Self {
        Self::with(|_| {}).await
    }

    pub(crate) async fn with<'a>(change: impl FnOnce(&mut Launch<'a>)) -> Self {
        let directory = tempfile::tempdir().unwrap();
        Self::within(directory, change).await.unwrap()
    }

    pub(crate) async fn within<'a>(
        directory: TempDir,
        change: impl FnOnce(&mut Launch<'a>),
    ) -> Result<Self, PauseError> {
        static PROGRAMS: LazyLock<Programs> = LazyLock::new(|| Programs::load().unwrap());
        assert!(rustix::process::geteuid().is_root(), "these tests need root");
        // As long as any lifetime `change` may have.
        let handle: &'static File = Box::leak(Box::new(File::open(directory.path()).unwrap()));
        let mut how = Launch {
            program: PROGRAMS.pause(),
            directory: handle.as_fd(),
            cgroups: &[],
            network: false,
            ipc: false,
            host_name: None,
            shared_pid: false,
            timeout: DEADLINE,
        };
        change(&mut how);
        let pause = launch(&how).await?;
        let pod = Self { directory, handle, pause };
        // It is closed after it was written to, and so after launch returned.
        let status_pipe = pod.proc().join("fd/5");
        until("the status pipe is closed", || fs::symlink_metadata(&status_pipe).is_err()).await;
        Ok(pod)
    }

    pub(crate) async fn connect(&self) -> Agent {
        let (client, events) = PauseClient::connect(self.handle.as_fd()).await.unwrap();
        assert_eq!(client.pid(), self.pause.pid);
        Agent { client, events }
    }

    pub(crate) fn ledger(&self) -> Ledger {
        read_ledger(self.handle.as_fd()).unwrap()
    }

    pub(crate) fn proc(&self) -> PathBuf {
        proc(self.pause.pid)
    }

    /// What pause has open, by number. What it closes meanwhile is left out.
    pub(crate) fn descriptors(&self) -> Vec<(String, PathBuf)> {
        let mut open: Vec<_> = fs::read_dir(self.proc().join("fd"))
            .unwrap()
            .map(|entry| entry.unwrap())
            .filter_map(|entry| match fs::read_link(entry.path()) {
                Ok(file) => Some((entry.file_name().into_string().unwrap(), file)),
                Err(error) if error.kind() == ErrorKind::NotFound => None,
                Err(error) => panic!("{}: {error}", entry.path().display()),
            })
            .collect();
        open.sort();
        open
    }

    pub(crate) fn alive(&self) -> bool {
        self.proc().join("exe").exists()
    }

    /// Children of pause, zombies included.
    pub(crate) fn children(&self) -> Vec<u32> {
        let pid = self.pause.pid.as_raw_nonzero();
        fs::read_to_string(format!("/proc/{pid}/task/{pid}/children"))
            .unwrap()
            .split_whitespace()
            .map(|child| child.parse().unwrap())
            .collect()
    }
}

// === impl Agent ===

impl Agent {
    pub(crate) async fn shell(&self, container: Option<ContainerId>, script: &str) -> Shell {
        self.shell_with(container, script, Wishes::default()).await
    }

    pub(crate) async fn shell_with(
        &self,
        container: Option<ContainerId>,
        script: &str,
        wishes: Wishes<'_>,
    ) -> Shell {
        let shell = File::open("/bin/sh").unwrap();
        let script = file_of(script.as_bytes());
        let (output, writer) = std::io::pipe().unwrap();
        let (control_of_child, control) = std::io::pipe().unwrap();
        let child = Spawn {
            container,
            new_pid: wishes.namespaces,
            new_mount: wishes.namespaces,
            program: wishes.program.unwrap_or(shell.as_fd()),
            stdio: [script.as_fd(), wishes.stdout.unwrap_or(writer.as_fd()), writer.as_fd()],
            control: control_of_child.as_fd(),
            cgroup: wishes.cgroup,
            held: wishes.held,
        };
        let spawned = self.client.spawn(&child).await.unwrap();
        let (output, control) = (OwnedFd::from(output).into(), OwnedFd::from(control).into());
        Shell { spawned, output, control }
    }

    /// The next event.
    pub(crate) async fn event(&mut self) -> Event {
        tokio::time::timeout(DEADLINE, self.events.recv())
            .await
            .expect("pause tells in time")
            .expect("the client lives")
    }

    pub(crate) async fn exited(&mut self) -> Exited {
        match self.event().await {
            Event::Exited(exited) => exited,
            other => panic!("{other:?} instead of an exit"),
        }
    }
}

// === impl Shell ===

impl Shell {
    /// All it writes until it ends.
    pub(crate) fn read(&mut self) -> String {
        let mut text = String::new();
        self.output.read_to_string(&mut text).unwrap();
        text
    }

    /// One line.
    pub(crate) fn line(&mut self) -> String {
        let mut line = Vec::new();
        let mut byte = [0];
        while self.output.read(&mut byte).unwrap() == 1 && byte != *b"\n" {
            line.push(byte[0]);
        }
        String::from_utf8(line).unwrap()
    }

    pub(crate) fn pid(&self) -> u32 {
        self.spawned.pid.as_raw_nonzero().get().try_into().unwrap()
    }
}

pub(crate) fn file_of(bytes: &[u8]) -> File {
    let mut file = File::from(memfd_create("test", MemfdFlags::CLOEXEC).unwrap());
    file.write_all(bytes).unwrap();
    file.rewind().unwrap();
    file
}

pub(crate) fn proc(pid: rustix::process::Pid) -> PathBuf {
    Path::new("/proc").join(pid.as_raw_nonzero().to_string())
}

/// Waits until the condition holds, and says what did not come about otherwise.
pub(crate) async fn until(what: &str, mut holds: impl FnMut() -> bool) {
    let deadline = Instant::now() + DEADLINE;
    while !holds() {
        assert!(Instant::now() < deadline, "not in time: {what}");
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
}

/// A field of `/proc/<pid>/status`.
pub(crate) fn status(pid: rustix::process::Pid, field: &str) -> String {
    let status = fs::read_to_string(proc(pid).join("status")).unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix(field)?.strip_prefix(':'));
    line.unwrap_or_else(|| panic!("no {field} in {status}")).trim().to_owned()
}

pub(crate) fn borrowed<'a>(files: &'a [&'a File]) -> Vec<BorrowedFd<'a>> {
    files.iter().map(|file| file.as_fd()).collect()
}

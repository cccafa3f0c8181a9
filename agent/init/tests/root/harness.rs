//! Runs the real init in the place of pause: new pid, net, ipc and uts namespaces, descriptor 3.

use std::fs;
use std::io::Read;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use coracle_init::hook::State;
use coracle_init::protocol::{
    Config, CreateConfig, ExecConfig, Failure, Namespace, PidNamespace, Report, Setup, receive_report,
    send_start,
};
use rustix::fs::CWD;
use rustix::mount::{OpenTreeFlags, open_tree};
use rustix::net::{AddressFamily, SocketFlags, SocketType, socketpair};
use rustix::process::{Pid, PidfdFlags, pidfd_open};
use serde_json::{Value, json};
use tempfile::TempDir;

/// A root file system of busybox, and room beside it.
pub(crate) struct Image {
    pub(crate) directory: TempDir,
}

impl Image {
    pub(crate) fn new() -> Self {
        let image = Self { directory: tempfile::tempdir().unwrap() };
        let bin = image.root().join("bin");
        fs::create_dir_all(&bin).unwrap();
        fs::copy(busybox(), bin.join("busybox")).unwrap();
        for applet in [
            "sh", "ls", "cat", "id", "pwd", "env", "readlink", "stat", "touch", "grep", "mkdir", "echo",
            "ps", "tty", "stty", "dd", "mount", "chmod", "sleep", "true", "test", "ln", "umount",
        ] {
            symlink("busybox", bin.join(applet)).unwrap();
        }
        image
    }

    pub(crate) fn root(&self) -> PathBuf {
        self.directory.path().join("root")
    }

    /// A path beside the root: outside, to the container.
    pub(crate) fn outside(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }
}

fn busybox() -> &'static Path {
    let found = ["/bin/busybox", "/usr/bin/busybox"].into_iter().map(Path::new).find(|path| path.exists());
    found.expect("busybox-static must be installed")
}

/// A specification as the agent makes them, running a shell script.
pub(crate) fn spec(script: &str) -> Value {
    json!({
        "ociVersion": "1.2.0",
        "root": { "path": "rootfs" },
        "process": {
            "user": { "uid": 0, "gid": 0, "additionalGids": [0, 10] },
            "args": ["/bin/sh", "-c", script],
            "env": ["PATH=/bin", "GREETING=hello world"],
            "cwd": "/",
            "noNewPrivileges": true,
            "capabilities": {
                "bounding": ["CAP_CHOWN", "CAP_KILL"],
                "effective": ["CAP_CHOWN", "CAP_KILL"],
                "permitted": ["CAP_CHOWN", "CAP_KILL"],
                "inheritable": ["CAP_CHOWN", "CAP_KILL"],
            },
        },
        "mounts": [
            { "destination": "/proc", "type": "proc", "source": "proc",
              "options": ["nosuid", "noexec", "nodev"] },
            { "destination": "/dev", "type": "tmpfs", "source": "tmpfs",
              "options": ["nosuid", "strictatime", "mode=755", "size=65536k"] },
            { "destination": "/dev/pts", "type": "devpts", "source": "devpts",
              "options": ["nosuid", "noexec", "newinstance", "ptmxmode=0666", "mode=0620", "gid=5"] },
            { "destination": "/dev/shm", "type": "tmpfs", "source": "shm",
              "options": ["nosuid", "noexec", "nodev", "mode=1777", "size=65536k"] },
            { "destination": "/dev/mqueue", "type": "mqueue", "source": "mqueue",
              "options": ["nosuid", "noexec", "nodev"] },
            { "destination": "/sys", "type": "sysfs", "source": "sysfs",
              "options": ["nosuid", "noexec", "nodev", "ro"] },
        ],
        "linux": {
            "maskedPaths": ["/proc/kcore", "/proc/keys", "/proc/timer_list", "/proc/acpi", "/proc/scsi",
                            "/sys/firmware", "/proc/not-there"],
            "readonlyPaths": ["/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger"],
        },
    })
}

/// A container to be made.
pub(crate) struct Recipe {
    pub(crate) spec: Value,
    pub(crate) rootfs: Option<OwnedFd>,
    /// Detached mounts for the last of the specification's mounts.
    pub(crate) volumes: Vec<(String, OwnedFd, Vec<&'static str>)>,
    pub(crate) seccomp: Option<OwnedFd>,
    /// A pidfd of a member, and its procfs.
    pub(crate) pid_namespace: Option<(OwnedFd, OwnedFd)>,
    pub(crate) cgroup_procs: Vec<OwnedFd>,
    /// Init runs without CAP_MKNOD.
    pub(crate) without_mknod: bool,
    /// What hooks get.
    pub(crate) state: Option<State>,
}

impl Recipe {
    pub(crate) fn new(image: &Image, script: &str) -> Self {
        let rootfs = Some(detached(&image.root()));
        Self {
            spec: spec(script),
            rootfs,
            volumes: Vec::new(),
            seccomp: None,
            pid_namespace: None,
            cgroup_procs: Vec::new(),
            without_mknod: false,
            state: None,
        }
    }

    pub(crate) fn volume(mut self, source: &Path, at: &str, options: &[&'static str]) -> Self {
        self.volumes.push((at.to_owned(), detached(source), options.to_vec()));
        self
    }

    /// Starts init and reads up to Created or Failed.
    pub(crate) fn create(mut self) -> Result<Container, Failure> {
        let mut setup = Setup::new();
        let rootfs = self.rootfs.as_ref().map(|mount| setup.pass(mount.as_fd()));
        let specified = self.spec["mounts"].as_array_mut().unwrap();
        let mut mounts = vec![None; specified.len()];
        for (at, mount, options) in &self.volumes {
            specified.push(json!({ "destination": at, "type": "bind", "options": options }));
            mounts.push(Some(setup.pass(mount.as_fd())));
        }
        let seccomp = self
            .seccomp
            .as_ref()
            .map(|file| coracle_init::protocol::Seccomp { program: setup.pass(file.as_fd()), flags: 0 });
        let pid_namespace = self.pid_namespace.as_ref().map(|(member, proc)| PidNamespace {
            member: setup.pass(member.as_fd()),
            proc: setup.pass(proc.as_fd()),
        });
        let own_pid = pid_namespace.is_none();
        let config = Config::Create(Box::new(CreateConfig {
            spec: serde_json::from_value(self.spec).unwrap(),
            rootfs,
            mounts,
            cgroup_procs: self.cgroup_procs.iter().map(|file| setup.pass(file.as_fd())).collect(),
            new_cgroup_namespace: true,
            seccomp,
            pid_namespace,
            state: self.state,
        }));
        let mut command = vec!["unshare", "--net", "--ipc", "--uts"];
        if own_pid {
            command.push("--pid");
        }
        if self.without_mknod {
            command.splice(0..0, ["setpriv", "--bounding-set=-mknod"]);
        }
        Container::spawn(&command, setup, &config)
    }

    /// What the script prints, from its start to its end.
    pub(crate) fn run(self) -> Result<String, Failure> {
        let mut container = self.create()?;
        container.start()?;
        Ok(container.finish().0)
    }
}

/// A detached copy of a directory's or file's mount.
pub(crate) fn detached(path: &Path) -> OwnedFd {
    let flags = OpenTreeFlags::OPEN_TREE_CLONE | OpenTreeFlags::OPEN_TREE_CLOEXEC;
    open_tree(CWD, path, flags).unwrap()
}

/// A container whose program waits for Start, or runs.
pub(crate) struct Container {
    control: OwnedFd,
    parent: Child,
    pub(crate) console: Option<OwnedFd>,
    pub(crate) warnings: Vec<String>,
    /// The sibling's, where there is one.
    pub(crate) sibling: Option<i32>,
}

impl Container {
    fn spawn(command: &[&str], setup: Setup<'_>, config: &Config) -> Result<Self, Failure> {
        let (control, init) =
            socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, SocketFlags::CLOEXEC, None).unwrap();
        // The shell is what pause is to a container: its parent, outside. It must not keep the socket.
        let script = r#""$0" 3<&0 0</dev/null & exec 0</dev/null; wait $!"#;
        let parent = Command::new(command[0])
            .args(&command[1..])
            .args(["bash", "--norc", "-c", script, env!("CARGO_BIN_EXE_coracle-init")])
            .env_clear()
            .env("PATH", "/usr/bin:/bin")
            .stdin(Stdio::from(init))
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let mut container = Self { control, parent, console: None, warnings: Vec::new(), sibling: None };
        setup.send(&container.control, config).unwrap();
        loop {
            match receive_report(&container.control).unwrap() {
                Some((Report::Console, master)) => container.console = master,
                Some((Report::Created { pid, warnings }, _)) => {
                    container.warnings = warnings;
                    container.sibling = pid;
                    return Ok(container);
                }
                Some((Report::Failed(failure), _)) => {
                    let (output, code) = container.finish();
                    assert_eq!((output.as_str(), code), ("", Some(128)));
                    return Err(failure);
                }
                Some((Report::Environment | Report::Said(_), _)) => panic!("there are no hooks"),
                None => panic!("init ended without a word: {:?}", container.finish()),
            }
        }
    }

    /// Lets the program be executed.
    pub(crate) fn start(&mut self) -> Result<(), Failure> {
        send_start(&self.control).unwrap();
        match receive_report(&self.control).unwrap() {
            None => Ok(()),
            Some((Report::Failed(failure), _)) => Err(failure),
            Some(other) => panic!("unexpected report {other:?}"),
        }
    }

    /// Closes the control socket, waits for the end and returns output and exit code.
    pub(crate) fn finish(self) -> (String, Option<i32>) {
        drop(self.control);
        let mut parent = self.parent;
        let mut output = String::new();
        parent.stdout.take().unwrap().read_to_string(&mut output).unwrap();
        let mut errors = String::new();
        parent.stderr.take().unwrap().read_to_string(&mut errors).unwrap();
        output.push_str(&errors);
        (output, parent.wait().unwrap().code())
    }

    /// The first process, as the host sees it.
    pub(crate) fn pid(&self) -> Pid {
        let parent = self.parent.id();
        let children = fs::read_to_string(format!("/proc/{parent}/task/{parent}/children")).unwrap();
        Pid::from_raw(children.split_whitespace().next().unwrap().parse().unwrap()).unwrap()
    }

    /// Adds a process.
    pub(crate) fn exec(&self, process: Value) -> Result<Self, Failure> {
        Self::join(&self.pidfd(), process, None)
    }

    pub(crate) fn pidfd(&self) -> OwnedFd {
        pidfd_open(self.pid(), PidfdFlags::empty()).unwrap()
    }

    /// Adds a process to the container of a process.
    pub(crate) fn join(pidfd: &OwnedFd, process: Value, seccomp: Option<OwnedFd>) -> Result<Self, Failure> {
        let mut setup = Setup::new();
        let container = setup.pass(pidfd.as_fd());
        let seccomp = seccomp
            .as_ref()
            .map(|file| coracle_init::protocol::Seccomp { program: setup.pass(file.as_fd()), flags: 0 });
        let config = Config::Exec(Box::new(ExecConfig {
            process: serde_json::from_value(process).unwrap(),
            container,
            namespaces: vec![
                Namespace::Mount,
                Namespace::Pid,
                Namespace::Cgroup,
                Namespace::Network,
                Namespace::Ipc,
                Namespace::Uts,
            ],
            cgroup_procs: vec![],
            seccomp,
        }));
        Self::spawn(&["unshare"], setup, &config)
    }
}

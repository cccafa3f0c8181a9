//! Containers of a pod that share one pid namespace.

use std::fs;
use std::os::fd::{AsFd, OwnedFd};
use std::process::{Child, Command, Stdio};

use coracle_init::protocol::{Report, receive_report, send_report};
use rustix::mount::{FsMountFlags, FsOpenFlags, MountAttrFlags, fsconfig_create, fsmount, fsopen};
use rustix::net::{AddressFamily, SocketFlags, SocketType, socketpair};
use rustix::process::{Pid, PidfdFlags, pidfd_open};

use crate::harness::{Image, Recipe};

const HELPER: &str = "CORACLE_TEST_PID_NAMESPACE";

/// The first process of a pid namespace, as pause's copy is, and a mount of its procfs for each container: Linux
/// before 6.15 cannot copy one that is attached nowhere.
struct Reaper {
    unshare: Child,
    control: OwnedFd,
    procs: Vec<OwnedFd>,
}

const CONTAINERS: usize = 2;

impl Reaper {
    fn new() -> Self {
        let (control, theirs) =
            socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, SocketFlags::CLOEXEC, None).unwrap();
        let unshare = Command::new("unshare")
            .args(["--pid", "--fork"])
            .arg(std::env::current_exe().unwrap())
            .args(["--exact", "shared_pid::reaper"])
            .env(HELPER, "1")
            .stdin(Stdio::from(theirs))
            .stdout(Stdio::null())
            .spawn()
            .unwrap();
        let procs = (0..CONTAINERS).map(|_| receive_report(&control).unwrap().unwrap().1.unwrap()).collect();
        Self { unshare, control, procs }
    }

    fn pidfd(&self) -> OwnedFd {
        let parent = self.unshare.id();
        let children = fs::read_to_string(format!("/proc/{parent}/task/{parent}/children")).unwrap();
        let pid = Pid::from_raw(children.trim().parse().unwrap()).unwrap();
        pidfd_open(pid, PidfdFlags::empty()).unwrap()
    }

    fn end(mut self) {
        drop(self.control);
        self.unshare.wait().unwrap();
    }
}

/// Not a test of its own: what [`Reaper::new`] starts.
#[test]
fn reaper() {
    if std::env::var_os(HELPER).is_none() {
        return;
    }
    let control = rustix::stdio::stdin();
    for _ in 0..CONTAINERS {
        let context = fsopen("proc", FsOpenFlags::FSOPEN_CLOEXEC).unwrap();
        fsconfig_create(&context).unwrap();
        let proc = fsmount(&context, FsMountFlags::FSMOUNT_CLOEXEC, MountAttrFlags::empty()).unwrap();
        send_report(control, &Report::Console, Some(proc.as_fd())).unwrap();
    }
    // Until the other end closes.
    receive_report(control).unwrap();
}

#[test]
fn containers_see_each_other_and_each_is_born_without_privilege() {
    let image = Image::new();
    let mut reaper = Reaper::new();
    let mut share = |script: &str| {
        let mut recipe = Recipe::new(&image, script);
        recipe.pid_namespace = Some((reaper.pidfd(), reaper.procs.pop().unwrap()));
        recipe
    };
    let mut first = share("exec sleep 1000").create().unwrap();
    let visible = first.sibling.unwrap();
    let status = fs::read_to_string(format!("/proc/{visible}/status")).unwrap();
    for line in ["CapPrm:\t0000000000000021", "CapBnd:\t0000000000000021", "NoNewPrivs:\t1"] {
        assert!(status.contains(line), "{status}");
    }
    first.start().unwrap();
    let inside = status.lines().find_map(|line| line.strip_prefix("NSpid:")).unwrap();
    let inside = inside.split_whitespace().next_back().unwrap();

    let mut second =
        share(&format!("cat /proc/{inside}/comm; echo $$; readlink /proc/self")).create().unwrap();
    second.start().unwrap();
    let (output, _) = second.finish();
    let lines: Vec<&str> = output.lines().collect();
    assert_eq!(lines[0], "sleep", "{output}");
    assert_ne!(lines[1], "1");
    assert_eq!(lines.len(), 3, "{output}");

    rustix::process::kill_process(Pid::from_raw(visible).unwrap(), rustix::process::Signal::KILL).unwrap();
    first.finish();
    reaper.end();
}

#[test]
fn a_procfs_that_is_none_is_refused() {
    let image = Image::new();
    let reaper = Reaper::new();
    let mut recipe = Recipe::new(&image, "true");
    recipe.pid_namespace = Some((reaper.pidfd(), crate::harness::detached(&image.root())));
    let failure = recipe.run().unwrap_err();
    assert_eq!((failure.step.as_str(), failure.path.as_deref()), ("mount", Some("/proc")));
    reaper.end();
}

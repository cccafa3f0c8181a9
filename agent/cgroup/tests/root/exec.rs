//! Programs executed in a container, and what they leave behind.

use std::fs;
use std::os::fd::{AsFd, AsRawFd};
use std::path::{Path, PathBuf};
use std::process::Child;

use coracle_cgroup::{Attachment, Cgroup, DevicePolicy, Limits, PodCgroup};
use rustix::process::{Pid, PidfdFlags, getpid, pidfd_open};

use super::support::{DEADLINE, Subtree, container, hosts, spawn, wait_for};

/// Leaves its parent, its process group and its session, again and again.
const DETACHED: &str = "trap '' TERM HUP INT; f() { while :; do setsid sleep 1000 <&- >&- 2>&- & sleep 0.01; done; }; \
                        setsid sh -c 'sleep 1000 & sleep 1000' & f & exit 0";

#[test]
fn killing_an_executed_program_takes_what_has_left_it_and_not_the_container() {
    for host in hosts() {
        let subtree = Subtree::new(&host);
        let pod = subtree.pod(&Limits { pids: Some(500), ..Limits::default() });
        let container = container(&pod, &Limits::default(), &DevicePolicy::All);
        let mut main = spawn(&pod, &container, "exec sleep 1000");
        let other = container.make_exec("other").unwrap();
        let mut beside = spawn(&pod, &other, "exec sleep 1000");
        let exec = container.make_exec("probe").unwrap();
        let mut program = spawn(&pod, &exec, DETACHED);
        program.wait().unwrap();
        wait_for("some that have left", || exec.pids().unwrap().len() > 8);
        let all = container.pids().unwrap();
        assert!(all.contains(&main.id()) && exec.pids().unwrap().iter().all(|pid| all.contains(pid)));

        exec.kill().unwrap();
        assert!(exec.wait_empty_for(DEADLINE).unwrap());
        exec.remove().unwrap();
        assert!(!exec.exists());
        assert_eq!(container.pids().unwrap().len(), 2, "the container and the other program live");
        assert!(main.try_wait().unwrap().is_none() && beside.try_wait().unwrap().is_none());

        // The end of the container is the end of what is executed in it.
        container.kill().unwrap();
        assert!(container.wait_empty_for(DEADLINE).unwrap());
        container.remove().unwrap();
        assert!(!other.exists());
        main.wait().unwrap();
        beside.wait().unwrap();
    }
}

#[test]
fn what_an_executed_program_leaves_running_can_be_handed_over() {
    for host in hosts() {
        let subtree = Subtree::new(&host);
        let pod = subtree.pod(&Limits::default());
        let container = container(&pod, &Limits::default(), &DevicePolicy::All);
        let exec = container.make_exec("hook").unwrap();
        let mut program = spawn(&pod, &exec, "sleep 1000 & exec sleep 1000");
        wait_for("both", || exec.pids().unwrap().len() == 2);
        assert!(exec.hand_over().unwrap());
        exec.remove().unwrap();
        assert!(!exec.exists());
        assert_eq!(container.pids().unwrap().len(), 2);
        container.kill().unwrap();
        program.wait().unwrap();
    }
}

#[test]
fn a_later_agent_finds_the_programs_an_earlier_one_executed() {
    for host in hosts() {
        let subtree = Subtree::new(&host);
        let pod = subtree.pod(&Limits::default());
        let container = container(&pod, &Limits::default(), &DevicePolicy::All);
        assert!(container.execs().unwrap().is_empty());
        let (first, second) = (container.make_exec("1").unwrap(), container.make_exec("2").unwrap());
        let mut found: Vec<_> = container.execs().unwrap().iter().map(|exec| exec.path()).collect();
        found.sort();
        assert_eq!(found, [first.path(), second.path()]);
        first.remove().unwrap();
        assert_eq!(container.execs().unwrap().len(), 1);
        container.remove().unwrap();
        assert!(container.execs().unwrap().is_empty(), "what is not there has none");
        assert!(container.make_exec("3").is_err(), "and takes none");
    }
}

/// The directory of a cgroup in the v2 tree, where controllers are handed down to it: not on a hybrid host.
fn with_controllers(cgroup: &Cgroup) -> Option<PathBuf> {
    let mounts = fs::read_to_string("/proc/self/mountinfo").unwrap();
    let mount = mounts.lines().rfind(|line| line.contains(" - cgroup2 "))?.split(' ').nth(4)?;
    let dir = Path::new(mount).join(cgroup.path().strip_prefix("/").unwrap());
    let controllers = fs::read_to_string(dir.join("cgroup.controllers")).unwrap_or_default();
    let usable = controllers.split_whitespace().any(|name| name == "memory");
    if !usable {
        eprintln!("skipped: needs the memory controller on cgroup v2");
    }
    usable.then_some(dir)
}

/// A program that is moved to a cgroup below its container's, which then hands a controller down: as systemd, a container
/// engine or a kubelet do it that is run in a container.
fn divided(pod: &PodCgroup, container: &Cgroup, dir: &Path) -> Child {
    let main = spawn(pod, container, "exec sleep 1000");
    fs::create_dir(dir.join("init")).unwrap();
    fs::write(dir.join("init/cgroup.procs"), main.id().to_string()).unwrap();
    fs::write(dir.join("cgroup.subtree_control"), "+memory").unwrap();
    main
}

#[test]
fn a_container_that_has_divided_its_cgroup_can_be_joined() {
    for host in hosts() {
        let subtree = Subtree::new(&host);
        let pod = subtree.pod(&Limits::default());
        let container = container(&pod, &Limits::default(), &DevicePolicy::All);
        let Some(dir) = with_controllers(&container) else { continue };
        let joined = |attachment: &Attachment| {
            let fd = attachment.into.as_ref().unwrap().as_raw_fd();
            fs::read_link(format!("/proc/self/fd/{fd}")).unwrap()
        };
        let mut before = spawn(&pod, &container, "exec sleep 1000");
        let first = pidfd_open(Pid::from_child(&before), PidfdFlags::empty()).unwrap();
        assert_eq!(
            joined(&container.attachment_beside(first.as_fd()).unwrap()),
            dir,
            "it is not divided yet"
        );
        before.kill().unwrap();
        before.wait().unwrap();

        let mut main = divided(&pod, &container, &dir);
        let first = pidfd_open(Pid::from_child(&main), PidfdFlags::empty()).unwrap();
        let mut program = spawn(&pod, &pod.pause(), "exec sleep 1000");
        let refused = fs::write(dir.join("cgroup.procs"), program.id().to_string()).unwrap_err();
        assert_eq!(refused.raw_os_error(), Some(16), "EBUSY: {refused}");
        let place = joined(&container.attachment_beside(first.as_fd()).unwrap());
        assert_eq!(place, dir.join("init"));
        fs::write(place.join("cgroup.procs"), program.id().to_string()).unwrap();

        // One that is not in the container's cgroup says nothing of where to go.
        let stranger = pidfd_open(getpid(), PidfdFlags::empty()).unwrap();
        let place = joined(&container.attachment_beside(stranger.as_fd()).unwrap());
        assert_eq!(place, dir.join("coracle-exec"));
        fs::write(place.join("cgroup.procs"), program.id().to_string()).unwrap();
        assert!(container.execs().unwrap().is_empty(), "what is there is not ended by the next agent");

        container.kill().unwrap();
        main.wait().unwrap();
        program.wait().unwrap();
    }
}

#[test]
fn what_is_left_running_in_a_container_that_has_divided_its_cgroup_can_be_handed_over() {
    for host in hosts() {
        let subtree = Subtree::new(&host);
        let pod = subtree.pod(&Limits::default());
        let container = container(&pod, &Limits::default(), &DevicePolicy::All);
        let Some(dir) = with_controllers(&container) else { continue };
        let mut main = divided(&pod, &container, &dir);
        let exec = container.make_exec("hook").unwrap();
        let mut program = spawn(&pod, &exec, "sleep 1000 & exec sleep 1000");
        wait_for("both", || exec.pids().unwrap().len() == 2);
        assert!(exec.hand_over().unwrap());
        exec.remove().unwrap();
        assert_eq!(container.pids().unwrap().len(), 3);
        container.kill().unwrap();
        main.wait().unwrap();
        program.wait().unwrap();
    }
}

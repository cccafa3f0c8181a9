//! Programs executed in a container, and what they leave behind.

use coracle_cgroup::{DevicePolicy, Limits};

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

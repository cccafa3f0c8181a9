//! Killing, and waiting for the end.

use std::time::Duration;

use coracle_cgroup::{DevicePolicy, Limits};

use super::support::{DEADLINE, Subtree, container, hosts, spawn, wait_for};

/// Forks without end, and each child ignores what it can.
const STORM: &str =
    "trap '' TERM HUP INT; f() { while :; do sleep 0.05 <&- >&- 2>&- & sleep 0.01; done; }; f & f & f & f";

#[test]
fn killing_takes_the_whole_tree_and_what_is_being_forked() {
    for host in hosts() {
        let subtree = Subtree::new(&host);
        let pod = subtree.pod(&Limits { pids: Some(200), ..Limits::default() });
        let (first, second) = (
            container(&pod, &Limits::default(), &DevicePolicy::All),
            container(&pod, &Limits::default(), &DevicePolicy::All),
        );
        let mut children = [spawn(&pod, &first, STORM), spawn(&pod, &second, STORM)];
        wait_for("some processes", || pod.cgroup().pids().unwrap().len() > 12);

        first.kill().unwrap();
        assert!(first.wait_empty_for(DEADLINE).unwrap());
        assert_eq!(first.pids().unwrap(), []);
        assert!(!second.pids().unwrap().is_empty(), "the neighbour lives");

        pod.cgroup().kill().unwrap();
        pod.cgroup().remove().unwrap();
        assert!(!pod.cgroup().exists());
        children.iter_mut().for_each(|child| {
            child.wait().unwrap();
        });
    }
}

#[test]
fn waiting_for_a_living_cgroup_ends_at_its_limit() {
    for host in hosts() {
        let subtree = Subtree::new(&host);
        let pod = subtree.pod(&Limits::default());
        let cgroup = container(&pod, &Limits::default(), &DevicePolicy::All);
        assert!(cgroup.wait_empty_for(Duration::ZERO).unwrap(), "empty from the start");
        let mut child = spawn(&pod, &cgroup, "exec sleep 1000");
        assert!(!cgroup.wait_empty_for(Duration::from_millis(20)).unwrap());
        cgroup.kill().unwrap();
        child.wait().unwrap();
    }
}

#[tokio::test]
async fn the_end_of_the_last_process_wakes_the_waiter() {
    for host in hosts() {
        let subtree = Subtree::new(&host);
        let pod = subtree.pod(&Limits::default());
        let cgroup = container(&pod, &Limits::default(), &DevicePolicy::All);
        cgroup.wait_empty().await.unwrap();

        let mut child = spawn(&pod, &cgroup, "sleep 1000 & exec sleep 1000");
        wait_for("both", || cgroup.pids().unwrap().len() == 2);
        let waiter = tokio::spawn({
            let cgroup = cgroup.clone();
            async move { cgroup.wait_empty().await }
        });
        // The first of two ends: no reason to wake up for good.
        child.kill().unwrap();
        child.wait().unwrap();
        tokio::task::yield_now().await;
        assert!(!waiter.is_finished());
        cgroup.kill().unwrap();
        tokio::time::timeout(DEADLINE, waiter).await.expect("woken").unwrap().unwrap();
        assert_eq!(cgroup.pids().unwrap(), []);

        // Removal wakes too: what is gone is empty.
        let mut child = spawn(&pod, &cgroup, "exec sleep 0.2");
        tokio::time::timeout(DEADLINE, cgroup.wait_empty()).await.expect("woken").unwrap();
        child.wait().unwrap();
        cgroup.remove().unwrap();
        cgroup.wait_empty().await.unwrap();
    }
}

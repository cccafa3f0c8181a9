//! Limits that hold.

use std::os::unix::process::ExitStatusExt;
use std::time::{Duration, Instant};

use coracle_cgroup::limits::CPU_PERIOD_US;
use coracle_cgroup::{Access, DeviceKind, DevicePolicy, DeviceRule, Limits};

use super::support::{Subtree, container, hosts, run, spawn, wait_for};

#[test]
fn a_container_over_its_memory_limit_is_killed_and_counted() {
    for host in hosts() {
        let subtree = Subtree::new(&host);
        let pod = subtree.pod(&Limits::default());
        let limits = Limits { memory: Some(32 << 20), ..Limits::default() };
        let cgroup = container(&pod, &limits, &DevicePolicy::All);
        let innocent = container(&pod, &limits, &DevicePolicy::All);
        assert_eq!(cgroup.oom_kills().unwrap(), 0);
        let output = run(&pod, &cgroup, "exec tail /dev/zero");
        assert_eq!(output.status.signal(), Some(9), "{output:?}");
        assert!(cgroup.oom_kills().unwrap() >= 1);
        assert_eq!(innocent.oom_kills().unwrap(), 0, "the neighbour's kill is not this one's");
    }
}

#[test]
fn a_pods_memory_limit_bounds_its_containers_together() {
    for host in hosts() {
        let subtree = Subtree::new(&host);
        let pod = subtree.pod(&Limits { memory: Some(32 << 20), ..Limits::default() });
        let cgroup = container(&pod, &Limits::default(), &DevicePolicy::All);
        let output = run(&pod, &cgroup, "exec tail /dev/zero");
        assert_eq!(output.status.signal(), Some(9), "{output:?}");
        assert!(cgroup.oom_kills().unwrap() >= 1, "counted where the victim was");
    }
}

#[test]
fn a_memory_limit_can_be_raised_and_lowered() {
    for host in hosts() {
        let subtree = Subtree::new(&host);
        let pod = subtree.pod(&Limits::default());
        let cgroup = container(&pod, &Limits::default(), &DevicePolicy::All);
        for mib in [64, 128, 32, 256] {
            let limits = Limits { memory: Some(mib << 20), ..Limits::default() };
            cgroup.ensure(&limits, &DevicePolicy::All).unwrap();
        }
        let limits = Limits { memory: Some(u64::MAX), ..Limits::default() };
        cgroup.ensure(&limits, &DevicePolicy::All).unwrap();
    }
}

#[test]
fn a_fork_loop_stays_in_its_pods_limit() {
    for host in hosts() {
        let subtree = Subtree::new(&host);
        let pod = subtree.pod(&Limits { pids: Some(20), ..Limits::default() });
        let cgroup = container(&pod, &Limits::default(), &DevicePolicy::All);
        let output = {
            let mut child = spawn(
                &pod,
                &cgroup,
                "i=0; while [ $i -lt 100 ]; do sleep 1000 <&- >&- 2>&- & i=$((i+1)); done; echo all",
            );
            // dash gives up on the first fork that fails; other shells try for longer.
            wait_for("the limit to be hit", || {
                let tasks = pod.cgroup().stats().unwrap().pids.unwrap();
                assert!(tasks <= 20, "{tasks} tasks");
                tasks >= 19 || child.try_wait().unwrap().is_some()
            });
            cgroup.kill().unwrap();
            child.wait_with_output().unwrap()
        };
        assert!(!String::from_utf8_lossy(&output.stdout).contains("all"), "{output:?}");
        assert!(cgroup.wait_empty_for(Duration::from_secs(10)).unwrap());
    }
}

#[test]
fn a_container_may_have_a_pids_limit_of_its_own() {
    for host in hosts() {
        let subtree = Subtree::new(&host);
        let pod = subtree.pod(&Limits::default());
        let cgroup = container(&pod, &Limits { pids: Some(1), ..Limits::default() }, &DevicePolicy::All);
        let output = run(&pod, &cgroup, "/bin/true; echo forked");
        assert!(!String::from_utf8_lossy(&output.stdout).contains("forked"), "{output:?}");
    }
}

#[test]
fn a_busy_loop_stays_in_its_cpu_quota() {
    for host in hosts() {
        let subtree = Subtree::new(&host);
        let pod = subtree.pod(&Limits::default());
        let quota = CPU_PERIOD_US / 5;
        let limits = Limits { cpu_quota_us: Some(quota), cpu_shares: Some(1024), ..Limits::default() };
        let cgroup = container(&pod, &limits, &DevicePolicy::All);
        let mut child = spawn(&pod, &cgroup, "while :; do :; done");
        let used = || cgroup.stats().unwrap().cpu.unwrap();
        let (before, started) = (used(), Instant::now());
        std::thread::sleep(Duration::from_millis(1500));
        let (spent, elapsed) = (used() - before, started.elapsed());
        cgroup.kill().unwrap();
        child.wait().unwrap();
        // How much it got depends on what else runs; that it got no more does not. Measuring begins and
        // ends anywhere in a period, each of which may hold a whole quota.
        let allowed =
            Duration::from_micros(quota).mul_f64(elapsed.as_secs_f64() * 1e6 / CPU_PERIOD_US as f64 + 1.0);
        eprintln!("{:?}: {spent:?} of {allowed:?} in {elapsed:?}", host.mode());
        assert!(spent <= allowed.mul_f64(1.1), "{spent:?} of CPU in {elapsed:?}");
        assert!(spent > Duration::ZERO);
    }
}

#[test]
fn stats_show_what_is_used() {
    for host in hosts() {
        let subtree = Subtree::new(&host);
        let pod = subtree.pod(&Limits::default());
        let cgroup = container(&pod, &Limits::default(), &DevicePolicy::All);
        let mut child =
            spawn(&pod, &cgroup, "i=0; while [ $i -lt 20000 ]; do i=$((i+1)); done; exec sleep 1000");
        // A scope has the process it began with, too.
        let tasks = 1 + u64::from(pod.begins_with_a_process());
        wait_for("CPU time and memory to be counted", || {
            let stats = pod.cgroup().stats().unwrap();
            stats.cpu.unwrap() > Duration::ZERO && stats.memory.unwrap() > 0 && stats.pids == Some(tasks)
        });
        let stats = cgroup.stats().unwrap();
        assert!(stats.working_set.unwrap() <= stats.memory.unwrap(), "{stats:?}");
        cgroup.kill().unwrap();
        child.wait().unwrap();
    }
}

#[test]
fn only_allowed_devices_open() {
    const KMSG: &str = "exec 3< /dev/kmsg && echo opened";
    for host in hosts() {
        let subtree = Subtree::new(&host);
        let pod = subtree.pod(&Limits::default());
        let opened = |cgroup: &_, script: &str| {
            let output = run(&pod, cgroup, script);
            String::from_utf8_lossy(&output.stdout).contains("opened")
        };
        let cgroup = container(&pod, &Limits::default(), &DevicePolicy::All);
        assert!(opened(&cgroup, KMSG), "root may read the kernel's log");
        for script in ["echo > /dev/null && echo opened", "exec 3< /dev/urandom && echo opened"] {
            let default = container(&pod, &Limits::default(), &DevicePolicy::default());
            assert!(opened(&default, script), "{script}");
        }

        // A policy replaces the one before it, in both directions.
        cgroup.ensure(&Limits::default(), &DevicePolicy::default()).unwrap();
        assert!(!opened(&cgroup, KMSG), "{:?}", host.mode());
        let kmsg =
            DeviceRule { kind: DeviceKind::Char, major: Some(1), minor: Some(11), access: Access::READ };
        cgroup.ensure(&Limits::default(), &DevicePolicy::default_with([kmsg])).unwrap();
        assert!(opened(&cgroup, KMSG));
        assert!(!opened(&cgroup, "exec 3> /dev/kmsg && echo opened"), "only reading is allowed");
        cgroup.ensure(&Limits::default(), &DevicePolicy::Only(vec![])).unwrap();
        assert!(!opened(&cgroup, "exec 3< /dev/zero && echo opened"));
        cgroup.ensure(&Limits::default(), &DevicePolicy::All).unwrap();
        assert!(opened(&cgroup, KMSG));
    }
}

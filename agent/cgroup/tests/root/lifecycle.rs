//! Making, finding and removing.

use coracle_cgroup::{DevicePolicy, Driver, Host, Kubepods, Limits};
use coracle_model::{ContainerId, PodUid, QosClass};

use super::support::{Subtree, container, driver, hosts, run, spawn, wait};

#[test]
fn ensure_and_remove_may_be_repeated() {
    for host in hosts() {
        let subtree = Subtree::new(&host);
        let limits =
            Limits { cpu_shares: Some(512), memory: Some(64 << 20), pids: Some(50), ..Limits::default() };
        let pod = subtree.pod(&limits);
        let cgroup = container(&pod, &limits, &DevicePolicy::default());
        for _ in 0..2 {
            wait(subtree.kubepods.ensure(2000)).unwrap();
            if driver() == Driver::Cgroupfs {
                subtree.ensure(&pod, &limits).unwrap();
            }
            cgroup.ensure(&limits, &DevicePolicy::default()).unwrap();
        }
        assert!(cgroup.exists());
        for _ in 0..2 {
            cgroup.remove().unwrap();
            assert!(!cgroup.exists());
        }
        assert!(pod.cgroup().exists() && pod.pause().exists() == host_has_v2(&host));
        subtree.end(&pod).unwrap();
        subtree.end(&pod).unwrap();
        assert!(!pod.cgroup().exists());
    }
}

fn host_has_v2(host: &Host) -> bool {
    host.mode() != coracle_cgroup::Mode::Legacy
}

#[test]
fn what_an_interrupted_agent_left_is_found_finished_and_removed() {
    if driver() == Driver::Systemd {
        // Of a scope nothing can be missing: systemd makes it, and it goes with its last process.
        return;
    }
    for host in hosts() {
        let subtree = Subtree::new(&host);
        let pod = subtree.pod(&Limits::default());
        let cgroup = container(&pod, &Limits::default(), &DevicePolicy::default());
        let uid: PodUid = pod.cgroup().path().file_name().unwrap().to_str().unwrap()[3..].parse().unwrap();

        // As if killed between two steps, wherever: one directory is missing.
        let pod_dirs: Vec<_> = subtree
            .dirs()
            .into_iter()
            .map(|dir| {
                dir.join(
                    pod.cgroup()
                        .path()
                        .strip_prefix(format!("/{}", dir.file_name().unwrap().to_str().unwrap()))
                        .unwrap(),
                )
            })
            .filter(|dir| dir.exists())
            .collect();
        assert!(!pod_dirs.is_empty());
        for missing in &pod_dirs {
            for name in [cgroup.path().file_name().unwrap().to_str().unwrap(), "pause", ""] {
                let _ = std::fs::remove_dir(missing.join(name));
            }
            assert!(!missing.exists());
            assert_eq!(
                subtree.kubepods.list_pods().unwrap(),
                if pod_dirs.len() == 1 { vec![] } else { vec![(QosClass::Burstable, uid.clone())] }
            );
            subtree.ensure(&pod, &Limits::default()).unwrap();
            cgroup.ensure(&Limits::default(), &DevicePolicy::default()).unwrap();
            assert!(missing.exists());
            let output = run(&pod, &cgroup, "echo inside");
            assert_eq!(String::from_utf8_lossy(&output.stdout), "inside\n", "{output:?}");
        }

        // Of the pod only a part in one hierarchy is left: still found, still removed.
        for gone in &pod_dirs[1..] {
            for name in [cgroup.path().file_name().unwrap().to_str().unwrap(), "pause", ""] {
                let _ = std::fs::remove_dir(gone.join(name));
            }
        }
        assert_eq!(subtree.kubepods.list_pods().unwrap(), [(QosClass::Burstable, uid.clone())]);
        wait(subtree.kubepods.pod(QosClass::Burstable, &uid).remove()).unwrap();
        assert_eq!(subtree.kubepods.list_pods().unwrap(), []);
    }
}

#[test]
fn a_missing_subtree_is_made_again_for_a_pod() {
    for host in hosts() {
        let subtree = Subtree::new(&host);
        wait(subtree.kubepods.remove()).unwrap();
        assert!(subtree.dirs().is_empty());
        let pod = subtree.pod(&Limits { pids: Some(10), ..Limits::default() });
        let cgroup = container(&pod, &Limits::default(), &DevicePolicy::All);
        assert!(run(&pod, &cgroup, "exit 0").status.success());
    }
}

#[test]
fn a_subtree_that_others_use_stays_until_their_last_pod_is_gone() {
    for host in hosts() {
        let subtree = Subtree::new(&host);
        let (own, theirs) = (subtree.pod(&Limits::default()), subtree.pod(&Limits::default()));
        let their_cgroup = container(&theirs, &Limits::default(), &DevicePolicy::All);
        let mut their_process = spawn(&theirs, &their_cgroup, "exec sleep 1000");
        let kubepods = theirs.cgroup().path().parent().unwrap().parent().unwrap().to_owned();
        subtree.end(&own).unwrap();
        assert_eq!(wait(subtree.kubepods.remove_unused()).unwrap(), [kubepods.as_path()]);
        assert!(their_cgroup.exists() && their_process.try_wait().unwrap().is_none());

        their_cgroup.kill().unwrap();
        their_process.wait().unwrap();
        assert_eq!(wait(subtree.kubepods.remove_unused()).unwrap(), [kubepods.as_path()]);
        assert!(their_cgroup.exists(), "one without a process is theirs as well");

        subtree.end(&theirs).unwrap();
        assert_eq!(wait(subtree.kubepods.remove_unused()).unwrap(), Vec::<std::path::PathBuf>::new());
        assert_eq!(subtree.dirs(), Vec::<std::path::PathBuf>::new());
    }
}

#[test]
fn a_pod_is_removed_with_all_that_is_below_it() {
    for host in hosts() {
        let subtree = Subtree::new(&host);
        let pod = subtree.pod(&Limits::default());
        let cgroup = container(&pod, &Limits::default(), &DevicePolicy::All);
        for dir in subtree.dirs() {
            let parent = format!("/{}", dir.file_name().unwrap().to_str().unwrap());
            let dir = dir.join(cgroup.path().strip_prefix(parent).unwrap());
            if dir.exists() {
                std::fs::create_dir_all(dir.join("made/by/the/container")).unwrap();
            }
        }
        subtree.end(&pod).unwrap();
        assert!(!pod.cgroup().exists());
    }
}

#[test]
fn removing_names_what_is_in_use_and_removes_the_rest() {
    for host in hosts() {
        let subtree = Subtree::new(&host);
        let pod = subtree.pod(&Limits::default());
        let (used, unused) = (
            container(&pod, &Limits::default(), &DevicePolicy::All),
            container(&pod, &Limits::default(), &DevicePolicy::All),
        );
        let mut child = spawn(&pod, &used, "exec sleep 1000");
        let error = wait(pod.remove()).expect_err("a process lives in it").to_string();
        assert!(error.contains(used.path().to_str().unwrap()), "{error}");
        assert!(!unused.exists(), "what could be removed is gone");
        assert!(used.exists());
        used.kill().unwrap();
        child.wait().unwrap();
        subtree.end(&pod).unwrap();
    }
}

#[test]
fn a_container_without_its_pod_is_an_error() {
    for host in hosts() {
        let subtree = Subtree::new(&host);
        let pod = subtree.kubepods.pod(QosClass::Guaranteed, &"absent".parse().unwrap());
        let cgroup = pod.container(&ContainerId::random());
        let error = cgroup.ensure(&Limits::default(), &DevicePolicy::All).expect_err("no pod").to_string();
        assert!(error.starts_with("cannot create cgroup /"), "{error}");
        assert!(cgroup.attachment().is_err() && cgroup.procs().is_err());
        cgroup.kill().unwrap();
        assert_eq!(cgroup.oom_kills().unwrap(), 0);
        assert_eq!(cgroup.stats().unwrap(), coracle_cgroup::Stats::default());
        assert!(cgroup.wait_empty_for(std::time::Duration::ZERO).unwrap());
        cgroup.remove().unwrap();
    }
}

#[test]
fn a_parent_cannot_climb() {
    let host = std::sync::Arc::new(Host::detect().unwrap());
    assert!(Kubepods::new(host, "/a/../..".as_ref(), Driver::Cgroupfs).is_err());
}

#[test]
fn warming_moves_nothing() {
    let own = || std::fs::read_to_string("/proc/self/cgroup").unwrap();
    let before = own();
    for host in hosts() {
        host.warm_attach().unwrap();
    }
    assert_eq!(own(), before);
}

//! Scopes and slices of a real systemd. Without one there is nothing to test: machines of namespaces have none.

use std::collections::BTreeMap;
use std::fs;
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::time::Instant;

use coracle_cgroup::limits::{cpu_shares, cpu_weight};
use coracle_cgroup::{DevicePolicy, Driver, Host, Kubepods, Limits, PodCgroup};
use coracle_linux::bpf;
use coracle_model::{PodUid, QosClass};

use super::support::{DEADLINE, Subtree, container, run, spawn, systemds_host, wait, wait_for};

/// What systemd says of a unit's properties.
fn show(unit: &str, properties: &[&str]) -> Vec<String> {
    let names = properties.join(",");
    let output = Command::new("systemctl").args(["show", unit, "--property", &names]).output().unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    let value =
        |name: &&str| text.lines().find_map(|line| line.strip_prefix(&format!("{name}=")).map(str::to_owned));
    properties.iter().map(|name| value(name).unwrap_or_else(|| panic!("no {name} in {text}"))).collect()
}

fn systemctl(arguments: &[&str]) {
    let done = Command::new("systemctl").args(arguments).status().unwrap();
    assert!(done.success(), "systemctl {arguments:?}: {done}");
}

fn unit(pod: &PodCgroup) -> String {
    pod.cgroup().path().file_name().unwrap().to_str().unwrap().to_owned()
}

fn dir(path: &Path) -> PathBuf {
    Path::new("/sys/fs/cgroup").join(path.strip_prefix("/").unwrap())
}

fn file(path: &Path, name: &str) -> String {
    let path = dir(path).join(name);
    fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display())).trim().to_owned()
}

const LIMITS: Limits = Limits {
    cpu_shares: Some(512),
    cpu_quota_us: Some(15_500),
    memory: Some((64 << 20) + 4096),
    pids: Some(70),
};

#[test]
fn a_pod_is_a_scope_with_its_limits_as_properties() {
    let Some(host) = systemds_host() else { return };
    let subtree = Subtree::by(&host, Driver::Systemd);
    let pod = subtree.pod(&LIMITS);
    let properties = [
        "Delegate",
        "MemoryMax",
        "TasksMax",
        "CPUWeight",
        "CPUQuotaPerSecUSec",
        "CollectMode",
        "OOMPolicy",
        "Description",
    ];
    let shown = show(&unit(&pod), &properties);
    let wanted =
        ["yes", "67112960", "70", "59", "160ms", "inactive-or-failed", "continue", "Pod default/test"];
    assert_eq!(shown, wanted);
    let slice = pod.cgroup().path().parent().unwrap().file_name().unwrap().to_str().unwrap().to_owned();
    assert_eq!(show(&unit(&pod), &["Slice"]), [slice.as_str()]);
    assert!(slice.ends_with("-kubepods-burstable.slice"));
    let path = pod.cgroup().path();
    for (name, value) in [
        ("memory.max", "67112960"),
        ("pids.max", "70"),
        ("cpu.weight", "59"),
        ("cpu.max", "16000 100000"),
        ("memory.oom.group", "0"),
    ] {
        assert_eq!(file(&path, name), value, "{name}");
    }
    for controller in ["cpu", "memory", "pids"] {
        assert!(file(&path, "cgroup.subtree_control").split(' ').any(|it| it == controller), "{controller}");
    }
    // Another is not held to what systemd would have a scope have.
    let free = subtree.pod(&Limits::default());
    for name in ["memory.max", "pids.max"] {
        assert_eq!(file(&free.cgroup().path(), name), "max");
    }
    let weight = |class| {
        let pod = subtree.kubepods.pod(class, &"any".parse().unwrap());
        file(pod.cgroup().path().parent().unwrap(), "cpu.weight")
    };
    assert_eq!(weight(QosClass::Guaranteed), cpu_weight(cpu_shares(2000)).to_string());
    assert_eq!(weight(QosClass::BestEffort), "1");
}

/// Limits, filters and processes of every cgroup of a subtree.
fn state(subtree: &Subtree) -> BTreeMap<PathBuf, Vec<String>> {
    let mut found = BTreeMap::new();
    let mut dirs = subtree.dirs();
    while let Some(dir) = dirs.pop() {
        let files =
            ["cpu.max", "cpu.weight", "memory.max", "memory.swap.max", "memory.oom.group", "pids.max"];
        let control = ["cgroup.controllers", "cgroup.subtree_control", "cgroup.procs"];
        let read = |name: &&str| fs::read_to_string(dir.join(name)).unwrap_or_default();
        let mut values: Vec<String> = files.iter().chain(&control).map(read).collect();
        let opened = fs::File::open(&dir).unwrap();
        values.extend(bpf::attached_device_filters(opened.as_fd()).unwrap().iter().map(ToString::to_string));
        dirs.extend(fs::read_dir(&dir).unwrap().map(|it| it.unwrap().path()).filter(|path| path.is_dir()));
        found.insert(dir, values);
    }
    found
}

#[test]
fn systemd_reloaded_or_executed_anew_changes_no_limit_no_filter_and_no_process() {
    let Some(host) = systemds_host() else { return };
    let subtree = Subtree::by(&host, Driver::Systemd);
    let (pod, other) = (subtree.pod(&LIMITS), subtree.pod(&Limits::default()));
    let limits = Limits { cpu_quota_us: Some(12_345), memory: Some(32 << 20), ..Limits::default() };
    let cgroup = container(&pod, &limits, &DevicePolicy::default());
    let mut child = spawn(&pod, &cgroup, "exec sleep 1000");
    let before = state(&subtree);
    let filters = before[&dir(&cgroup.path())].len();
    for verb in ["daemon-reload", "daemon-reexec", "daemon-reload"] {
        systemctl(&[verb]);
        // It may do it after it has answered; what it does then, it does before it answers again.
        systemctl(&["set-property", "--runtime", &unit(&other), "CPUWeight=200"]);
        systemctl(&["set-property", "--runtime", &unit(&other), "CPUWeight=100"]);
        assert_eq!(state(&subtree), before, "{verb}");
    }
    // Of nine files and the filter.
    assert_eq!(filters, 10);
    let denied = run(&pod, &cgroup, "cd /var/tmp; mknod sda-$$ b 8 0 && cat sda-$$; rm -f sda-$$");
    assert!(String::from_utf8_lossy(&denied.stderr).contains("not permitted"), "{denied:?}");
    cgroup.kill().unwrap();
    child.wait().unwrap();
}

#[test]
fn a_scope_that_ended_leaves_its_name_to_the_next() {
    let Some(host) = systemds_host() else { return };
    let subtree = Subtree::by(&host, Driver::Systemd);
    let pod = subtree.pod(&Limits::default());
    for round in 0..20 {
        let begun = Instant::now();
        if round % 2 == 0 {
            subtree.end(&pod).unwrap();
            assert!(!pod.cgroup().exists());
        } else {
            // Nobody has told systemd.
            pod.cgroup().kill().unwrap();
            assert!(pod.cgroup().wait_empty_for(DEADLINE).unwrap());
        }
        subtree.ensure(&pod, &LIMITS).unwrap();
        assert!(run(&pod, &container(&pod, &LIMITS, &DevicePolicy::All), "exit 0").status.success());
        assert!(begun.elapsed() < DEADLINE);
    }
}

#[test]
fn a_scope_goes_with_its_first_process_if_nothing_else_came() {
    let Some(host) = systemds_host() else { return };
    let subtree = Subtree::by(&host, Driver::Systemd);
    let pod = subtree.pod(&Limits::default());
    // As if the agent had been killed before pause was there.
    subtree.end_first();
    wait_for("systemd to remove the scope", || !pod.cgroup().exists());
    assert_eq!(subtree.kubepods.list_pods().unwrap(), []);
    wait_for("systemd to forget it", || show(&unit(&pod), &["LoadState"]) == ["not-found"]);
}

#[test]
fn many_scopes_are_made_at_once() {
    let Some(host) = systemds_host() else { return };
    let subtree = Subtree::by(&host, Driver::Systemd);
    let pods: Vec<PodCgroup> = std::thread::scope(|scope| {
        let started: Vec<_> = (0..20).map(|_| scope.spawn(|| subtree.pod(&LIMITS))).collect();
        started.into_iter().map(|it| it.join().unwrap()).collect()
    });
    assert_eq!(subtree.kubepods.list_pods().unwrap().len(), 20);
    for pod in &pods {
        assert_eq!(file(&pod.cgroup().path(), "pids.max"), "70");
        subtree.end(pod).unwrap();
    }
    assert_eq!(subtree.kubepods.list_pods().unwrap(), []);
}

#[test]
fn slices_that_were_stopped_come_again_with_their_weights() {
    let Some(host) = systemds_host() else { return };
    let subtree = Subtree::by(&host, Driver::Systemd);
    let pod = subtree.pod(&Limits::default());
    let kubepods = pod.cgroup().path().parent().unwrap().parent().unwrap().to_owned();
    systemctl(&["stop", kubepods.file_name().unwrap().to_str().unwrap()]);
    assert!(!dir(&kubepods).exists());
    subtree.ensure(&pod, &Limits::default()).unwrap();
    assert_eq!(file(&kubepods, "cpu.weight"), cpu_weight(cpu_shares(2000)).to_string());
}

/// The same node, by the other driver.
fn by_other(host: &Arc<Host>, subtree: &Subtree, driver: Driver) -> Kubepods {
    Kubepods::new(Arc::clone(host), subtree.parent().as_ref(), driver).unwrap()
}

#[test]
fn a_pod_of_the_other_driver_is_found_where_it_is_and_removed_there() {
    let Some(host) = systemds_host() else { return };
    for (driver, other) in [(Driver::Systemd, Driver::Cgroupfs), (Driver::Cgroupfs, Driver::Systemd)] {
        let subtree = Subtree::by(&host, driver);
        let pod = subtree.pod(&LIMITS);
        let uid: PodUid = subtree.kubepods.list_pods().unwrap()[0].1.clone();
        let changed = by_other(&host, &subtree, other);
        assert_eq!(changed.list_pods().unwrap(), [(QosClass::Burstable, uid.clone())]);
        let found = changed.pod(QosClass::Burstable, &uid);
        assert_eq!(found.cgroup().path(), pod.cgroup().path());
        let new = changed.new_pod(QosClass::Burstable, &uid);
        assert_ne!(new.cgroup().path(), pod.cgroup().path());
        let all = changed.pods_of(&uid);
        assert_eq!(all.len(), 1);
        subtree.end(&all[0]).unwrap();
        assert!(!pod.cgroup().exists());
        // What has gone is made by the driver that is configured.
        let path = changed.pod(QosClass::Burstable, &uid).cgroup().path();
        assert_eq!(path, new.cgroup().path());
        wait(changed.remove()).unwrap();
    }
}

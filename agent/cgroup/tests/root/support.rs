//! A private subtree, and processes in it.

use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::path::PathBuf;
use std::process::{Child, Command, Output, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, LazyLock, Mutex};
use std::time::{Duration, Instant};

use coracle_cgroup::{
    Cgroup, DevicePolicy, Driver, Error, FirstProcess, Host, Kubepods, Limits, Mode, PodCgroup, PodSettings,
};
use coracle_model::{ContainerId, QosClass};
use rustix::process::{Pid, PidfdFlags, pidfd_open};
use tokio::runtime::{Builder, Runtime};

/// How long anything may take that is waited for, on an emulated machine too.
pub(crate) const DEADLINE: Duration = Duration::from_secs(60);

/// The host as it is, and a hybrid one also without its v2 tree.
pub(crate) fn hosts() -> Vec<Arc<Host>> {
    if !rustix::process::geteuid().is_root() {
        eprintln!("skipped: needs root");
        return Vec::new();
    }
    let native = Host::detect().expect("a cgroup file system is mounted");
    let hybrid = native.mode() == Mode::Hybrid;
    let mut hosts = vec![Arc::new(native)];
    if hybrid {
        let text = std::fs::read_to_string("/proc/self/mountinfo").unwrap();
        let legacy: Vec<&str> = text.lines().filter(|line| !line.contains(" - cgroup2 ")).collect();
        let legacy = Host::from_mountinfo(&legacy.join("\n")).unwrap();
        assert_eq!(legacy.mode(), Mode::Legacy);
        hosts.push(Arc::new(legacy));
    }
    hosts
}

/// Who makes the cgroups: `CORACLE_TEST_CGROUP_DRIVER`, as in the configuration.
pub(crate) fn driver() -> Driver {
    match std::env::var("CORACLE_TEST_CGROUP_DRIVER").as_deref() {
        Ok("systemd") => Driver::Systemd,
        _ => Driver::Cgroupfs,
    }
}

/// The host, if systemd can make cgroups on it; the machines these tests run on most often have none.
pub(crate) fn systemds_host() -> Option<Arc<Host>> {
    let host = hosts().into_iter().next()?;
    let usable = std::path::Path::new("/run/systemd/system").is_dir() && host.mode() == Mode::Unified;
    if !usable {
        eprintln!("skipped: needs systemd as PID 1 and cgroup v2 alone");
    }
    usable.then_some(host)
}

/// Waits for what may ask systemd.
pub(crate) fn wait<T: Send>(what: impl Future<Output = T> + Send) -> T {
    // One for all: a connection to the bus lives in the runtime it was made in.
    static RUNTIME: LazyLock<Runtime> =
        LazyLock::new(|| Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap());
    // On a thread of its own: some tests are asynchronous themselves.
    std::thread::scope(|scope| scope.spawn(|| RUNTIME.block_on(what)).join().unwrap())
}

/// A parent of its own, with everything in it killed and removed at the end, also when a test fails.
pub(crate) struct Subtree {
    pub(crate) kubepods: Kubepods,
    parent: String,
    driver: Driver,
    /// Those that pods began with.
    first: Mutex<Vec<Child>>,
}

impl Subtree {
    pub(crate) fn new(host: &Arc<Host>) -> Self {
        Self::by(host, driver())
    }

    /// One that this driver makes.
    pub(crate) fn by(host: &Arc<Host>, driver: Driver) -> Self {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let parent =
            format!("/coracle-test-{}-{}", std::process::id(), COUNT.fetch_add(1, Ordering::Relaxed));
        let kubepods = Kubepods::new(Arc::clone(host), parent.as_ref(), driver).unwrap();
        wait(kubepods.ensure(2000)).expect("the subtree is made");
        Self { kubepods, parent, driver, first: Mutex::default() }
    }

    /// A pod, made.
    pub(crate) fn pod(&self, limits: &Limits) -> PodCgroup {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let uid = format!("test-{}", COUNT.fetch_add(1, Ordering::Relaxed)).parse().unwrap();
        let pod = self.kubepods.pod(QosClass::Burstable, &uid);
        self.ensure(&pod, limits).expect("the pod's cgroup is made");
        pod
    }

    /// Makes a pod's cgroup, with a process where it begins with one: in the place of pause, it stays.
    pub(crate) fn ensure(&self, pod: &PodCgroup, limits: &Limits) -> Result<(), Error> {
        let settings =
            PodSettings { limits: *limits, description: "default/test".to_owned(), grace: DEADLINE };
        if !pod.begins_with_a_process() {
            return wait(pod.ensure(&settings, None));
        }
        let child = Command::new("sleep").arg("1000").stdin(Stdio::null()).spawn().unwrap();
        let pid = Pid::from_child(&child);
        let pidfd = pidfd_open(pid, PidfdFlags::empty()).unwrap();
        self.first.lock().unwrap().push(child);
        wait(pod.ensure(&settings, Some(FirstProcess { pid, pidfd: pidfd.as_fd() })))
    }

    /// The parent, as in the configuration.
    pub(crate) fn parent(&self) -> &str {
        &self.parent
    }

    /// Ends what pods began with.
    pub(crate) fn end_first(&self) {
        for first in self.first.lock().unwrap().iter_mut() {
            let _ = first.kill();
            let _ = first.wait();
        }
    }

    /// Ends what is in a pod, and removes it.
    pub(crate) fn end(&self, pod: &PodCgroup) -> Result<(), Error> {
        pod.cgroup().kill()?;
        pod.cgroup().wait_empty_for(DEADLINE)?;
        wait(pod.remove())
    }

    /// Every directory of the subtree, in every hierarchy.
    pub(crate) fn dirs(&self) -> Vec<PathBuf> {
        let mounts = std::fs::read_to_string("/proc/self/mountinfo").unwrap();
        let cgroup = |line: &&str| line.contains(" - cgroup");
        let points = mounts.lines().filter(cgroup).filter_map(|line| line.split(' ').nth(4));
        let name = match self.driver {
            Driver::Cgroupfs => self.parent.clone(),
            Driver::Systemd => format!("{}.slice", self.parent.replace('-', "_")),
        };
        points.map(|point| PathBuf::from(format!("{point}{name}"))).filter(|dir| dir.exists()).collect()
    }
}

impl Drop for Subtree {
    fn drop(&mut self) {
        // The pods first: on a legacy host the subtree as a whole is killed one by one as well.
        for (class, uid) in self.kubepods.list_pods().unwrap_or_default() {
            let pod = self.kubepods.pod(class, &uid);
            let _ = pod.cgroup().kill();
            let _ = pod.cgroup().wait_empty_for(DEADLINE);
        }
        self.end_first();
        let removed = wait(self.kubepods.remove());
        if !std::thread::panicking() {
            removed.expect("the subtree is removed");
            assert_eq!(self.dirs(), Vec::<PathBuf>::new(), "directories are left");
        }
    }
}

/// A container of the pod, made.
pub(crate) fn container(pod: &PodCgroup, limits: &Limits, devices: &DevicePolicy) -> Cgroup {
    let cgroup = pod.container(&ContainerId::random());
    cgroup.ensure(limits, devices).expect("the container's cgroup is made");
    cgroup
}

/// Runs a shell script in a container of the pod, by the way a container's process takes: into pause's
/// cgroups, then into the container's.
pub(crate) fn spawn(pod: &PodCgroup, container: &Cgroup, script: &str) -> Child {
    let procs: Vec<OwnedFd> =
        pod.pause().procs().unwrap().into_iter().chain(container.procs().unwrap()).collect();
    let own = std::process::id();
    let mut command = Command::new("/bin/sh");
    command
        .arg("-c")
        .arg(format!("for procs in \"$@\"; do echo 0 > \"$procs\" || exit 99; done; set --; {script}"));
    command.arg("sh").args(procs.iter().map(|fd| format!("/proc/{own}/fd/{}", fd.as_raw_fd())));
    let child = command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    // The shell opens the descriptors by this process's table, so they must stay open until it has.
    let moved = || container.pids().unwrap().contains(&child.id());
    let ended =
        || std::fs::read_to_string(format!("/proc/{}/stat", child.id())).is_ok_and(|s| s.contains(") Z "));
    wait_for("the process to be in its cgroup", || moved() || ended());
    child
}

/// The same, to its end.
pub(crate) fn run(pod: &PodCgroup, container: &Cgroup, script: &str) -> Output {
    spawn(pod, container, script).wait_with_output().unwrap()
}

/// Waits for a condition.
pub(crate) fn wait_for(what: &str, mut condition: impl FnMut() -> bool) {
    let deadline = Instant::now() + DEADLINE;
    while !condition() {
        assert!(Instant::now() < deadline, "waited in vain for {what}");
        std::thread::sleep(Duration::from_millis(2));
    }
}

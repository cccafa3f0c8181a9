//! What a pause holds as it starts.

use std::fs::{self, File};
use std::os::fd::AsFd;
use std::path::Path;

use coracle_sandbox::pause::{PauseError, Step};
use rustix::io::Errno;

use super::harness::{Pod, Wishes, file_of, status};

const NAMESPACES: [&str; 7] = ["net", "ipc", "uts", "mnt", "pid", "user", "cgroup"];

fn namespaces(of: &Path) -> Vec<String> {
    NAMESPACES
        .iter()
        .map(|name| fs::read_link(of.join("ns").join(name)).unwrap().to_str().unwrap().to_owned())
        .collect()
}

#[tokio::test]
async fn a_pod_has_the_namespaces_it_asked_for_and_no_other() {
    let host = namespaces(Path::new("/proc/self"));
    let everything = Pod::with(|how| {
        how.network = true;
        how.ipc = true;
        how.host_name = Some("web-0");
    })
    .await;
    let own = namespaces(&everything.proc());
    for (at, name) in NAMESPACES.iter().enumerate() {
        assert_eq!(own[at] != host[at], at < 3, "{name}");
    }
    let nothing = Pod::plain().await;
    assert_eq!(namespaces(&nothing.proc()), host);
}

#[tokio::test]
async fn children_are_born_into_the_pod() {
    let pod = Pod::with(|how| {
        how.network = true;
        how.ipc = true;
        how.host_name = Some("web-0");
    })
    .await;
    let agent = pod.connect().await;
    let script = "cat /proc/sys/kernel/hostname; readlink /proc/self/ns/net /proc/self/ns/ipc";
    let text = agent.shell(None, script).await.read();
    let own = namespaces(&pod.proc());
    assert_eq!(text.lines().collect::<Vec<_>>(), ["web-0", &own[0], &own[1]]);
}

#[tokio::test]
async fn loopback_is_up() {
    let pod = Pod::with(|how| how.network = true).await;
    let network = File::open(pod.proc().join("ns/net")).unwrap();
    let received = std::thread::spawn(move || {
        rustix::thread::move_into_link_name_space(
            network.as_fd(),
            Some(rustix::thread::LinkNameSpaceType::Network),
        )?;
        let socket = std::net::UdpSocket::bind("127.0.0.1:0")?;
        socket.send_to(b"hello", socket.local_addr()?)
    });
    assert_eq!(received.join().unwrap().unwrap(), 5);
}

#[tokio::test]
async fn pause_has_nothing_it_does_not_need() {
    let directory = tempfile::tempdir().unwrap();
    let pod = Pod::within(directory, |_| {}).await.unwrap();
    let open = pod.descriptors();
    let numbers: Vec<_> = open.iter().map(|(number, _)| number.as_str()).collect();
    assert_eq!(numbers.len(), 6, "{open:?}");
    assert!(open[..3].iter().all(|(_, file)| file == Path::new("/dev/null")), "{open:?}");
    assert_eq!(open[4].1, pod.directory.path().join("exits"));
    // Every signal blocked, none ignored, none caught.
    assert_eq!(status(pod.pause.pid, "SigIgn"), "0000000000000000");
    assert_eq!(status(pod.pause.pid, "SigCgt"), "0000000000000000");
    assert_eq!(fs::read_to_string(pod.proc().join("comm")).unwrap(), "pause\n");
    assert_eq!(fs::read(pod.proc().join("environ")).unwrap(), b"");
    let score = fs::read_to_string(pod.proc().join("oom_score_adj")).unwrap();
    assert_eq!(score.trim() == "-998", pod.pause.oom_score_adj_refused.is_none());
}

#[tokio::test]
async fn pause_attaches_itself_to_its_cgroups() {
    let Some(group) = Cgroup::new("attach") else { return };
    let procs = File::options().write(true).open(group.0.join("cgroup.procs")).unwrap();
    let procs = [procs.as_fd()];
    let pod = Pod::with(|how| how.cgroups = &procs).await;
    let inside = fs::read_to_string(group.0.join("cgroup.procs")).unwrap();
    assert_eq!(inside.trim(), pod.pause.pid.as_raw_nonzero().to_string());
    drop(pod);
}

#[tokio::test]
async fn a_child_is_born_into_its_cgroup() {
    let Some(group) = Cgroup::new("born") else { return };
    let pod = Pod::plain().await;
    let agent = pod.connect().await;
    let directory = File::open(&group.0).unwrap();
    let wishes = Wishes { cgroup: Some(directory.as_fd()), ..Wishes::default() };
    let mut shell = agent.shell_with(None, "cat /proc/self/cgroup", wishes).await;
    let text = shell.read();
    let name = group.0.file_name().unwrap().to_str().unwrap();
    assert!(text.lines().any(|line| line.starts_with("0::") && line.ends_with(name)), "{text}");
}

#[tokio::test]
async fn a_step_that_fails_is_named() {
    // No cgroup.procs: writing to it fails.
    let (reader, _writer) = std::io::pipe().unwrap();
    let cgroups = [reader.as_fd()];
    let failed = Pod::within(tempfile::tempdir().unwrap(), |how| how.cgroups = &cgroups).await;
    assert_eq!(failed.err(), Some(PauseError::Start { step: Step::Cgroup, errno: Errno::BADF }));

    let long = "x".repeat(65);
    let failed = Pod::within(tempfile::tempdir().unwrap(), |how| how.host_name = Some(&long)).await;
    assert_eq!(failed.err(), Some(PauseError::Start { step: Step::Hostname, errno: Errno::INVAL }));
}

#[tokio::test]
async fn a_program_that_says_nothing_is_not_a_pause() {
    let silent = File::open("/bin/true").unwrap();
    let failed = Pod::within(tempfile::tempdir().unwrap(), |how| how.program = silent.as_fd()).await;
    assert_eq!(failed.err(), Some(PauseError::StartDied));

    let none = file_of(b"no program");
    let failed = Pod::within(tempfile::tempdir().unwrap(), |how| how.program = none.as_fd()).await;
    assert_eq!(failed.err(), Some(PauseError::Agent { step: "start pause", errno: Errno::NOEXEC }));
}

#[tokio::test]
async fn a_pod_directory_may_have_a_long_path() {
    let long = tempfile::Builder::new().prefix(&"x".repeat(200)).tempdir().unwrap();
    let pod = Pod::within(long, |_| {}).await.unwrap();
    pod.connect().await;
}

/// A cgroup of the v2 tree, removed in the end; none where there is no such tree.
struct Cgroup(std::path::PathBuf);

impl Cgroup {
    fn new(name: &str) -> Option<Self> {
        let mounts = fs::read_to_string("/proc/self/mountinfo").unwrap();
        let root = mounts.lines().find(|line| line.contains(" - cgroup2 "))?.split(' ').nth(4)?;
        let group = Path::new(root).join(format!("coracle-pause-{name}-{}", std::process::id()));
        fs::create_dir(&group).unwrap();
        Some(Self(group))
    }
}

impl Drop for Cgroup {
    fn drop(&mut self) {
        let deadline = std::time::Instant::now() + super::harness::DEADLINE;
        while fs::remove_dir(&self.0).is_err() && std::time::Instant::now() < deadline {
            std::thread::yield_now();
        }
    }
}

//! The pid namespace a pod's containers share.

use std::fs::{self, File};
use std::os::fd::{AsFd, OwnedFd};
use std::process::{Command, Stdio};

use coracle_model::ContainerId;
use coracle_sandbox::pause::{Event, PauseError, Step};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fs::{AtFlags, Dir, Mode, OFlags, openat, statat};
use rustix::io::Errno;
use rustix::process::{Pid, Signal, pidfd_send_signal};
use rustix::thread::{ThreadNameSpaceType, move_into_thread_name_spaces};

use super::harness::{Pod, proc, status, until};

async fn shared() -> Pod {
    Pod::with(|how| how.shared_pid = true).await
}

fn reaper(pod: &Pod) -> Pid {
    let [pid] = pod.children()[..] else { panic!("pause has other children than the reaper") };
    Pid::from_raw(pid.try_into().unwrap()).unwrap()
}

/// The processes a mount of /proc shows.
fn processes(proc: &OwnedFd) -> Vec<u32> {
    let listed = openat(proc, ".", OFlags::RDONLY | OFlags::DIRECTORY, Mode::empty()).unwrap();
    let mut pids: Vec<u32> = Dir::read_from(listed)
        .unwrap()
        .filter_map(|entry| entry.unwrap().file_name().to_str().ok()?.parse().ok())
        .collect();
    pids.sort_unstable();
    pids
}

#[tokio::test]
async fn pid_1_is_worth_nothing() {
    let pod = shared().await;
    let reaper = reaper(&pod);
    for set in ["CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb"] {
        assert_eq!(status(reaper, set), "0000000000000000", "{set}");
    }
    assert_eq!(status(reaper, "NoNewPrivs"), "1");
    assert!(status(reaper, "NSpid").ends_with("\t1"));
    // The last one is that by which it says that it has given up everything.
    until("its descriptors are closed", || fs::read_dir(proc(reaper).join("fd")).unwrap().count() == 0).await;
    let root = proc(reaper).join("root");
    assert_eq!(fs::read_dir(&root).unwrap().count(), 0, "its root is not empty");
    assert_eq!(fs::read_link(&root).unwrap().to_str(), Some("/"));
    let written = fs::write(root.join("file"), "").unwrap_err();
    assert_eq!(Errno::from_io_error(&written), Some(Errno::ROFS));
    // One mount it is in, and the namespace's /proc over it.
    let mounts = fs::read_to_string(proc(reaper).join("mountinfo")).unwrap();
    assert!(mounts.lines().all(|line| line.contains(" - tmpfs ") || line.contains(" - proc ")), "{mounts}");
    assert!(mounts.lines().count() <= 2, "{mounts}");
    assert_eq!(fs::read(proc(reaper).join("environ")).unwrap(), b"");
}

#[tokio::test]
async fn its_proc_shows_the_namespace_and_nothing_of_the_host() {
    let pod = shared().await;
    let agent = pod.connect().await;
    // More than one container needs one.
    for _ in 0..3 {
        let shared = agent.client.shared_pid().await.unwrap();
        assert_eq!(processes(&shared.proc), [1]);
        let uptime = openat(&shared.proc, "uptime", OFlags::RDONLY, Mode::empty());
        assert!(uptime.is_ok(), "it is not a whole /proc");
    }
    // pause stays in the host's mount namespace.
    let namespace = |of: &str| fs::read_link(format!("/proc/{of}/ns/mnt")).unwrap();
    assert_eq!(namespace(&pod.pause.pid.as_raw_nonzero().to_string()), namespace("self"));
}

#[tokio::test]
async fn a_proc_mount_can_be_attached() {
    let pod = shared().await;
    let agent = pod.connect().await;
    let first = agent.client.shared_pid().await.unwrap();
    let second = agent.client.shared_pid().await.unwrap();
    let attached = std::thread::spawn(move || {
        // A mount namespace of this thread's own.
        coracle_linux::unshare_mount_namespace()?;
        let private =
            rustix::mount::MountPropagationFlags::PRIVATE | rustix::mount::MountPropagationFlags::REC;
        rustix::mount::mount_change("/", private)?;
        let directory = tempfile::tempdir().unwrap();
        for mount in [first.proc, second.proc] {
            let flags = rustix::mount::MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH;
            rustix::mount::move_mount(&mount, "", rustix::fs::CWD, directory.path(), flags)?;
            statat(rustix::fs::CWD, directory.path().join("1/status"), AtFlags::empty())?;
            rustix::mount::unmount(directory.path(), rustix::mount::UnmountFlags::DETACH)?;
        }
        Ok::<_, Errno>(())
    });
    assert_eq!(attached.join().unwrap(), Ok(()));
}

#[tokio::test]
async fn orphans_are_reaped_by_pid_1() {
    let pod = shared().await;
    let agent = pod.connect().await;
    let shared = agent.client.shared_pid().await.unwrap();
    let pidfd = shared.pidfd.try_clone().unwrap();
    let orphaned = std::thread::spawn(move || {
        // For this thread's children only.
        move_into_thread_name_spaces(pidfd.as_fd(), ThreadNameSpaceType::PROCESS_ID).unwrap();
        let mut shell = Command::new("/bin/sh")
            .args(["-c", "exec 3<&0; (read x <&3) >/dev/null & echo $!"])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let keeps_it_alive = shell.stdin.take().unwrap();
        // The orphan's pid, in the namespace.
        let pid: u32 = std::io::read_to_string(shell.stdout.take().unwrap()).unwrap().trim().parse().unwrap();
        shell.wait().unwrap();
        (keeps_it_alive, pid)
    })
    .join()
    .unwrap();
    let (keeps_it_alive, pid) = orphaned;
    assert_eq!(processes(&shared.proc), [1, pid], "the orphan is not alone with pid 1");
    drop(keeps_it_alive);
    until("the orphan is reaped", || processes(&shared.proc) == [1]).await;
    assert_eq!(pod.children().len(), 1, "the orphan became pause's");
}

#[tokio::test]
async fn the_end_of_the_namespace_is_told() {
    let pod = shared().await;
    let mut agent = pod.connect().await;
    let shared = agent.client.shared_pid().await.unwrap();
    pidfd_send_signal(&shared.pidfd, Signal::KILL).unwrap();
    let exited = agent.exited().await;
    assert!(exited.reaper && exited.container.is_none());
    let gone =
        PauseError::Refused { request: "shared pid namespace", step: Step::ReaperDied, errno: Errno::SRCH };
    assert_eq!(agent.client.shared_pid().await.err(), Some(gone));
    // What was held is still there to be read.
    assert_eq!(agent.client.list().await, Ok(vec![]));
}

#[tokio::test]
async fn the_namespace_ends_with_pause() {
    let pod = shared().await;
    let agent = pod.connect().await;
    let shared = agent.client.shared_pid().await.unwrap();
    pidfd_send_signal(&pod.pause.pidfd, Signal::KILL).unwrap();
    // Whoever inherits it need not have reaped it: its pidfd tells that it has ended.
    until("pid 1 is gone", || {
        let ended = &mut [PollFd::new(&shared.pidfd, PollFlags::IN)];
        poll(ended, Some(&Timespec::default())) == Ok(1)
    })
    .await;
}

#[tokio::test]
async fn shutdown_ends_the_namespace() {
    let pod = shared().await;
    let mut agent = pod.connect().await;
    // A child of pause inside the namespace keeps pid 1 from ending until pause reaps it.
    let id = ContainerId::random();
    agent.shell(Some(id), "exit 0").await;
    agent.exited().await;
    agent.client.release(id).await.unwrap();
    agent.client.shutdown().await.unwrap();
    assert!(agent.exited().await.reaper);
    assert_eq!(agent.event().await, Event::Disconnected);
    assert_eq!(agent.event().await, Event::Died);
}

#[tokio::test]
async fn without_one_there_is_none() {
    let pod = Pod::plain().await;
    let agent = pod.connect().await;
    let none = PauseError::Refused {
        request: "shared pid namespace",
        step: Step::ReaperAbsent,
        errno: Errno::NOENT,
    };
    assert_eq!(agent.client.shared_pid().await.err(), Some(none));
    assert!(File::open(pod.proc().join("ns/pid")).is_ok());
}

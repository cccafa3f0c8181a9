//! How pause itself ends, and how it does not.

use std::os::fd::AsFd;

use coracle_model::ContainerId;
use coracle_sandbox::pause::{Event, PauseClient, PauseError, Step};
use rustix::io::Errno;
use rustix::process::{Signal, WaitId, WaitIdOptions, pidfd_send_signal, waitid};

use super::harness::{Pod, until};

const WAIT: &str = "read x <&3";

#[tokio::test]
async fn the_death_of_pause_is_seen_and_reaped() {
    let pod = Pod::plain().await;
    let mut agent = pod.connect().await;
    pidfd_send_signal(&pod.pause.pidfd, Signal::KILL).unwrap();
    assert_eq!(agent.event().await, Event::Disconnected);
    assert_eq!(agent.event().await, Event::Died);
    assert!(!pod.proc().exists(), "pause is a zombie");
    let listed = agent.client.list().await;
    assert_eq!(listed, Err(PauseError::Disconnected { request: "list" }));
    let again = PauseClient::connect(pod.handle.as_fd()).await.err();
    assert_eq!(again, Some(PauseError::Agent { step: "connect to pause", errno: Errno::CONNREFUSED }));
}

#[tokio::test]
async fn a_second_connection_replaces_the_first() {
    let pod = Pod::plain().await;
    let mut first = pod.connect().await;
    let second = pod.connect().await;
    assert_eq!(first.event().await, Event::Disconnected);
    assert_eq!(first.client.list().await, Err(PauseError::Disconnected { request: "list" }));
    assert_eq!(second.client.list().await, Ok(vec![]));
}

#[tokio::test]
async fn termination_waits_for_the_last_child() {
    let pod = Pod::plain().await;
    let mut agent = pod.connect().await;
    let shell = agent.shell(Some(ContainerId::random()), WAIT).await;
    for signal in [Signal::HUP, Signal::INT, Signal::TERM, Signal::PIPE, Signal::USR1] {
        pidfd_send_signal(&pod.pause.pidfd, signal).unwrap();
    }
    assert_eq!(agent.client.list().await.unwrap().len(), 1);
    drop(shell);
    assert!(matches!(agent.event().await, Event::Exited(_)));
    assert_eq!(agent.event().await, Event::Disconnected);
    assert_eq!(agent.event().await, Event::Died);
    assert_eq!(pod.ledger().exits.len(), 1);
}

#[tokio::test]
async fn termination_of_an_empty_pause_ends_it() {
    let pod = Pod::plain().await;
    let mut agent = pod.connect().await;
    pidfd_send_signal(&pod.pause.pidfd, Signal::TERM).unwrap();
    assert_eq!(agent.event().await, Event::Disconnected);
    assert_eq!(agent.event().await, Event::Died);
}

#[tokio::test]
async fn shutdown_waits_for_everything() {
    let pod = Pod::plain().await;
    let mut agent = pod.connect().await;
    let refused = Err(PauseError::Refused { request: "shutdown", step: Step::Alive, errno: Errno::BUSY });
    let id = ContainerId::random();
    // A container, then an orphan of one.
    let mut shell = agent.shell(Some(id), "(read x <&3) & echo $!").await;
    let orphan: u32 = shell.line().parse().unwrap();
    agent.exited().await;
    assert_eq!(agent.client.shutdown().await, refused, "a container was not released");
    agent.client.release(id).await.unwrap();
    assert_eq!(agent.client.shutdown().await, refused, "an orphan lives");
    drop(shell);
    assert_eq!(agent.exited().await.pid, orphan);
    agent.client.shutdown().await.unwrap();
    assert_eq!(agent.event().await, Event::Disconnected);
    assert_eq!(agent.event().await, Event::Died);
}

#[tokio::test]
async fn an_idle_pause_never_wakes() {
    let pod = Pod::plain().await;
    let agent = pod.connect().await;
    agent.client.list().await.unwrap();
    let switches = || super::harness::status(pod.pause.pid, "voluntary_ctxt_switches");
    until("pause sleeps", || super::harness::status(pod.pause.pid, "State").starts_with('S')).await;
    let before = switches();
    tokio::time::sleep(std::time::Duration::from_millis(300)).await;
    assert_eq!(switches(), before);
}

#[tokio::test]
async fn a_pause_is_small() {
    let pod = Pod::with(|how| {
        how.network = true;
        how.ipc = true;
        how.host_name = Some("web-0");
    })
    .await;
    let agent = pod.connect().await;
    let mut shells = Vec::new();
    for _ in 0..3 {
        shells.push(agent.shell(Some(ContainerId::random()), WAIT).await);
    }
    let smaps = std::fs::read_to_string(pod.proc().join("smaps_rollup")).unwrap();
    let kilobytes = |field: &str| -> u32 {
        let line = smaps.lines().find_map(|line| line.strip_prefix(field)).unwrap();
        line.trim().strip_suffix(" kB").unwrap().parse().unwrap()
    };
    let (resident, share) = (kilobytes("Rss:"), kilobytes("Pss:"));
    println!("pause with three containers: {resident} kB resident, {share} kB as its share");
    assert!(resident <= 80, "{smaps}");
}

#[tokio::test]
async fn one_that_nobody_has_taken_over_is_reaped() {
    let pod = Pod::plain().await;
    let pid = pod.pause.pid;
    drop(pod);
    let left = waitid(WaitId::Pid(pid), WaitIdOptions::EXITED | WaitIdOptions::NOHANG);
    assert_eq!(left.unwrap_err(), Errno::CHILD, "it is neither alive nor a zombie");
}

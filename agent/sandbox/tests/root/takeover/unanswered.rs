//! A pause that lives and does not answer keeps its sandbox; one that is dead does not.

use std::fs::{self, File};
use std::os::fd::{AsFd, OwnedFd};
use std::task::Poll;
use std::time::Duration;

use coracle_sandbox::pause::PauseClient;
use coracle_sandbox::{Adoption, ContainerStage, Error, SandboxStage};
use rustix::net::{AddressFamily, SocketAddrUnix, SocketFlags, SocketType, connect, socket_with};
use rustix::process::{Pid, Signal, kill_process};

use super::killed::{Cut, run_agent_until};
use super::place::{Agent, DEADLINE, Kind, Owned, Place};

/// Runs until it is told to go on.
const WAITING: &str = "until [ -e /out/go ]; do busybox usleep 10000; done; echo ran >> /out/runs; echo ran";

/// A place where an agent was killed, with a pause that is stopped.
struct Stopped {
    owned: Owned,
    pause: Pid,
}

// === impl Stopped ===

impl Stopped {
    async fn new(script: &str, cut: Cut) -> Self {
        let owned = Owned::with_args(Kind::Plain, &["/bin/sh", "-c", script]).unwrap();
        run_agent_until(&owned.place, cut);
        let pause = pause(&owned.place).await.pid();
        kill_process(pause, Signal::STOP).unwrap();
        Self { owned, pause }
    }

    /// An agent that has asked in vain.
    async fn agent(&self) -> Agent {
        let agent = self.owned.place.agent().await;
        assert_eq!(agent.runtime.adopt(&self.owned.place.pod()).await.unwrap(), Adoption::Pending);
        agent
    }

    fn go_on(&self) {
        kill_process(self.pause, Signal::CONT).unwrap();
    }
}

async fn pause(place: &Place) -> PauseClient {
    let directory = File::open(place.sandbox()).unwrap();
    PauseClient::connect(directory.as_fd()).await.unwrap().0
}

fn only(agent: &Agent, place: &Place) -> ContainerStage {
    let seen = agent.see(place);
    assert_eq!(seen.containers.len(), 1, "{seen:#?}");
    seen.containers[0].stage.clone()
}

#[tokio::test]
async fn a_pause_that_does_not_answer_at_first_keeps_its_sandbox() {
    let stopped = Stopped::new(WAITING, Cut::Done).await;
    let place = &stopped.owned.place;
    let mut agent = stopped.agent().await;
    assert_eq!(agent.see(place).sandbox, SandboxStage::Ready);
    assert!(matches!(only(&agent, place), ContainerStage::Running { .. }));
    // What needs pause is refused, and none is made beside it.
    let refused = agent.runtime.ensure_sandbox(&place.pod()).await;
    assert!(matches!(refused, Err(Error::Unanswered(_))), "{refused:?}");
    let refused = agent.runtime.create_container(place.request()).await;
    assert!(matches!(refused, Err(Error::Unanswered(_))), "{refused:?}");

    stopped.go_on();
    agent.change().await;
    let seen = agent.see(place);
    assert_eq!((seen.sandbox, seen.sandbox_attempt), (SandboxStage::Ready, 0));
    agent.runtime.ensure_sandbox(&place.pod()).await.unwrap();
    place.go();
    let ended = agent.run(place).await;
    assert!(matches!(ended, ContainerStage::Exited { exit_code: 0, .. }), "{ended:?}");
    assert_eq!((place.runs(), place.log()), (1, vec!["stdout F ran".to_owned()]));
    agent.remove(place).await;
}

#[tokio::test]
async fn a_connection_that_breaks_between_two_answers_is_made_again() {
    let stopped = Stopped::new(WAITING, Cut::Done).await;
    let place = &stopped.owned.place;
    let mut agent = stopped.agent().await;
    // pause takes up connections in their order: it answers the agent's first request, and hangs up.
    let rival = knock(place);
    stopped.go_on();
    agent.change().await;
    assert_eq!(agent.see(place).sandbox, SandboxStage::Ready);
    place.go();
    let ended = agent.run(place).await;
    assert!(matches!(ended, ContainerStage::Exited { exit_code: 0, .. }), "{ended:?}");
    drop(rival);
    agent.remove(place).await;
}

fn knock(place: &Place) -> OwnedFd {
    let socket = socket_with(AddressFamily::UNIX, SocketType::SEQPACKET, SocketFlags::CLOEXEC, None).unwrap();
    connect(&socket, &SocketAddrUnix::new(place.sandbox().join("pause.sock")).unwrap()).unwrap();
    socket
}

#[tokio::test]
async fn what_was_created_is_started_once_pause_answers() {
    let stopped = Stopped::new(WAITING, Cut::Start).await;
    let place = &stopped.owned.place;
    let mut agent = stopped.agent().await;
    assert_eq!(only(&agent, place), ContainerStage::Created);
    let id = agent.see(place).containers[0].id;
    let refused = agent.runtime.start_container(&place.pod().uid, id).await;
    assert!(matches!(refused, Err(Error::Unanswered(_))), "{refused:?}");
    stopped.go_on();
    agent.change().await;
    place.go();
    let ended = agent.run(place).await;
    assert!(matches!(ended, ContainerStage::Exited { exit_code: 0, .. }), "{ended:?}");
    assert_eq!((agent.see(place).containers[0].id, place.runs()), (id, 1));
    agent.remove(place).await;
}

#[tokio::test]
async fn a_pause_that_dies_while_it_is_asked_costs_its_sandbox() {
    let stopped = Stopped::new(WAITING, Cut::Done).await;
    let place = &stopped.owned.place;
    let mut agent = stopped.agent().await;
    kill_process(stopped.pause, Signal::KILL).unwrap();
    agent.change().await;
    assert_eq!(agent.see(place).sandbox, SandboxStage::Dead);
    let ContainerStage::Exited { exit_code, reason, .. } = only(&agent, place) else { panic!() };
    assert_eq!((exit_code, reason.as_str()), (137, "ContainerStatusUnknown"));
    agent.runtime.ensure_sandbox(&place.pod()).await.unwrap();
    let seen = agent.see(place);
    assert_eq!((seen.sandbox, seen.sandbox_attempt), (SandboxStage::Ready, 1));
    agent.remove(place).await;
}

#[tokio::test]
async fn what_was_created_has_not_ended_with_its_pause() {
    let owned = Owned::new(Kind::Plain).unwrap();
    let place = &owned.place;
    run_agent_until(place, Cut::Start);
    let client = pause(place).await;
    kill_process(client.pid(), Signal::KILL).unwrap();
    let mut agent = place.agent().await;
    agent.take_over(place).await;
    let seen = agent.see(place);
    assert_eq!((seen.sandbox, seen.containers), (SandboxStage::Dead, vec![]));
    agent.remove(place).await;
}

#[tokio::test]
async fn a_pod_whose_pause_does_not_answer_can_be_removed() {
    let stopped = Stopped::new(WAITING, Cut::Done).await;
    let place = &stopped.owned.place;
    let agent = stopped.agent().await;
    let (uid, id) = (place.pod().uid.clone(), agent.see(place).containers[0].id);
    agent.runtime.stop_container(&uid, id, Duration::ZERO).await.unwrap();
    assert!(matches!(only(&agent, place), ContainerStage::Exited { exit_code: 137, .. }));
    assert_eq!(place.runs(), 0);
    agent.remove(place).await;
}

#[tokio::test]
async fn the_stop_signal_is_sent_when_pause_has_answered() {
    let script = "trap 'echo ran >> /out/runs; exit 7' TERM; while :; do busybox usleep 10000; done";
    let stopped = Stopped::new(script, Cut::Done).await;
    let place = &stopped.owned.place;
    let agent = stopped.agent().await;
    let (uid, id) = (place.pod().uid.clone(), agent.see(place).containers[0].id);
    let mut stop = Box::pin(agent.runtime.stop_container(&uid, id, DEADLINE));
    let waits = std::future::poll_fn(|context| Poll::Ready(stop.as_mut().poll(context).is_pending())).await;
    assert!(waits, "it waits for the container to end");
    stopped.go_on();
    stop.await.unwrap();
    assert!(matches!(only(&agent, place), ContainerStage::Exited { exit_code: 7, .. }));
    assert_eq!(place.runs(), 1);
    agent.remove(place).await;
}

#[tokio::test]
async fn an_end_that_is_on_no_record_is_in_the_ledger() {
    let owned = Owned::with_args(Kind::Plain, &["/bin/sh", "-c", "echo ran >> /out/runs; exit 5"]).unwrap();
    let place = &owned.place;
    let id = run_agent_until(place, Cut::Done);
    // An agent that could not write the record, for want of space, and had pause forget the container.
    let client = pause(place).await;
    let deadline = tokio::time::Instant::now() + DEADLINE;
    while client.release(id).await.is_err() {
        assert!(tokio::time::Instant::now() < deadline, "the program ends");
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
    drop(client);
    let mut agent = place.agent().await;
    agent.take_over(place).await;
    let ended = agent.run(place).await;
    assert!(matches!(ended, ContainerStage::Exited { exit_code: 5, .. }), "{ended:?}");
    assert_eq!(place.runs(), 1);
    agent.remove(place).await;
}

#[tokio::test]
async fn a_record_that_cannot_be_read_now_costs_nothing() {
    let owned = Owned::with_args(Kind::Plain, &["/bin/sh", "-c", WAITING]).unwrap();
    let place = &owned.place;
    run_agent_until(place, Cut::Done);
    // Whatever it is that the kernel says instead of the content.
    let record = place.sandbox().join("sandbox.json");
    let aside = record.with_extension("aside");
    fs::rename(&record, &aside).unwrap();
    fs::create_dir(&record).unwrap();
    let mut agent = place.agent().await;
    assert_eq!(agent.runtime.adopt(&place.pod()).await.unwrap(), Adoption::Pending);
    let refused = agent.runtime.ensure_sandbox(&place.pod()).await;
    assert!(matches!(refused, Err(Error::Unanswered(_))), "{refused:?}");
    fs::remove_dir(&record).unwrap();
    fs::rename(&aside, &record).unwrap();
    agent.change().await;
    place.go();
    let ended = agent.run(place).await;
    assert!(matches!(ended, ContainerStage::Exited { exit_code: 0, .. }), "{ended:?}");
    assert_eq!((place.runs(), place.log()), (1, vec!["stdout F ran".to_owned()]));
    agent.remove(place).await;
}

//! A start that was cut in two is completed, or was never begun.

use std::fs;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::Poll;
use std::thread;
use std::time::Instant;

use coracle_sandbox::{ContainerStage, SandboxStage};
use rustix::process::{Pid, Signal, kill_process};

use super::killed::{CUTS, Cut, run_agent_until};
use super::place::{DEADLINE, Kind, Owned};

/// Kills an agent there and lets another go on; its program runs exactly once.
async fn runs_once(kind: Kind, cut: Cut) {
    let Some(owned) = Owned::new(kind) else { return };
    let place = &owned.place;
    let id = run_agent_until(place, cut);
    let mut agent = place.agent().await;
    agent.take_over(place).await;

    let seen = agent.see(place);
    assert_eq!((seen.sandbox, seen.sandbox_attempt), (SandboxStage::Ready, 0));
    match cut {
        Cut::Spawn | Cut::Setup | Cut::Created | Cut::Record => {
            assert_eq!(seen.containers, [], "what was not created is given up");
            assert!(!place.cgroup().container(&id).exists(), "and nothing is left of it");
        }
        Cut::Link | Cut::Start | Cut::Order => {
            assert_eq!(seen.containers.len(), 1);
            let one = &seen.containers[0];
            assert_eq!((one.id, &one.stage), (id, &ContainerStage::Created), "what was created is kept");
        }
        Cut::SendStart | Cut::Executed | Cut::Done => {
            assert_eq!(seen.containers.len(), 1);
            assert_eq!(seen.containers[0].id, id);
            assert_ne!(seen.containers[0].stage, ContainerStage::Created, "what was ordered is done");
        }
    }

    let ended = agent.run(place).await;
    let ContainerStage::Exited { exit_code, reason, started_at, message, .. } = ended else { unreachable!() };
    assert_eq!((exit_code, reason.as_str(), message), (0, "Completed", None));
    assert!(started_at.is_some());
    assert_eq!(place.runs(), 1, "its program runs once");
    assert_eq!(place.log(), ["stdout F ran"]);
    assert_eq!(place.log_links().len(), 1, "its log can be found");
    agent.remove(place).await;
}

/// The same for a program that cannot be executed: it has not run, and why is known.
async fn fails_to_start(kind: Kind, cut: Cut) {
    let Some(owned) = Owned::with_args(kind, &["/bin/missing"]) else { return };
    let place = &owned.place;
    run_agent_until(place, cut);
    let mut agent = place.agent().await;
    agent.take_over(place).await;
    let ended = agent.run(place).await;
    let ContainerStage::Exited { exit_code, reason, started_at, message, .. } = ended else { unreachable!() };
    assert_eq!((exit_code, reason.as_str(), started_at), (128, "StartError", None));
    assert!(message.as_ref().is_some_and(|message| message.contains("/bin/missing")), "{message:?}");
    agent.remove(place).await;
}

macro_rules! wherever_it_is_killed {
    ($($name:ident: $kind:ident;)+) => {$(
        #[tokio::test]
        async fn $name() {
            for cut in CUTS {
                println!("killed at {cut:?}");
                runs_once(Kind::$kind, cut).await;
            }
        }
    )+};
}

wherever_it_is_killed! {
    a_program_runs_once_wherever_the_agent_is_killed: Plain;
    a_program_with_a_terminal_runs_once_wherever_the_agent_is_killed: Terminal;
    a_program_in_a_shared_pid_namespace_runs_once_wherever_the_agent_is_killed: SharedPid;
    a_program_runs_once_without_cgroup_v2_wherever_the_agent_is_killed: Legacy;
}

#[tokio::test]
async fn a_program_that_cannot_be_executed_is_told_wherever_the_agent_is_killed() {
    for cut in CUTS {
        println!("killed at {cut:?}");
        fails_to_start(Kind::Plain, cut).await;
    }
}

#[test]
fn agents_one_after_another_start_a_program_once() {
    let owned = Owned::new(Kind::Plain).unwrap();
    let place = &owned.place;
    let id = run_agent_until(place, Cut::SendStart);
    let init = place.cgroup().container(&id).pids().unwrap();
    let init = Pid::from_raw(i32::try_from(init[0]).unwrap()).unwrap();
    // It cannot heed what it is told, so each agent tells it again.
    kill_process(init, Signal::STOP).unwrap();
    for _ in 0..10 {
        with_an_agent(async {
            let mut agent = place.agent().await;
            agent.take_over(place).await;
            assert!(matches!(agent.see(place).containers[0].stage, ContainerStage::Running { .. }));
            // It is told by a task of its own.
            tokio::task::yield_now().await;
        });
    }
    with_an_agent(async {
        let mut agent = place.agent().await;
        agent.take_over(place).await;
        kill_process(init, Signal::CONT).unwrap();
        let ended = agent.run(place).await;
        assert!(matches!(ended, ContainerStage::Exited { exit_code: 0, .. }), "{ended:?}");
        assert_eq!(place.runs(), 1);
        agent.remove(place).await;
    });
}

/// Runs an agent that ends with all its tasks.
fn with_an_agent(work: impl Future<Output = ()>) {
    tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(work);
}

#[tokio::test]
async fn why_a_program_was_not_executed_is_known_though_nobody_waited() {
    let owned = Owned::with_args(Kind::Plain, &["/bin/missing"]).unwrap();
    let place = &owned.place;
    let mut agent = place.agent().await;
    let pod = place.pod();
    agent.runtime.ensure_sandbox(&pod).await.unwrap();
    let id = agent.runtime.create_container(place.request()).await.unwrap();
    let mut start = Box::pin(agent.runtime.start_container(&pod.uid, id));
    let told = std::future::poll_fn(|context| Poll::Ready(start.as_mut().poll(context).is_pending())).await;
    assert!(told, "init is told to start, and has not answered");
    drop(start);
    let ended = agent.run(place).await;
    let ContainerStage::Exited { exit_code, reason, started_at, .. } = ended else { unreachable!() };
    assert_eq!((exit_code, reason.as_str(), started_at), (128, "StartError", None));
    agent.remove(place).await;
}

#[tokio::test]
async fn an_order_that_cannot_be_put_on_record_is_not_carried_out() {
    let owned = Owned::new(Kind::Plain).unwrap();
    let place = &owned.place;
    let mut agent = place.agent().await;
    let pod = place.pod();
    agent.runtime.ensure_sandbox(&pod).await.unwrap();
    let id = agent.runtime.create_container(place.request()).await.unwrap();
    // Where the record is to be made there is a directory.
    let temporary = place.sandbox().join(format!("containers/{id}/.container.json.new"));
    fs::create_dir(&temporary).unwrap();
    let error = agent.runtime.start_container(&pod.uid, id).await.unwrap_err();
    assert!(error.to_string().contains("container.json"), "{error}");
    assert_eq!(agent.see(place).containers[0].stage, ContainerStage::Created);
    fs::remove_dir(&temporary).unwrap();
    let ended = agent.run(place).await;
    assert!(matches!(ended, ContainerStage::Exited { exit_code: 0, .. }), "{ended:?}");
    assert_eq!(place.runs(), 1);
    agent.remove(place).await;
}

/// With so little memory not even what prepares the container fits in.
#[tokio::test]
async fn an_init_that_the_oom_killer_ends_is_told_with_its_reason() {
    let owned = Owned::new(Kind::Plain).unwrap();
    let place = &owned.place;
    let mut agent = place.agent().await;
    let pod = place.pod();
    agent.runtime.ensure_sandbox(&pod).await.unwrap();
    let mut request = place.request();
    request.container.resources.limits.memory = Some("64Ki".parse().unwrap());
    let error = agent.runtime.create_container(request).await.unwrap_err().to_string();
    assert!(error.contains("the OOM killer ended it: the container's memory limit is too low"), "{error}");
    // The sandbox is as good as before.
    assert!(matches!(agent.run(place).await, ContainerStage::Exited { exit_code: 0, .. }));
    agent.remove(place).await;
}

/// Whichever message it is that init is not there for any more.
#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn an_init_that_is_killed_is_told_as_killed() {
    let owned = Owned::new(Kind::Plain).unwrap();
    let place = &owned.place;
    let agent = place.agent().await;
    let pod = place.pod();
    agent.runtime.ensure_sandbox(&pod).await.unwrap();
    let deadline = Instant::now() + DEADLINE;
    let error = loop {
        assert!(Instant::now() < deadline, "no init was killed before it was done");
        let request = place.request();
        let (cgroup, stop) = (place.cgroup().container(&request.id), Arc::new(AtomicBool::new(false)));
        let killer = thread::spawn({
            let stop = Arc::clone(&stop);
            move || {
                while !stop.load(Ordering::Relaxed) {
                    let _ = cgroup.kill();
                }
            }
        });
        let created = agent.runtime.create_container(request).await;
        stop.store(true, Ordering::Relaxed);
        killer.join().unwrap();
        match created {
            Ok(id) => agent.runtime.remove_container(&pod.uid, id).await.unwrap(),
            Err(error) => break error.to_string(),
        }
    };
    assert!(error.contains("container-init ended before it reported: it was killed (signal 9)"), "{error}");
    agent.remove(place).await;
}

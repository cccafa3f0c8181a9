//! Lives of pods, told from beginning to end.

use std::sync::Arc;
use std::time::Duration;

use coracle_model::{ContainerState, PodPhase, RestartPolicy};
use tokio::time::{Instant, sleep, timeout};

use super::fake::{CALL, Fake, Verb};
use super::node::{Node, POLICY, SETTLE, uid};
use super::values::pod;
use crate::ports::ObservedContainer;
use crate::{Pods, WorkerPhase};

#[tokio::test(start_paused = true)]
async fn a_pod_runs_and_goes() {
    let node = Node::new();
    node.run(POLICY, &["first", "second"], &["web", "log"]).await;
    assert_eq!(node.see().status.phase, PodPhase::Pending);
    node.exit("first", 0);
    sleep(SETTLE).await;
    node.exit("second", 0);
    sleep(SETTLE).await;
    assert_eq!(node.see().status.phase, PodPhase::Running);
    let told = node.fake.told(&uid("a"));
    let of = |container: &str| -> Vec<&str> {
        told.iter()
            .filter(|it| it.container.as_deref() == Some(container))
            .map(|it| it.reason.as_str())
            .collect()
    };
    for container in ["first", "second", "web", "log"] {
        assert_eq!(of(container), ["Pulled", "Created", "Started"], "{container}");
    }

    // What is seen goes on record a while after.
    sleep(Duration::from_secs(2)).await;
    let calls = node.fake.with(|state| state.calls.len());
    for _ in 0..10 {
        node.pods.notify(&uid("a"));
        sleep(Duration::from_secs(3600)).await;
    }
    assert_eq!(node.fake.with(|state| state.calls.len()), calls, "a pod that runs is left alone");

    assert!(node.pods.terminate(&uid("a"), None));
    node.gone(Duration::from_secs(1)).await;
    let killing = |name: &str| {
        let told = node.fake.told(&uid("a"));
        told.iter().any(|it| it.reason == "Killing" && it.container.as_deref() == Some(name))
    };
    assert!(killing("web") && killing("log") && !killing("first"));
}

#[tokio::test(start_paused = true)]
async fn sandbox_images_and_volumes_are_prepared_side_by_side() {
    let node = Node::new();
    let began = Instant::now();
    node.pods.set_desired(Arc::new(pod("a", POLICY, &[], &["web", "log"])), None).unwrap();
    let mut changes = node.pods.changes();
    let running =
        |_: &u64| node.pods.get(&uid("a")).is_some_and(|seen| seen.status.phase == PodPhase::Running);
    changes.wait_for(running).await.unwrap();
    // record; sandbox, volumes, two images; two creations; start after start.
    assert!(began.elapsed() <= CALL * 5 + Duration::from_millis(1), "took {:?}", began.elapsed());
}

#[tokio::test(start_paused = true)]
async fn a_crash_loop_follows_the_kubelets_times() {
    let node = Node::new();
    node.run(POLICY, &[], &["web"]).await;
    for delay in [0, 10, 20, 40, 80, 160, 300, 300] {
        node.exit("web", 1);
        let began = Instant::now();
        sleep(SETTLE).await;
        if delay > 0 {
            let (reason, message) = node.waits().expect("it waits");
            assert_eq!(reason, "CrashLoopBackOff");
            let shown = crate::backoff::go_duration(Duration::from_secs(delay));
            assert_eq!(
                message.unwrap(),
                format!("back-off {shown} restarting failed container=web pod=pod_default(a)")
            );
            assert_eq!(node.see().status.phase, PodPhase::Running);
        }
        let starts = node.fake.count(Verb::Start);
        if delay > 0 {
            sleep(Duration::from_secs(delay) - 2 * SETTLE).await;
            assert_eq!(node.fake.count(Verb::Start), starts, "too early after {:?}", began.elapsed());
            sleep(2 * SETTLE).await;
            assert_eq!(node.fake.count(Verb::Start), starts + 1, "too late");
        }
    }
    sleep(Duration::from_secs(601)).await;
    node.exit("web", 1);
    sleep(SETTLE).await;
    assert_eq!(node.waits(), None, "a long run ends the loop");
    assert_eq!(node.see().status.container_statuses[0].restart_count, 9);
    node.well_behaved();
}

#[tokio::test(start_paused = true)]
async fn an_end_is_kept_and_its_sandbox_released() {
    let node = Node::new();
    node.run(RestartPolicy::OnFailure, &[], &["job"]).await;
    node.exit("job", 0);
    sleep(SETTLE).await;
    let seen = node.see();
    assert_eq!((seen.status.phase, seen.phase), (PodPhase::Succeeded, WorkerPhase::Terminated));
    assert!(matches!(seen.status.container_statuses[0].state, ContainerState::Terminated(_)));
    assert_eq!(node.fake.count(Verb::RemoveSandbox), 1);
    assert_eq!(node.fake.count(Verb::ReleaseLogs), 0, "its logs can still be read");

    // The next agent says the same.
    node.pods.detach().await;
    let record = node.fake.with(|state| state.records[&uid("a")].clone());
    let next = Node { pods: Pods::new(Arc::clone(&node.fake)), fake: Arc::clone(&node.fake) };
    next.pods.adopt(record).unwrap();
    sleep(SETTLE).await;
    assert_eq!(next.see().status, seen.status);
    next.pods.terminate(&uid("a"), None);
    next.gone(SETTLE).await;
}

#[tokio::test(start_paused = true)]
async fn an_end_is_on_record_before_the_containers_that_tell_it_go() {
    let node = Node::new();
    node.run(RestartPolicy::Never, &[], &["job"]).await;
    node.fake.fail(Verb::Save, 1);
    node.exit("job", 3);
    sleep(SETTLE).await;
    assert_eq!((node.see().status.phase, node.fake.count(Verb::RemoveSandbox)), (PodPhase::Failed, 0));
    sleep(Duration::from_secs(2)).await;
    assert_eq!(node.fake.count(Verb::RemoveSandbox), 1);
}

#[tokio::test(start_paused = true)]
async fn a_removal_overtakes_whatever_is_under_way() {
    for verb in [Verb::Save, Verb::Sandbox, Verb::Volumes, Verb::Image, Verb::Create, Verb::Start] {
        let node = Node::new();
        node.fake.hang(verb);
        node.run(POLICY, &[], &["web"]).await;
        if verb == Verb::Save {
            node.fake.heal();
        }
        node.pods.terminate(&uid("a"), Some(Duration::from_secs(1)));
        node.gone(Duration::from_secs(2)).await;
    }
}

#[tokio::test(start_paused = true)]
async fn a_removal_overtakes_a_back_off() {
    let node = Node::new();
    node.run(POLICY, &[], &["web"]).await;
    for _ in 0..2 {
        node.exit("web", 1);
        sleep(SETTLE).await;
    }
    assert_eq!(node.waits().unwrap().0, "CrashLoopBackOff");
    node.pods.terminate(&uid("a"), None);
    node.gone(SETTLE).await;
}

#[tokio::test(start_paused = true)]
async fn a_hanging_pod_delays_no_other() {
    let node = Node::new();
    node.fake.hang(Verb::Create);
    node.run(POLICY, &[], &["web"]).await;
    node.fake.heal();
    node.fake.hang(Verb::Stop);
    sleep(SETTLE).await;
    node.pods.terminate(&uid("a"), Some(Duration::ZERO));
    let mut other = pod("b", POLICY, &[], &["web"]);
    other.key.name = coracle_model::Name::label("other").unwrap();
    node.pods.set_desired(Arc::new(other), None).unwrap();
    sleep(SETTLE).await;
    assert_eq!(node.pods.get(&uid("b")).unwrap().status.phase, PodPhase::Running);
    assert_eq!(node.see().phase, WorkerPhase::Terminating);
}

#[tokio::test(start_paused = true)]
async fn containers_end_side_by_side_within_the_grace_period() {
    let node = Node::new();
    node.run(POLICY, &[], &["a", "b", "c"]).await;
    node.fake.with(|state| state.obey = None);
    let began = Instant::now();
    node.pods.terminate(&uid("a"), None);
    node.gone(Duration::from_secs(31)).await;
    assert!(began.elapsed() >= Duration::from_secs(30), "killed early, after {:?}", began.elapsed());
}

#[tokio::test(start_paused = true)]
async fn a_later_request_shortens_the_grace_period_and_lengthens_none() {
    let node = Node::new();
    node.run(POLICY, &[], &["web"]).await;
    node.fake.with(|state| state.obey = None);
    node.pods.terminate(&uid("a"), None);
    sleep(Duration::from_secs(5)).await;
    node.pods.terminate(&uid("a"), Some(Duration::from_secs(60)));
    sleep(SETTLE).await;
    assert_eq!(node.see().deletion.unwrap().grace, Duration::from_secs(30));
    node.pods.terminate(&uid("a"), Some(Duration::from_secs(2)));
    node.gone(Duration::from_secs(3)).await;
}

#[tokio::test(start_paused = true)]
async fn a_removal_goes_on_in_the_next_agent_with_what_is_left() {
    let node = Node::new();
    node.run(POLICY, &[], &["web"]).await;
    node.fake.with(|state| state.obey = None);
    node.pods.terminate(&uid("a"), None);
    sleep(Duration::from_secs(20)).await;
    node.pods.detach().await;
    let record = node.fake.with(|state| state.records[&uid("a")].clone());
    let next = Node { pods: Pods::new(Arc::clone(&node.fake)), fake: Arc::clone(&node.fake) };
    next.pods.adopt(record).unwrap();
    next.gone(Duration::from_secs(11)).await;
}

#[tokio::test(start_paused = true)]
async fn a_restarted_agent_touches_no_container() {
    let node = Node::new();
    node.run(POLICY, &["setup"], &["web", "log"]).await;
    node.exit("setup", 0);
    sleep(Duration::from_secs(2)).await;
    let before = node.see().status;
    node.pods.detach().await;
    let (record, calls) = node.fake.with(|state| (state.records[&uid("a")].clone(), state.calls.len()));
    let next = Node { pods: Pods::new(Arc::clone(&node.fake)), fake: Arc::clone(&node.fake) };
    next.pods.adopt(record.clone()).unwrap();
    next.pods.set_desired(Arc::clone(&record.pod), None).unwrap();
    sleep(Duration::from_secs(3600)).await;
    let made = next.fake.with(|state| state.calls[calls..].to_vec());
    // Whether it has been written in time nobody knows; the same is not written again.
    assert_eq!(made, [(Verb::Checkpoint, "a".to_owned())]);
    assert_eq!(next.see().status, before, "with the times of its conditions");
    assert!(next.pods.adopt(record).is_err(), "a key is taken over once");
}

#[tokio::test(start_paused = true)]
async fn a_new_sandbox_runs_the_init_containers_again() {
    let node = Node::new();
    node.run(POLICY, &["setup"], &["web"]).await;
    node.exit("setup", 0);
    sleep(SETTLE).await;
    node.fake.kill_sandbox(&node.pods, &uid("a"));
    sleep(SETTLE).await;
    let status = node.see().status;
    assert_eq!(status.init_container_statuses[0].restart_count, 1);
    assert!(matches!(status.init_container_statuses[0].state, ContainerState::Running(_)));
    node.exit("setup", 0);
    sleep(SETTLE).await;
    assert_eq!(node.see().status.container_statuses[0].restart_count, 1);
    assert!(node.fake.told(&uid("a")).iter().any(|event| event.reason == "SandboxChanged"));
    node.well_behaved();
}

/// The runtime ends the sandbox before it has removed all of it, and that is seen.
#[tokio::test(start_paused = true)]
async fn a_sandbox_that_ends_while_it_is_removed_is_removed_in_one_go() {
    let node = Node::new();
    node.run(POLICY, &[], &["web"]).await;
    node.fake.hang(Verb::RemoveSandbox);
    node.pods.terminate(&uid("a"), None);
    while node.fake.count(Verb::RemoveSandbox) == 0 {
        sleep(Duration::from_millis(10)).await;
    }
    node.fake.kill_sandbox(&node.pods, &uid("a"));
    sleep(SETTLE).await;
    assert_eq!(node.fake.count(Verb::RemoveSandbox), 1, "it goes on");
    assert!(!node.fake.told(&uid("a")).iter().any(|event| event.reason == "SandboxChanged"));
    node.fake.unhang(Verb::RemoveSandbox);
    node.gone(SETTLE).await;
    node.well_behaved();
}

#[tokio::test(start_paused = true)]
async fn a_pod_that_is_never_restarted_ends_with_its_sandbox() {
    let node = Node::new();
    node.run(RestartPolicy::Never, &[], &["web"]).await;
    node.fake.kill_sandbox(&node.pods, &uid("a"));
    sleep(SETTLE).await;
    assert_eq!(node.see().status.phase, PodPhase::Failed);
    assert_eq!(node.fake.count(Verb::Sandbox), 1);
}

#[tokio::test(start_paused = true)]
async fn a_successor_waits_until_the_name_is_free() {
    let node = Node::new();
    node.run(POLICY, &[], &["web"]).await;
    node.fake.with(|state| state.obey = None);
    node.pods.terminate(&uid("a"), None);
    node.pods.set_desired(Arc::new(pod("b", POLICY, &[], &["web"])), None).unwrap();
    node.pods.set_desired(Arc::new(pod("c", POLICY, &[], &["web"])), None).unwrap();
    sleep(Duration::from_secs(29)).await;
    assert_eq!(node.pods.get(&uid("c")).unwrap().status.phase, PodPhase::Pending);
    assert!(node.pods.get(&uid("b")).is_none(), "the latest successor counts");
    sleep(Duration::from_secs(2)).await;
    assert_eq!(node.pods.get(&uid("c")).unwrap().status.phase, PodPhase::Running);
    assert!(node.pods.get(&uid("a")).is_none());
    node.well_behaved();
}

#[tokio::test(start_paused = true)]
async fn a_manifest_that_comes_back_starts_the_pod_anew() {
    let node = Node::new();
    node.run(POLICY, &[], &["web"]).await;
    node.exit("web", 1);
    sleep(SETTLE).await;
    node.pods.terminate(&uid("a"), None);
    node.run(POLICY, &[], &["web"]).await;
    let status = node.see().status;
    assert_eq!((status.phase, status.container_statuses[0].restart_count), (PodPhase::Running, 0));
    node.pods.terminate(&uid("a"), None);
    node.pods.set_desired(Arc::new(pod("a", POLICY, &[], &["web"])), None).unwrap();
    node.pods.terminate(&uid("a"), None);
    node.gone(SETTLE).await;
}

#[tokio::test(start_paused = true)]
async fn a_missing_image_is_shown_and_tried_again() {
    let node = Node::new();
    node.fake.fail(Verb::Image, 2);
    node.run(POLICY, &[], &["web"]).await;
    for _ in 0..2 {
        let (reason, message) = node.waits().unwrap();
        assert_eq!((reason.as_str(), message.as_deref()), ("ErrImagePull", Some("Image was made to fail")));
        sleep(Duration::from_secs(1)).await;
        let (reason, message) = node.waits().unwrap();
        assert_eq!(reason, "ImagePullBackOff");
        assert_eq!(
            message.unwrap(),
            "Back-off pulling image \"busybox\": ErrImagePull: Image was made to fail"
        );
        let calls = node.fake.count(Verb::Image);
        while node.fake.count(Verb::Image) == calls && calls < 2 {
            sleep(Duration::from_millis(100)).await;
        }
        sleep(SETTLE).await;
    }
    let told = node.fake.told(&uid("a"));
    let told: Vec<_> = told.iter().map(|it| (it.reason.as_str(), it.message.as_str())).collect();
    let failed = [
        ("Failed", "Error: ErrImagePull"),
        ("BackOff", "Back-off pulling image \"busybox\""),
        ("Failed", "Error: ImagePullBackOff"),
    ];
    assert_eq!(told, [failed, failed].concat());
    node.pods.image_came(&uid("a"));
    sleep(SETTLE).await;
    assert_eq!(node.see().status.phase, PodPhase::Running, "an import is noticed at once");
}

#[tokio::test(start_paused = true)]
async fn a_failing_release_is_shown_and_tried_until_it_succeeds() {
    let node = Node::new();
    node.run(POLICY, &[], &["web"]).await;
    for verb in [Verb::Stop, Verb::RemoveSandbox, Verb::ReleaseVolumes, Verb::ReleaseLogs, Verb::Forget] {
        node.fake.fail(verb, 3);
    }
    node.pods.terminate(&uid("a"), None);
    sleep(SETTLE).await;
    assert!(node.fake.told(&uid("a")).iter().any(|event| event.reason == "FailedKillPod"));
    node.gone(Duration::from_secs(60)).await;
}

#[tokio::test(start_paused = true)]
async fn a_container_that_fails_to_be_made_holds_up_no_other() {
    let node = Node::new();
    node.fake.fail(Verb::Create, 1);
    node.run(POLICY, &[], &["web", "log"]).await;
    let status = node.see().status;
    let running = |one: &&coracle_model::ContainerStatus| matches!(one.state, ContainerState::Running(_));
    assert_eq!(status.container_statuses.iter().filter(running).count(), 1);
    assert_eq!(node.waits().unwrap().0, "Failed");
    sleep(Duration::from_secs(2)).await;
    assert_eq!(node.see().status.phase, PodPhase::Running);
    assert_eq!(node.waits(), None);
    node.well_behaved();
}

#[tokio::test(start_paused = true)]
async fn an_image_that_was_removed_before_its_container_is_made_is_looked_for_again() {
    let node = Node::new();
    node.fake.fail(Verb::Create, 1);
    node.fake.hang(Verb::Create);
    node.run(POLICY, &[], &["web"]).await;
    assert_eq!((node.fake.count(Verb::Image), node.fake.count(Verb::Create)), (1, 1));
    node.fake.fail(Verb::Image, 1);
    node.fake.unhang(Verb::Create);
    sleep(SETTLE).await;
    assert_eq!(node.fake.count(Verb::Image), 2);
    assert_eq!(node.waits().unwrap().0, "ErrImagePull", "what keeps it now");
    // The image's back-off, and then the container is made.
    sleep(Duration::from_secs(60)).await;
    assert_eq!(node.see().status.phase, PodPhase::Running);
    assert_eq!((node.fake.count(Verb::Image), node.fake.count(Verb::Create)), (3, 2));
    node.well_behaved();
}

#[tokio::test(start_paused = true)]
async fn what_was_begun_for_a_dead_sandbox_does_not_come_out_in_the_next() {
    let node = Node::new();
    node.run(POLICY, &["setup"], &["web"]).await;
    node.fake.hang(Verb::Create);
    node.exit("setup", 0);
    sleep(SETTLE).await;
    node.fake.kill_sandbox(&node.pods, &uid("a"));
    sleep(SETTLE).await;
    node.fake.heal();
    sleep(SETTLE).await;
    assert_eq!(node.see().status.init_container_statuses[0].restart_count, 1, "setup runs again first");
    node.well_behaved();
}

#[test]
fn an_idle_worker_is_small() {
    // The largest part of what an idle pod costs here; actions under way are boxed and gone when done.
    assert!(size_of::<crate::worker::Worker<Fake>>() < 1056, "{}", size_of::<crate::worker::Worker<Fake>>());
}

#[tokio::test(start_paused = true)]
async fn ending_the_node_ends_every_pod_and_takes_up_none() {
    let node = Node::new();
    node.run(POLICY, &[], &["web"]).await;
    node.fake.with(|state| state.obey = None);
    let pods = node.pods.clone();
    let patient = tokio::spawn(async move { pods.terminate_all(None).await });
    sleep(Duration::from_secs(1)).await;
    assert!(node.pods.set_desired(Arc::new(pod("b", POLICY, &[], &["web"])), None).is_err());
    timeout(Duration::from_secs(2), node.pods.terminate_all(Some(Duration::from_secs(1)))).await.unwrap();
    patient.await.unwrap();
    node.gone(SETTLE).await;
}

#[tokio::test(start_paused = true)]
async fn a_container_the_runtime_finds_after_all_is_seen_once() {
    let mut node = Node::new();
    node.run(POLICY, &[], &["web"]).await;
    sleep(Duration::from_secs(2)).await;
    let known = |node: &Node, change: &mut dyn FnMut(&mut Vec<ObservedContainer>)| {
        node.fake.with(|state| change(&mut state.pods.get_mut(&uid("a")).unwrap().observed.containers));
    };
    node.pods.detach().await;
    node.fake.forget_agent();
    let mut unknown = Vec::new();
    known(&node, &mut |containers| unknown.append(containers));
    node.fake.fail(Verb::Create, 100);
    node.pods = node.fake.take_over();
    sleep(SETTLE).await;
    assert_eq!(node.container("web").last_state.unwrap().reason, "ContainerStatusUnknown");

    known(&node, &mut |containers| containers.append(&mut unknown));
    node.pods.notify(&uid("a"));
    sleep(SETTLE).await;
    let web = node.container("web");
    assert!(matches!(web.state, ContainerState::Running(_)), "{web:?}");
    assert_eq!((web.restart_count, web.last_state), (0, None));
    node.pods.terminate(&uid("a"), None);
    node.gone(Duration::from_secs(40)).await;
}

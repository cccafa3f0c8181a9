//! What probes find, and what follows from it.

use std::time::Duration;

use coracle_model::{ContainerState, Pod, PodConditionType, PodPhase, ProbeKind, Probes, RestartPolicy};
use tokio::time::{Instant, sleep};

use super::fake::Verb;
use super::node::{Node, POLICY, SETTLE, uid};
use super::values::{pod, probe};
use crate::ports::{Findings, ProbeFailed};

fn probed(policy: RestartPolicy, probes: Probes) -> Pod {
    let mut pod = pod("a", policy, &[], &["web"]);
    pod.spec.containers[0].probes = probes;
    pod
}

fn readiness() -> Probes {
    Probes { readiness: Some(probe()), ..Probes::default() }
}

fn liveness() -> Probes {
    Probes { liveness: Some(probe()), ..Probes::default() }
}

fn fail(kind: ProbeKind, grace: Option<u64>) -> impl FnOnce(&mut Findings) {
    move |findings| {
        findings.failed = Some(ProbeFailed { kind, grace: grace.map(Duration::from_secs) });
    }
}

#[tokio::test(start_paused = true)]
async fn a_container_is_started_and_ready_when_its_probes_say_so() {
    let node = Node::new();
    let probes = Probes { startup: Some(probe()), readiness: Some(probe()), ..Probes::default() };
    node.run_pod(&probed(POLICY, probes)).await;
    let seen = || {
        let web = node.container("web");
        assert!(matches!(web.state, ContainerState::Running(_)), "{web:?}");
        let conditions = [PodConditionType::ContainersReady, PodConditionType::Ready];
        let [containers, pod] = conditions.map(|kind| node.condition(kind));
        assert_eq!((web.ready, web.ready), (containers, pod));
        (web.started, web.ready)
    };
    assert_eq!(seen(), (false, false));
    assert_eq!(node.see().status.phase, PodPhase::Running);
    node.find("web", |findings| findings.started = true).await;
    assert_eq!(seen(), (true, false));
    node.find("web", |findings| findings.ready = true).await;
    assert_eq!(seen(), (true, true));
    node.find("web", |findings| findings.ready = false).await;
    assert_eq!(seen(), (true, false));
    node.exit("web", 1);
    sleep(SETTLE).await;
    assert_eq!(seen(), (false, false), "a new container begins anew");
    node.well_behaved();
}

#[tokio::test(start_paused = true)]
async fn a_container_whose_liveness_probe_fails_is_ended_and_started_again() {
    let node = Node::new();
    node.run_pod(&probed(POLICY, liveness())).await;
    node.find("web", fail(ProbeKind::Liveness, None)).await;
    assert_eq!(node.told("Killing", "web"), ["Container web failed liveness probe, will be restarted"]);
    assert_eq!(node.container("web").restart_count, 1);
    assert_eq!(node.see().status.phase, PodPhase::Running);
    // It is a crash loop like any other.
    node.find("web", fail(ProbeKind::Liveness, None)).await;
    assert_eq!(node.waits().unwrap().0, "CrashLoopBackOff");
    node.well_behaved();
}

#[tokio::test(start_paused = true)]
async fn what_a_failed_probe_ends_has_the_probes_grace_period() {
    for (own, seconds) in [(None, 30), (Some(7), 7), (Some(0), 2)] {
        let node = Node::new();
        node.run_pod(&probed(POLICY, Probes { startup: Some(probe()), ..Probes::default() })).await;
        node.fake.with(|state| state.obey = None);
        let began = Instant::now();
        node.find("web", fail(ProbeKind::Startup, own)).await;
        while node.container("web").restart_count == 0 {
            assert!(!node.container("web").started);
            sleep(Duration::from_millis(10)).await;
        }
        assert_eq!(began.elapsed().as_secs(), seconds, "{own:?}");
        assert_eq!(node.told("Killing", "web"), ["Container web failed startup probe, will be restarted"]);
    }
}

#[tokio::test(start_paused = true)]
async fn a_removal_shortens_what_a_failed_probe_has_given() {
    let node = Node::new();
    let mut pod = probed(POLICY, liveness());
    pod.spec.termination_grace_period = Duration::from_secs(60);
    node.run_pod(&pod).await;
    node.fake.with(|state| state.obey = None);
    node.find("web", fail(ProbeKind::Liveness, None)).await;
    sleep(Duration::from_secs(5)).await;
    node.pods.terminate(&uid("a"), Some(Duration::from_secs(10)));
    node.gone(Duration::from_secs(11)).await;
    assert_eq!(node.told("Killing", "web").len(), 1, "it is ended once");
}

#[tokio::test(start_paused = true)]
async fn the_policy_says_what_follows_a_failed_probe() {
    for (policy, obeys, killing, phase) in [
        // Whatever the exit code, as in the kubelet: it was told that it would be restarted.
        (RestartPolicy::OnFailure, Some(0), "Container web failed liveness probe, will be restarted", None),
        (RestartPolicy::Never, Some(0), "Container web failed liveness probe", Some(PodPhase::Succeeded)),
        (RestartPolicy::Never, None, "Container web failed liveness probe", Some(PodPhase::Failed)),
    ] {
        let node = Node::new();
        node.run_pod(&probed(policy, liveness())).await;
        node.fake.with(|state| (state.obey, state.exit_code) = (None, 143));
        if let Some(code) = obeys {
            node.fake.with(|state| (state.obey, state.exit_code) = (Some(SETTLE / 10), code));
        }
        node.find("web", fail(ProbeKind::Liveness, None)).await;
        sleep(Duration::from_secs(31)).await;
        assert_eq!(node.told("Killing", "web"), [killing], "{policy:?}");
        match phase {
            None => assert_eq!(node.container("web").restart_count, 1, "{policy:?}"),
            Some(phase) => assert_eq!(node.see().status.phase, phase, "{policy:?}"),
        }
        node.well_behaved();
    }
}

#[tokio::test(start_paused = true)]
async fn the_next_agent_knows_what_was_found() {
    let mut node = Node::new();
    let mut pod = probed(POLICY, readiness());
    pod.spec.containers[0].probes.startup = Some(probe());
    node.run_pod(&pod).await;
    node.find("web", |findings| (findings.started, findings.ready) = (true, true)).await;
    let before = node.container("web");
    node.restart_agent().await;
    assert_eq!(node.container("web"), before);
    assert!(before.ready && before.started);
    assert_eq!(node.fake.probed(&uid("a")), [("web".to_owned(), false)]);
}

#[tokio::test(start_paused = true)]
async fn the_next_agent_goes_on_ending_what_failed_its_probe() {
    let mut node = Node::new();
    node.run_pod(&probed(POLICY, liveness())).await;
    node.fake.with(|state| state.obey = None);
    let began = Instant::now();
    node.find("web", fail(ProbeKind::Liveness, Some(20))).await;
    sleep(Duration::from_secs(12)).await;
    node.restart_agent().await;
    while node.container("web").restart_count == 0 {
        sleep(Duration::from_millis(10)).await;
    }
    assert_eq!(began.elapsed().as_secs(), 20, "with what was left of the grace period");
    assert_eq!(node.told("Killing", "web").len(), 1);
}

#[tokio::test(start_paused = true)]
async fn a_pod_that_ends_is_asked_for_its_readiness_only() {
    let node = Node::new();
    let mut pod = pod("a", POLICY, &[], &["web", "log"]);
    pod.spec.containers[0].probes = Probes { readiness: Some(probe()), ..liveness() };
    pod.spec.containers[1].probes = liveness();
    node.run_pod(&pod).await;
    node.find("web", |findings| findings.ready = true).await;
    node.fake.with(|state| state.obey = None);
    node.pods.terminate(&uid("a"), None);
    sleep(SETTLE).await;
    assert_eq!(node.fake.probed(&uid("a")), [("web".to_owned(), true)]);
    assert!(node.container("web").ready, "until it says no, or ends");
    node.find("web", |findings| findings.ready = false).await;
    assert!(!node.container("web").ready);
    node.gone(Duration::from_secs(31)).await;
}

#[tokio::test(start_paused = true)]
async fn nobody_is_probed_who_has_no_probes() {
    let node = Node::new();
    node.run(POLICY, &["setup"], &["web"]).await;
    node.exit("setup", 0);
    sleep(SETTLE).await;
    assert_eq!(node.fake.probed(&uid("a")), []);
    assert!(node.container("web").ready && node.container("web").started);
    assert_eq!(node.fake.count(Verb::Save), 1, "nothing is written for it");
}

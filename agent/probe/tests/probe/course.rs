//! The course of probes, on a virtual clock: a second takes no time, and happens exactly when it should.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use coracle_model::{Name, Pod, Probe, ProbeKind, Probes};
use coracle_probe::{Failed, Findings, Probed, Prober};

use crate::node::{Answer, Seen, TestNode, exec, id, pod, probe};

const YES: Answer = Answer::Exit(0, "");
const NO: Answer = Answer::Exit(1, "not well");

fn seconds(count: f64) -> Duration {
    Duration::from_secs_f64(count)
}

fn fresh(number: u8) -> Probed {
    Probed {
        id: id(number),
        name: Name::label("main").unwrap(),
        running: Duration::ZERO,
        known: None,
        readiness_only: false,
    }
}

/// Answers the nth time a program is run as the nth of its answers says; the last goes on.
fn answers(all: &[(&'static str, &[Answer])]) -> TestNode {
    let all: BTreeMap<_, _> =
        all.iter().map(|(name, answers)| (*name, (AtomicUsize::new(0), answers.to_vec()))).collect();
    TestNode::scripted(move |_, command| {
        let (count, answers) = &all[&*command[0]];
        let at = count.fetch_add(1, Ordering::Relaxed);
        answers.get(at).or(answers.last()).unwrap().clone()
    })
}

fn every(name: &str, period: f64) -> Probe {
    Probe { period: seconds(period), ..probe(exec(name)) }
}

fn found(prober: &Prober<TestNode>, pod: &Pod) -> Findings {
    prober.findings(&pod.uid).remove(&id(1)).expect("the container is probed")
}

fn is(started: bool, ready: bool) -> Findings {
    Findings { started, ready, failed: None }
}

fn failed(kind: ProbeKind) -> Option<Failed> {
    Some(Failed { kind, termination_grace_period: None })
}

/// Lets so much time pass; what is due by its end has been done.
async fn pass(time: f64) {
    tokio::time::sleep(seconds(time) + Duration::from_millis(1)).await;
    for _ in 0..50 {
        tokio::task::yield_now().await;
    }
}

#[tokio::test(start_paused = true)]
async fn a_probe_runs_at_the_start_and_then_every_period() {
    let prober = Prober::new(answers(&[("ready", &[NO, NO, YES])])).unwrap();
    let pod = pod(Probes { readiness: Some(every("ready", 10.0)), ..Probes::default() });
    prober.set_probed(&pod, vec![fresh(1)]);
    assert_eq!(found(&prober, &pod), is(true, false), "not ready before it is known");
    pass(25.0).await;
    assert_eq!(prober.node().executed("ready"), [0.0, 10.0, 20.0]);
    assert_eq!(found(&prober, &pod), is(true, true));
    let changes = prober.node().seen().into_iter().filter(|(_, seen)| matches!(seen, Seen::Changed(_)));
    assert_eq!(changes.map(|(at, _)| at).collect::<Vec<_>>(), [seconds(20.0)], "told once");
    assert_eq!(prober.node().told(), ["Unhealthy: Readiness probe failed: not well"; 2]);
}

#[tokio::test(start_paused = true)]
async fn initial_delays_count_from_the_start_of_the_container() {
    let prober = Prober::new(answers(&[("live", &[YES])])).unwrap();
    let late = Probe { initial_delay: seconds(7.0), ..every("live", 10.0) };
    let pod = pod(Probes { liveness: Some(late), ..Probes::default() });
    prober.set_probed(&pod, vec![Probed { running: seconds(2.0), ..fresh(1) }]);
    pass(16.0).await;
    assert_eq!(prober.node().executed("live"), [5.0, 15.0]);
}

#[tokio::test(start_paused = true)]
async fn readiness_goes_both_ways_by_its_thresholds() {
    let node = answers(&[("ready", &[YES, YES, NO, NO, YES, NO, NO, NO, YES, YES])]);
    let prober = Prober::new(node).unwrap();
    let two = Probe { success_threshold: 2, ..every("ready", 1.0) };
    let pod = pod(Probes { readiness: Some(two), ..Probes::default() });
    prober.set_probed(&pod, vec![fresh(1)]);
    let mut ready = Vec::new();
    for _ in 0..10 {
        pass(0.0).await;
        ready.push(found(&prober, &pod).ready);
        tokio::time::sleep(seconds(1.0) - Duration::from_millis(1)).await;
    }
    // Yes from the second success in a row, until the third failure in a row.
    assert_eq!(ready, [false, true, true, true, true, true, true, false, false, true]);
}

#[tokio::test(start_paused = true)]
async fn startup_protects_a_slow_start_and_hands_over() {
    let mut slow = vec![NO; 19];
    slow.push(YES);
    let prober = Prober::new(answers(&[("up", &slow), ("live", &[YES, NO]), ("ready", &[YES])])).unwrap();
    let startup = Probe { failure_threshold: 30, ..every("up", 1.0) };
    let pod = pod(Probes {
        startup: Some(startup),
        liveness: Some(Probe { failure_threshold: 2, ..every("live", 4.0) }),
        readiness: Some(every("ready", 60.0)),
    });
    prober.set_probed(&pod, vec![fresh(1)]);
    pass(18.5).await;
    assert_eq!(found(&prober, &pod), is(false, false));
    assert!(prober.node().executed("live").is_empty() && prober.node().executed("ready").is_empty());
    pass(20.0).await;
    assert_eq!(prober.node().executed("up").last(), Some(&19.0), "asked no more once it succeeded");
    // Readiness at once, liveness on its beat.
    assert_eq!(prober.node().executed("ready"), [19.0]);
    assert_eq!(prober.node().executed("live"), [20.0, 24.0, 28.0], "and no more once it failed");
    let failed = failed(ProbeKind::Liveness);
    assert_eq!(found(&prober, &pod), Findings { started: true, ready: true, failed });
}

#[tokio::test(start_paused = true)]
async fn a_startup_that_never_succeeds_fails_at_its_threshold() {
    let prober = Prober::new(answers(&[("up", &[NO]), ("live", &[YES])])).unwrap();
    let pod = pod(Probes {
        startup: Some(Probe { failure_threshold: 5, ..every("up", 2.0) }),
        liveness: Some(every("live", 1.0)),
        readiness: None,
    });
    prober.set_probed(&pod, vec![fresh(1)]);
    pass(7.9).await;
    assert_eq!(found(&prober, &pod).failed, None);
    pass(60.0).await;
    assert_eq!(found(&prober, &pod), Findings { failed: failed(ProbeKind::Startup), ..is(false, false) });
    assert_eq!(prober.node().executed("up"), [0.0, 2.0, 4.0, 6.0, 8.0], "on hold until it is replaced");
    assert!(prober.node().executed("live").is_empty());
    // The container that replaces it begins anew.
    prober.set_probed(&pod, vec![fresh(2)]);
    assert_eq!(prober.findings(&pod.uid).into_values().collect::<Vec<_>>(), [is(false, false)]);
    pass(1.0).await;
    assert_eq!(prober.node().executed("up").len(), 6);
}

#[tokio::test(start_paused = true)]
async fn what_takes_too_long_fails_and_is_given_up() {
    let prober = Prober::new(answers(&[("live", &[Answer::Takes(seconds(3600.0), 0)])])).unwrap();
    let pod = pod(Probes { liveness: Some(every("live", 10.0)), ..Probes::default() });
    prober.set_probed(&pod, vec![fresh(1)]);
    pass(60.0).await;
    assert_eq!(prober.node().told(), ["Unhealthy: Liveness probe failed: command \"live\" timed out"; 3]);
    let ends = prober.node().seen().into_iter().filter(|(_, seen)| matches!(seen, Seen::Ended(_)));
    let given_up = |at| (seconds(at), Seen::Ended(false));
    assert_eq!(ends.collect::<Vec<_>>(), [given_up(1.0), given_up(11.0), given_up(21.0)]);
    assert_eq!(found(&prober, &pod).failed, failed(ProbeKind::Liveness));
}

#[tokio::test(start_paused = true)]
async fn a_probe_slower_than_its_period_is_run_again_at_once() {
    let slow = Answer::Takes(seconds(2.5), 0);
    let prober = Prober::new(answers(&[("ready", &[slow.clone(), slow, YES])])).unwrap();
    let patient = Probe { timeout: seconds(5.0), ..every("ready", 1.0) };
    let pod = pod(Probes { readiness: Some(patient), ..Probes::default() });
    prober.set_probed(&pod, vec![fresh(1)]);
    pass(7.0).await;
    assert_eq!(prober.node().executed("ready"), [0.0, 2.5, 5.0, 6.0, 7.0]);
}

#[tokio::test(start_paused = true)]
async fn a_slow_target_delays_nobody() {
    let node = answers(&[("live", &[Answer::Takes(seconds(3600.0), 0)]), ("ready", &[YES])]);
    let prober = Prober::new(node).unwrap();
    let patient = Probe { timeout: seconds(3600.0), ..every("live", 1.0) };
    let pod =
        pod(Probes { liveness: Some(patient), readiness: Some(every("ready", 1.0)), ..Probes::default() });
    prober.set_probed(&pod, vec![fresh(1), fresh(2)]);
    pass(3.0).await;
    assert_eq!(prober.node().executed("ready"), [0.0, 0.0, 1.0, 1.0, 2.0, 2.0, 3.0, 3.0]);
}

#[tokio::test(start_paused = true)]
async fn what_cannot_be_run_counts_for_nothing() {
    let prober = Prober::new(answers(&[("live", &[Answer::Cannot("no such program")])])).unwrap();
    let pod = pod(Probes { liveness: Some(every("live", 10.0)), ..Probes::default() });
    prober.set_probed(&pod, vec![fresh(1)]);
    pass(25.0).await;
    // Tried three times each.
    assert_eq!(prober.node().executed("live"), [0.0, 0.0, 0.0, 10.0, 10.0, 10.0, 20.0, 20.0, 20.0]);
    assert_eq!(found(&prober, &pod), is(true, true));
    let told = "Unhealthy: Liveness probe errored and resulted in unknown state: no such program";
    assert_eq!(prober.node().told(), [told; 3]);
}

#[tokio::test(start_paused = true)]
async fn a_container_goes_on_as_it_is_while_others_come_and_go() {
    let prober = Prober::new(answers(&[("ready", &[YES])])).unwrap();
    let pod = pod(Probes { readiness: Some(every("ready", 10.0)), ..Probes::default() });
    prober.set_probed(&pod, vec![fresh(1)]);
    pass(5.0).await;
    prober.set_probed(&pod, vec![fresh(2), fresh(1)]);
    pass(6.0).await;
    let times = prober.node().executed("ready");
    assert_eq!((times.len(), times[2].round()), (3, 10.0), "{times:?}");
    prober.set_probed(&pod, Vec::new());
    assert!(prober.findings(&pod.uid).is_empty());
    pass(60.0).await;
    assert_eq!(prober.node().executed("ready").len(), 3);
}

#[tokio::test(start_paused = true)]
async fn who_is_no_longer_probed_is_no_longer_asked() {
    let prober = Prober::new(answers(&[("live", &[Answer::Takes(seconds(3600.0), 0)])])).unwrap();
    let patient = Probe { timeout: seconds(3600.0), ..every("live", 1.0) };
    let pod = pod(Probes { liveness: Some(patient), ..Probes::default() });
    prober.set_probed(&pod, vec![fresh(1)]);
    pass(2.0).await;
    prober.set_probed(&pod, Vec::new());
    pass(0.0).await;
    let ended = prober.node().seen().pop();
    assert_eq!(ended.map(|(_, seen)| seen), Some(Seen::Ended(false)), "what was under way is given up");
    assert!(prober.node().told().is_empty());
}

#[tokio::test(start_paused = true)]
async fn readiness_alone_of_a_pod_that_ends() {
    let prober = Prober::new(answers(&[("live", &[YES]), ("ready", &[YES, NO])])).unwrap();
    let pod = pod(Probes {
        liveness: Some(every("live", 1.0)),
        readiness: Some(Probe { failure_threshold: 1, ..every("ready", 1.0) }),
        startup: None,
    });
    prober.set_probed(&pod, vec![fresh(1)]);
    pass(0.0).await;
    assert_eq!(found(&prober, &pod), is(true, true));
    prober.set_probed(&pod, vec![Probed { readiness_only: true, ..fresh(1) }]);
    pass(2.0).await;
    assert_eq!((prober.node().executed("live").len(), prober.node().executed("ready").len()), (1, 3));
    assert_eq!(found(&prober, &pod), is(true, false));
}

#[tokio::test(start_paused = true)]
async fn an_agent_that_takes_over_knows_what_was_found_and_asks_within_a_period() {
    let prober = Prober::new(answers(&[("up", &[NO]), ("ready", &[YES])])).unwrap();
    let probes = Probes {
        startup: Some(Probe { failure_threshold: 1, ..every("up", 10.0) }),
        readiness: Some(every("ready", 10.0)),
        liveness: None,
    };
    let known = Some(is(true, true));
    let mut firsts = Vec::new();
    let pods: Vec<Arc<Pod>> = (0..20).map(|_| pod(probes.clone())).collect();
    for (number, pod) in pods.iter().enumerate() {
        let mut pod = Pod::clone(pod);
        pod.uid = format!("0b8a9c1e-8b5e-4b43-9d0c-0d6b8f3d6a{number:02}").parse().unwrap();
        let pod = Arc::new(pod);
        prober.set_probed(&pod, vec![Probed { running: seconds(500.0), known: known.clone(), ..fresh(1) }]);
        assert_eq!(found(&prober, &pod), is(true, true), "from the first moment on");
    }
    pass(9.999).await;
    firsts.extend(prober.node().executed("ready"));
    assert_eq!(firsts.len(), 20, "each within a period: {firsts:?}");
    assert!(firsts.iter().any(|at| *at < 5.0) && firsts.iter().any(|at| *at > 5.0), "spread: {firsts:?}");
    assert!(prober.node().executed("up").is_empty(), "who has started is not asked again");
}

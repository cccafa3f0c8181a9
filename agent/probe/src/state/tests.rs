use std::time::Duration;

use coracle_model::{Handler, Probe};
use proptest::prelude::*;

use super::*;

const GRACE: Duration = Duration::from_secs(7);

fn failed_by(kind: ProbeKind) -> Failed {
    Failed { kind, termination_grace_period: Some(GRACE) }
}

fn probe(success_threshold: u32, failure_threshold: u32) -> Probe {
    Probe {
        handler: Handler::Exec(vec!["true".to_owned()]),
        initial_delay: Duration::ZERO,
        timeout: Duration::from_secs(1),
        period: Duration::from_secs(10),
        success_threshold,
        failure_threshold,
        termination_grace_period: Some(GRACE),
    }
}

fn probes(startup: Option<u32>, liveness: Option<u32>, readiness: Option<(u32, u32)>) -> Probes {
    Probes {
        startup: startup.map(|failures| probe(1, failures)),
        liveness: liveness.map(|failures| probe(1, failures)),
        readiness: readiness.map(|(successes, failures)| probe(successes, failures)),
    }
}

/// Feeds results (`S`, `L`, `R` for a success, small for a failure); what was found after each, as
/// `started`, `ready` and the kind that failed.
fn found(probes: &Probes, known: Option<Findings>, results: &str) -> Vec<String> {
    let mut state = ContainerState::new(probes, known);
    let shown = |state: &ContainerState| {
        let Findings { started, ready, failed } = state.findings();
        let mut text = String::new();
        text.push(if *started { 's' } else { '-' });
        text.push(if *ready { 'r' } else { '-' });
        text.push_str(failed.map_or("", |failed| failed.kind.as_str()));
        text
    };
    let mut all = vec![shown(&state)];
    for result in results.chars() {
        let kind = match result.to_ascii_uppercase() {
            'S' => ProbeKind::Startup,
            'L' => ProbeKind::Liveness,
            _ => ProbeKind::Readiness,
        };
        let before = state.findings().clone();
        let changed = state.record(kind, result.is_ascii_uppercase());
        assert_eq!(changed, before != *state.findings(), "{result} of {results}");
        all.push(shown(&state));
    }
    all
}

#[test]
fn what_is_found_of_which_results() {
    let known = |started, ready| Some(Findings { started, ready, failed: None });
    let cases: &[(&str, Probes, Option<Findings>, &str, &str)] = &[
        ("no probe", probes(None, None, None), None, "", "sr"),
        ("liveness alone is ready", probes(None, Some(3), None), None, "LlL", "sr sr sr sr"),
        (
            "liveness fails in a row",
            probes(None, Some(3), None),
            None,
            "llLlll",
            "sr sr sr sr sr sr srLiveness",
        ),
        ("liveness is not taken back", probes(None, Some(1), None), None, "lL", "sr srLiveness srLiveness"),
        ("readiness begins as no", probes(None, None, Some((1, 3))), None, "R", "s- sr"),
        (
            "readiness needs a row",
            probes(None, None, Some((2, 2))),
            None,
            "RrRRrRrrR",
            "s- s- s- s- sr sr sr sr s- s-",
        ),
        ("startup holds", probes(Some(2), Some(1), None), None, "lsS", "-- -- -- sr"),
        ("startup holds readiness", probes(Some(9), None, Some((1, 1))), None, "RRSR", "-- -- -- s- sr"),
        ("startup fails", probes(Some(2), None, None), None, "sssS", "-- -- --Startup --Startup --Startup"),
        ("startup is asked once", probes(Some(1), None, None), None, "Ss", "-- sr sr"),
        (
            "readiness after liveness",
            probes(None, Some(1), Some((1, 1))),
            None,
            "lRr",
            "s- s-Liveness srLiveness s-Liveness",
        ),
        ("known as ready", probes(Some(1), None, Some((1, 2))), known(true, true), "srr", "sr sr sr s-"),
        ("known as started", probes(Some(1), None, None), known(true, false), "s", "sr sr"),
        ("known as not started", probes(Some(1), None, None), known(false, false), "S", "-- sr"),
        ("ready without started is no", probes(Some(1), None, Some((1, 1))), known(false, true), "", "--"),
    ];
    for (name, probes, known, results, expected) in cases {
        assert_eq!(found(probes, known.clone(), results).join(" "), *expected, "{name}");
    }
}

#[test]
fn what_failed_before_a_restart_of_the_agent_stays_failed() {
    let known = Findings { started: true, ready: true, failed: Some(failed_by(ProbeKind::Liveness)) };
    let state = ContainerState::new(&probes(None, Some(3), Some((1, 1))), Some(known));
    assert!(!state.may_run(ProbeKind::Liveness));
    assert!(state.may_run(ProbeKind::Readiness));
}

/// A series of results told in the plainest way: the last `threshold` of those that counted.
fn row(results: &[bool], success: bool, threshold: u32) -> bool {
    results.len() >= threshold as usize
        && results.iter().rev().take(threshold as usize).all(|one| *one == success)
}

proptest! {
    #[test]
    fn thresholds_are_respected_and_nothing_runs_before_startup(
        startup in proptest::option::of(1..4_u32),
        liveness in proptest::option::of(1..4_u32),
        readiness in proptest::option::of((1..4_u32, 1..4_u32)),
        results in proptest::collection::vec((0..3_usize, any::<bool>()), 0..200),
    ) {
        const KINDS: [ProbeKind; 3] = [ProbeKind::Startup, ProbeKind::Liveness, ProbeKind::Readiness];
        let mut state = ContainerState::new(&probes(startup, liveness, readiness), None);
        let mut ran: [Vec<bool>; 3] = Default::default();
        let (mut failed, mut ready) = (None, readiness.is_none() && startup.is_none());
        for (at, success) in results {
            let kind = KINDS[at];
            let started = startup.is_none() || ran[0].contains(&true);
            let has = [startup.is_some(), liveness.is_some(), readiness.is_some()][at];
            let may = has && match kind {
                ProbeKind::Startup => !started && failed.is_none(),
                ProbeKind::Liveness => started && failed.is_none(),
                ProbeKind::Readiness => started,
            };
            prop_assert_eq!(state.may_run(kind), may);
            state.record(kind, success);
            if may {
                ran[at].push(success);
                match kind {
                    ProbeKind::Startup if success => ready = readiness.is_none(),
                    ProbeKind::Startup if row(&ran[0], false, startup.unwrap()) => failed = Some(failed_by(kind)),
                    ProbeKind::Liveness if row(&ran[1], false, liveness.unwrap()) => failed = Some(failed_by(kind)),
                    ProbeKind::Readiness if row(&ran[2], true, readiness.unwrap().0) => ready = true,
                    ProbeKind::Readiness if row(&ran[2], false, readiness.unwrap().1) => ready = false,
                    _ => {}
                }
            }
            let started = startup.is_none() || ran[0].contains(&true);
            prop_assert_eq!(state.findings(), &Findings { started, ready, failed });
        }
    }
}

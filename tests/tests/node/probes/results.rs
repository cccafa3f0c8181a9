//! What the results of probes do, and when.

use std::fs;
use std::time::Duration;

use coracle_tests::manifests::{idle, shell, with};
use coracle_tests::needs_root;
use coracle_tests::node::{Node, container_id, container_status};
use coracle_tests::wait::{SOON, holds_for, wait_until};
use serde_json::json;

use super::{STUBBORN, between, by_shell, note, on_time, times, wait_message, wait_ready, with_data};

#[test]
fn liveness_ends_a_container_at_its_threshold_with_the_probes_grace() {
    needs_root!();
    on_time(|| {
        let node = Node::start();
        // The first is stubborn; the one after it can be asked to end.
        let main = format!(
            "{}; touch /data/well; trap 'exit 0' TERM; [ -e /data/second ] || trap '' TERM; touch /data/second; \
             while :; do sleep 3600 & wait $!; done",
            note("started")
        );
        let check = format!("[ -e /data/well ] || {{ {}; exit 1; }}", note("failed"));
        let mut live = by_shell(&check, 3);
        live["terminationGracePeriodSeconds"] = json!(1);
        // Until it is well.
        live["initialDelaySeconds"] = json!(2);
        let container = with(shell("c", &main), "livenessProbe", live);
        let long = with(
            with_data(&node, "lives", vec![container]),
            "spec.terminationGracePeriodSeconds",
            json!(600),
        );
        node.run(&long);
        let before = node.wait_running("lives");
        // Some probes find it well.
        wait_until("the container to be well", SOON, || node.path("data/well").exists());
        holds_for("a container that is well runs on", Duration::from_secs(3), || {
            node.pod("lives").is_some_and(|pod| container_id(&pod, "c") == container_id(&before, "c"))
        });
        fs::remove_file(node.path("data/well")).unwrap();
        let after =
            node.wait_pod("lives", "to be restarted", |pod| container_status(pod, "c")["restartCount"] == 1);
        let ended = &container_status(&after, "c")["lastState"]["terminated"];
        assert_eq!(ended["exitCode"], 137, "it does not end on SIGTERM: {ended}");
        let (failed, started) = (times(&node, "failed"), times(&node, "started"));
        assert_eq!(failed.len(), 3, "no more once it has failed: {failed:?}");
        for pair in failed.windows(2) {
            between("a probe", pair[1] - pair[0], 1.0, 1.0)?;
        }
        // The grace of the probe, not the pod's ten minutes.
        between("the restart", started[1] - failed[2], 1.0, 2.0)?;
        wait_message(&node, "lives", "Unhealthy", "Liveness probe failed: ");
        wait_message(&node, "lives", "Killing", "Container c failed liveness probe, will be restarted");
        node.finish();
        Ok(())
    });
}

#[test]
fn a_startup_probe_protects_a_slow_start_and_hands_over_to_liveness() {
    needs_root!();
    on_time(|| {
        let node = Node::start();
        // Ready to live after six seconds; its liveness would kill it after one.
        let main = format!(
            "{}; sleep 6; touch /data/up /data/well; {}; {STUBBORN}",
            note("started"),
            note("up-since")
        );
        let mut container = shell("c", &main);
        container["startupProbe"] = by_shell("[ -e /data/up ]", 30);
        container["livenessProbe"] = by_shell(&format!("{}; [ -e /data/well ]", note("live")), 1);
        container["readinessProbe"] = by_shell(&format!("{}; exit 0", note("ready")), 1);
        node.run(&with_data(&node, "slow", vec![container]));
        let started = node.wait_running("slow");
        let status = container_status(&started, "c");
        assert_eq!((&status["started"], &status["ready"]), (&json!(false), &json!(false)));
        let seen = wait_ready(&node, "slow", true);
        let status = container_status(&seen, "c");
        assert_eq!((&status["started"], &status["restartCount"]), (&json!(true), &json!(0)));
        wait_until("liveness to be probed", SOON, || !times(&node, "live").is_empty());
        let up = times(&node, "up-since")[0];
        between("readiness", times(&node, "ready")[0] - up, 0.0, 1.5)?;
        between("liveness", times(&node, "live")[0] - up, 0.0, 2.0)?;
        fs::remove_file(node.path("data/well")).unwrap();
        node.wait_pod("slow", "to be restarted", |pod| container_status(pod, "c")["restartCount"] == 1);
        wait_message(&node, "slow", "Unhealthy", "Startup probe failed: ");
        node.finish();
        Ok(())
    });
}

#[test]
fn a_startup_that_never_succeeds_ends_the_container_and_its_policy_applies() {
    needs_root!();
    on_time(|| {
        let node = Node::start();
        let run = |name: &str, policy: &str| {
            let main = format!(
                "{}; trap '{}; exit 0' TERM; while :; do sleep 0.05; done",
                note(&format!("{name}-started")),
                note(&format!("{name}-asked"))
            );
            let startup = by_shell(&format!("{}; exit 1", note(&format!("{name}-probed"))), 3);
            let container = with(shell("c", &main), "startupProbe", startup);
            node.run(&with(with_data(&node, name, vec![container]), "spec.restartPolicy", json!(policy)));
        };
        run("never", "Never");
        run("always", "Always");
        let ended = node.wait_pod("never", "to end", |pod| {
            pod["status"]["phase"] == "Succeeded" || pod["status"]["phase"] == "Failed"
        });
        // It ended well, when it was asked to.
        assert_eq!(ended["status"]["phase"], "Succeeded");
        node.wait_pod("always", "to be restarted", |pod| container_status(pod, "c")["restartCount"] == 1);
        for name in ["never", "always"] {
            let (started, asked, probed) = (
                times(&node, &format!("{name}-started")),
                times(&node, &format!("{name}-asked")),
                times(&node, &format!("{name}-probed")),
            );
            // At the start, a second later and another one later: the third is too many.
            between("the third probe", probed[2] - started[0], 1.95, 1.5)?;
            between("the end", asked[0] - probed[2], 0.0, 1.0)?;
        }
        assert_eq!(times(&node, "never-probed").len(), 3, "on hold once it has failed");
        wait_message(&node, "never", "Killing", "Container c failed startup probe");
        node.finish();
        Ok(())
    });
}

#[test]
fn initial_delays_and_periods_are_kept() {
    needs_root!();
    on_time(|| {
        let node = Node::start();
        let mut ready = by_shell(&note("probed"), 1);
        ready["initialDelaySeconds"] = json!(3);
        ready["periodSeconds"] = json!(2);
        ready["successThreshold"] = json!(3);
        let main = format!("{}; {STUBBORN}", note("started"));
        node.run(&with_data(&node, "delayed", vec![with(shell("c", &main), "readinessProbe", ready)]));
        wait_ready(&node, "delayed", true);
        let (started, probed) = (times(&node, "started")[0], times(&node, "probed"));
        between("the first probe", probed[0] - started, 2.95, 2.0)?;
        assert!(probed.len() >= 3, "three successes make it ready: {probed:?}");
        for (nth, at) in probed.iter().enumerate() {
            // From the first on, so that no delay adds up.
            between("a probe", at - probed[0], 2.0 * nth as f64 - 0.5, 2.5)?;
        }
        node.finish();
        Ok(())
    });
}

#[test]
fn a_hanging_target_delays_no_other_probe() {
    needs_root!();
    on_time(|| {
        let node = Node::start();
        let hangs = |script: &str| {
            let mut probe = by_shell(script, 1000);
            probe["timeoutSeconds"] = json!(3600);
            probe
        };
        let mut container = idle("c");
        container["livenessProbe"] = hangs("sleep 3600");
        container["readinessProbe"] = by_shell(&note("probed"), 3);
        let mut beside = with(idle("beside"), "livenessProbe", hangs("sleep 3600"));
        beside["readinessProbe"] = hangs("sleep 3600");
        node.run(&with_data(&node, "hangs", vec![container, beside]));
        wait_until("ten probes", SOON, || times(&node, "probed").len() >= 10);
        let probed = times(&node, "probed");
        between("the tenth probe", probed[9] - probed[0], 8.5, 2.5)?;
        node.finish();
        Ok(())
    });
}

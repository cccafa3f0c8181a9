//! From a manifest's appearance to its end.

use std::fs;
use std::time::{Duration, Instant};

use coracle_tests::manifests::{idle, pod, shell, with, with_host_path};
use coracle_tests::needs_root;
use coracle_tests::node::{Node, container_id, container_status, uid};
use coracle_tests::wait::{SOON, wait_until};
use serde_json::json;

#[test]
fn removal_asks_first_and_then_kills() {
    needs_root!();
    let node = Node::start();
    let data = node.path("data");
    let polite = "trap 'echo asked > /data/polite; exit 0' TERM; while :; do sleep 3600 & wait $!; done";
    let stubborn = "trap 'echo asked > /data/stubborn' TERM; while :; do sleep 3600 & wait $!; done";
    let mut both = pod("both", vec![shell("polite", polite), shell("stubborn", stubborn)]);
    both = with_host_path(both, "data", &data, "/data");
    both["spec"]["containers"][1]["volumeMounts"] = both["spec"]["containers"][0]["volumeMounts"].clone();
    both["spec"]["terminationGracePeriodSeconds"] = json!(2);
    node.run(&both);
    node.wait_running("both");
    let start = Instant::now();
    node.remove("both");
    node.wait_gone("both");
    assert!(start.elapsed() >= Duration::from_secs(2), "the stubborn one had its time");
    for name in ["polite", "stubborn"] {
        assert_eq!(fs::read_to_string(data.join(name)).unwrap(), "asked\n", "{name}");
    }
    node.finish();
}

#[test]
fn a_changed_manifest_is_a_new_pod() {
    needs_root!();
    let node = Node::start();
    node.run(&pod("changed", vec![idle("old")]));
    let before = node.wait_running("changed");
    node.run(&pod("changed", vec![idle("new")]));
    let after = node.wait_pod("changed", "to be replaced", |pod| {
        uid(pod) != uid(&before)
            && pod["status"]["containerStatuses"][0]["name"] == "new"
            && pod["status"]["containerStatuses"][0]["state"]["running"].is_object()
    });
    assert!(node.container_processes(&before, "old").is_empty());
    assert!(!node.container_processes(&after, "new").is_empty());
    node.finish();
}

/// As one is that `coracle get pod -o yaml` has written.
#[test]
fn a_changed_manifest_that_names_its_uid_is_the_next_pod_of_it() {
    needs_root!();
    let node = Node::start();
    let named = |container| with(pod("named", vec![idle(container)]), "metadata.uid", json!("given-1"));
    node.run(&named("old"));
    let before = node.wait_running("named");
    node.run(&named("new"));
    let after = node.wait_pod("named", "to be replaced", |pod| {
        let status = &pod["status"]["containerStatuses"][0];
        status["name"] == "new" && status["state"]["running"].is_object()
    });
    assert_eq!((uid(&before), uid(&after)), ("given-1", "given-1"));
    assert!(node.container_processes(&before, "old").is_empty());
    // And nothing more is done about it.
    node.run(&named("new"));
    node.run(&pod("marker", vec![idle("c")]));
    node.wait_running("marker");
    assert_eq!(container_id(&node.wait_running("named"), "new"), container_id(&after, "new"));
    node.remove("named");
    node.wait_gone("named");

    // One that is to follow a pod which is not done yet does not come when its manifest is gone.
    let slow = "trap 'sleep 2; exit 0' TERM; while :; do sleep 3600 & wait $!; done";
    let mut slow = with(pod("slow", vec![shell("old", slow)]), "metadata.uid", json!("given-2"));
    slow["spec"]["terminationGracePeriodSeconds"] = json!(30);
    node.run(&slow);
    node.wait_running("slow");
    slow["spec"]["containers"][0]["name"] = json!("new");
    node.run(&slow);
    node.wait_pod("slow", "to end", |pod| pod["metadata"]["deletionTimestamp"].is_string());
    node.remove("slow");
    node.wait_gone("slow");
    node.finish();
}

#[test]
fn the_same_manifest_written_again_changes_nothing() {
    needs_root!();
    let node = Node::start();
    node.run(&pod("same", vec![idle("c")]));
    let before = node.wait_running("same");
    node.run(&pod("same", vec![idle("c")]));
    // What comes after it in the directory has been acted on: so was it.
    node.run(&pod("marker", vec![idle("c")]));
    node.wait_running("marker");
    assert_eq!(container_id(&node.wait_running("same"), "c"), container_id(&before, "c"));
    node.finish();
}

#[test]
fn policies_decide_what_is_started_again() {
    needs_root!();
    let node = Node::start();
    let run = |name: &str, policy: &str, script: &str| {
        node.run(&with(pod(name, vec![shell("c", script)]), "spec.restartPolicy", json!(policy)));
    };
    run("never-0", "Never", "exit 0");
    run("never-5", "Never", "exit 5");
    run("on-failure-0", "OnFailure", "exit 0");
    run("always", "Always", "exit 1");
    node.wait_phase("never-0", "Succeeded");
    node.wait_phase("on-failure-0", "Succeeded");
    let failed = node.wait_phase("never-5", "Failed");
    let ended = &container_status(&failed, "c")["state"]["terminated"];
    assert_eq!((&ended["exitCode"], &ended["reason"]), (&json!(5), &json!("Error")));
    let looping = node.wait_pod("always", "to back off", |pod| {
        container_status(pod, "c")["state"]["waiting"]["reason"] == "CrashLoopBackOff"
    });
    assert_eq!(container_status(&looping, "c")["lastState"]["terminated"]["exitCode"], 1);
    assert_eq!(looping["status"]["phase"], "Running");
    node.finish();
}

#[test]
fn a_container_that_ended_keeps_no_descriptors_of_the_agent() {
    needs_root!();
    let node = Node::start();
    let ends = pod("half", vec![shell("done", "exit 0"), idle("runs")]);
    node.run(&with(ends, "spec.restartPolicy", json!("OnFailure")));
    node.wait_pod("half", "to be half done", |pod| {
        let state = |name| &container_status(pod, name)["state"];
        state("done")["terminated"].is_object() && state("runs")["running"].is_object()
    });
    let held = |what: &str| {
        let all = coracle_tests::processes::descriptors(node.agent_pid());
        all.into_values().filter(|target| target.contains(what)).count()
    };
    // The two of one pause, one of the container that runs.
    wait_until("the pidfds of what lives to be all", SOON, || held("[pidfd]") == 3);
    wait_until("the environment of what lives to be all", SOON, || held("coracle-environment") == 1);
    node.finish();
}

#[test]
fn a_pod_that_hangs_delays_no_other() {
    needs_root!();
    let node = Node::start();
    let stubborn = "trap '' TERM; while :; do sleep 3600; done";
    let mut hanging = pod("hanging", vec![shell("c", stubborn)]);
    hanging["spec"]["terminationGracePeriodSeconds"] = json!(3600);
    node.run(&hanging);
    let seen = node.wait_running("hanging");
    node.remove("hanging");
    node.run(&pod("other", vec![idle("c")]));
    node.wait_running("other");
    node.remove("other");
    node.wait_gone("other");
    assert!(node.pod("hanging").is_some(), "it has an hour");
    for pid in node.container_processes(&seen, "c") {
        coracle_tests::processes::kill(pid);
    }
    node.finish();
}

#[test]
fn an_image_that_is_not_there_is_said_to_be_missing() {
    needs_root!();
    let node = Node::start();
    let never = with(idle("c"), "image", json!("localhost/nowhere:1"));
    node.run(&pod("never", vec![with(never.clone(), "imagePullPolicy", json!("Never"))]));
    node.wait_pod("never", "to say ErrImageNeverPull", |pod| {
        container_status(pod, "c")["state"]["waiting"]["reason"] == "ErrImageNeverPull"
    });
    // A local image is no registry's: it cannot be asked for anew.
    node.run(&pod("always", vec![with(idle("c"), "imagePullPolicy", json!("Always"))]));
    let seen = node.wait_pod("always", "to fail to pull", |pod| {
        let reason = container_status(pod, "c")["state"]["waiting"]["reason"].as_str().unwrap_or_default();
        ["ErrImagePull", "ImagePullBackOff"].contains(&reason)
    });
    assert!(container_status(&seen, "c")["state"]["waiting"]["message"].is_string());
    node.finish();
}

#[test]
fn a_program_that_is_not_there_is_named() {
    needs_root!();
    let node = Node::start();
    let missing = with(idle("c"), "command", json!(["/bin/no-such-program"]));
    node.run(&with(pod("missing", vec![missing]), "spec.restartPolicy", json!("Never")));
    let seen = node.wait_pod("missing", "to name the program", |pod| {
        container_status(pod, "c")["state"].to_string().contains("/bin/no-such-program")
    });
    let state = &container_status(&seen, "c")["state"];
    let reasons = [&state["waiting"]["reason"], &state["terminated"]["reason"]];
    let known = ["CreateContainerError", "RunContainerError", "StartError", "ContainerCannotRun"];
    assert!(reasons.iter().any(|reason| known.iter().any(|one| *reason == one)), "{state}");
    node.finish();
}

#[test]
fn fifty_pods_at_once_all_run_and_all_go() {
    needs_root!();
    const PODS: usize = 50;
    let node = Node::start();
    for number in 0..PODS {
        node.run(&pod(&format!("p{number}"), vec![idle("c")]));
    }
    wait_until("all pods to run", 4 * SOON, || {
        node.pods().iter().filter(|pod| pod["status"]["phase"] == "Running").count() == PODS
    });
    node.finish();
}

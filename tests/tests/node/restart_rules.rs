//! Restart policies and rules of single containers, deadlines, and what probes find.

use std::time::{Duration, Instant};

use coracle_tests::manifests::{idle, pod, shell, with, with_shared};
use coracle_tests::needs_root;
use coracle_tests::node::{Node, container_id, container_status, uid};
use coracle_tests::wait::{SOON, wait_until};
use serde_json::{Value, json};

/// Notes each run of the container on the host; the script then knows which it is, as `$run`.
fn counted(name: &str, script: &str) -> Value {
    let count = format!("echo run >> /data/{name}; run=$(wc -l < /data/{name}); {script}");
    shell(name, &count)
}

fn on_exit(action: &str, code: i32) -> Value {
    json!([{"action": action, "exitCodes": {"operator": "In", "values": [code]}}])
}

fn condition<'a>(pod: &'a Value, kind: &str) -> &'a Value {
    let all = pod["status"]["conditions"].as_array().unwrap();
    all.iter().find(|condition| condition["type"] == kind).unwrap_or(&Value::Null)
}

#[test]
fn a_rule_restarts_what_its_policy_would_not() {
    needs_root!();
    let node = Node::start();
    let container = counted("c", "[ $run = 1 ] && exit 42; exit 7");
    let container = with(container, "restartPolicy", json!("Never"));
    let ruled = pod("ruled", vec![with(container, "restartPolicyRules", on_exit("Restart", 42))]);
    let ruled = with(ruled, "spec.restartPolicy", json!("Never"));
    node.run(&with_shared(ruled, "data", &node.path("data"), "/data"));
    let ended = node.wait_phase("ruled", "Failed");
    let status = container_status(&ended, "c");
    assert_eq!((&status["restartCount"], &status["state"]["terminated"]["exitCode"]), (&json!(1), &json!(7)));
    node.finish();
}

#[test]
fn a_container_has_a_policy_of_its_own() {
    needs_root!();
    let node = Node::start();
    let once = with(shell("once", "exit 1"), "restartPolicy", json!("Never"));
    node.run(&pod("mixed", vec![once, idle("always")]));
    let seen = node.wait_pod("mixed", "to have the one that runs once ended and the other running", |pod| {
        container_status(pod, "once")["state"]["terminated"].is_object()
            && container_status(pod, "always")["state"]["running"].is_object()
    });
    assert_eq!(container_status(&seen, "once")["restartCount"], 0);
    assert_eq!(seen["status"]["phase"], "Running");
    node.finish();
}

#[test]
fn all_containers_are_restarted_in_the_same_sandbox() {
    needs_root!();
    let node = Node::start();
    let trigger = with(
        counted(
            "trigger",
            "[ $run = 1 ] || exec sleep 3600; until [ -e /data/go ]; do usleep 10000; done; exit 88",
        ),
        "restartPolicy",
        json!("Never"),
    );
    let trigger = with(trigger, "restartPolicyRules", on_exit("RestartAllContainers", 88));
    let restarted = pod("restarted", vec![trigger, idle("other")]);
    let restarted = with(restarted, "spec.initContainers", json!([counted("setup", "exit 0")]));
    let restarted = with(restarted, "spec.restartPolicy", json!("Never"));
    node.run(&with_shared(restarted, "data", &node.path("data"), "/data"));
    let before = node.wait_running("restarted");
    assert_eq!(condition(&before, "AllContainersRestarting")["status"], "False");
    let pause = node.pause_pid(&before);
    std::fs::write(node.path("data/go"), "").unwrap();
    let after = node.wait_pod("restarted", "to run again", |pod| {
        let all = ["trigger", "other"].map(|name| container_status(pod, name));
        all.iter().all(|status| status["restartCount"] == 1 && status["state"]["running"].is_object())
    });
    assert_eq!(uid(&after), uid(&before));
    assert_eq!(node.pause_pid(&after), pause);
    let setup = container_status(&after, "setup");
    assert_eq!((&setup["restartCount"], &setup["state"]["terminated"]["exitCode"]), (&json!(1), &json!(0)));
    for name in ["setup", "trigger", "other"] {
        let last = &container_status(&after, name)["lastState"]["terminated"];
        assert_eq!(last["reason"], "RestartingAllContainers", "{name}: {last}");
    }
    assert_eq!(condition(&after, "AllContainersRestarting")["status"], "False");
    node.finish();
}

#[test]
fn a_pod_past_its_deadline_fails_also_when_the_agent_was_restarted_meanwhile() {
    needs_root!();
    let mut node = Node::start();
    node.run(&with(pod("limited", vec![idle("c")]), "spec.activeDeadlineSeconds", json!(5)));
    let start = Instant::now();
    node.wait_running("limited");
    node.kill_agent();
    node.start_agent();
    let ended = node.wait_phase("limited", "Failed");
    assert!(start.elapsed() >= Duration::from_secs(4), "it had its time: {:?}", start.elapsed());
    assert_eq!(ended["status"]["reason"], "DeadlineExceeded");
    let message = "Pod was active on the node longer than the specified deadline";
    assert_eq!(ended["status"]["message"], message);
    assert_eq!(container_status(&ended, "c")["state"]["terminated"]["exitCode"], 0);
    assert_eq!(condition(&ended, "Ready")["reason"], "PodFailed");
    node.finish();
}

#[test]
fn what_probes_find_is_seen_and_acted_upon() {
    needs_root!();
    let mut node = Node::start();
    let test = |file: &str| json!({"exec": {"command": ["test", "-e", format!("/data/{file}")]}, "periodSeconds": 1, "failureThreshold": 1});
    let mut probed = with(idle("c"), "readinessProbe", test("ready"));
    probed["livenessProbe"] = test("alive");
    let data = node.path("data");
    std::fs::create_dir(&data).unwrap();
    std::fs::write(data.join("alive"), "").unwrap();
    node.run(&with_shared(pod("probed", vec![probed]), "data", &data, "/data"));
    let seen = node.wait_running("probed");
    assert_eq!(container_status(&seen, "c")["ready"], false);
    std::fs::write(data.join("ready"), "").unwrap();
    let is_ready = |pod: &Value| container_status(pod, "c")["ready"] == true;
    let ready = node.wait_pod("probed", "to be ready", is_ready);
    assert_eq!(condition(&ready, "Ready")["status"], "True");

    // The next agent knows what is on record.
    let record = node.path("run/records").join(format!("{}.json", uid(&ready)));
    wait_until("it to be on record", SOON, || {
        let text = std::fs::read_to_string(&record).unwrap_or_default();
        let record: Value = serde_json::from_str(&text).unwrap_or_default();
        let mut conditions = record["seen"]["conditions"].as_array().into_iter().flatten();
        conditions.any(|it| it["kind"] == "Ready" && it["status"] == "True")
    });
    node.kill_agent();
    node.start_agent();
    let again = node.pod("probed").unwrap();
    assert!(is_ready(&again), "{again:#}");
    assert_eq!(condition(&again, "Ready"), condition(&ready, "Ready"), "with the time it became ready");

    std::fs::remove_file(data.join("alive")).unwrap();
    let restarted = node.wait_pod("probed", "to be restarted", |pod| {
        container_id_if_any(pod).is_some_and(|id| id != container_id(&ready, "c"))
    });
    assert!(container_status(&restarted, "c")["restartCount"].as_u64() >= Some(1));
    let events = node.coracle_ok(&["get", "events", "--for", "pod/probed", "--output", "json"]);
    assert!(events.contains("Container c failed liveness probe, will be restarted"), "{events}");
    node.finish();
}

fn container_id_if_any(pod: &Value) -> Option<String> {
    let id = container_status(pod, "c")["containerID"].as_str()?;
    id.rsplit('/').next().map(str::to_owned)
}

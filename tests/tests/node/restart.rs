//! The agent may be killed at any moment; pods do not notice.

use std::collections::BTreeSet;
use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::time::{Duration, Instant, SystemTime};

use coracle_tests::manifests::{idle, pod, shell, with, with_host_path};
use coracle_tests::needs_root;
use coracle_tests::node::{Node, container_id, container_status, uid};
use coracle_tests::processes::{descendants, is_alive, kill, name, signal};
use coracle_tests::random::Random;
use coracle_tests::wait::{SOON, wait_until};
use rustix::process::Signal;
use serde_json::json;

#[test]
fn a_running_pod_is_adopted_untouched() {
    needs_root!();
    let mut node = Node::start();
    node.run(&pod("kept", vec![idle("a"), idle("b")]));
    let before = node.wait_running("kept");
    let pids = ["a", "b"].map(|name| node.container_pid(&before, name));
    let pause = node.pause_pid(&before);
    for graceful in [false, true] {
        if graceful {
            node.stop_agent()
        } else {
            node.kill_agent()
        }
        assert!(is_alive(pause) && pids.iter().all(|pid| is_alive(*pid)), "pods live without an agent");
        node.start_agent();
        let after = node.wait_running("kept");
        assert_eq!(uid(&after), uid(&before));
        assert_eq!(node.pause_pid(&after), pause);
        for (name, pid) in ["a", "b"].into_iter().zip(pids) {
            assert_eq!(container_id(&after, name), container_id(&before, name));
            assert_eq!(node.container_pid(&after, name), pid);
            assert_eq!(container_status(&after, name)["restartCount"], 0);
            assert_eq!(
                container_status(&after, name)["state"]["running"]["startedAt"],
                container_status(&before, name)["state"]["running"]["startedAt"]
            );
        }
        assert_eq!(node.coracle_ok(&["exec", "kept", "-c", "a", "--", "echo", "alive"]), "alive\n");
    }
    node.finish();
}

#[test]
fn an_exit_while_no_agent_ran_keeps_its_code_and_time() {
    needs_root!();
    let mut node = Node::start();
    let data = node.path("data");
    let script = "until [ -e /data/go ]; do usleep 10000; done; exit 7";
    let ends = with_host_path(pod("ends", vec![shell("c", script)]), "data", &data, "/data");
    node.run(&with(ends, "spec.restartPolicy", json!("Never")));
    let seen = node.wait_running("ends");
    let pid = node.container_pid(&seen, "c");
    node.kill_agent();
    let before = seconds();
    fs::write(data.join("go"), "").unwrap();
    wait_until("the container to end", SOON, || !is_alive(pid));
    let after = seconds();
    // Time passes, so that the time of the exit and that of the restart can be told apart.
    std::thread::sleep(Duration::from_secs(2));
    node.start_agent();
    let seen = node.wait_phase("ends", "Failed");
    let ended = &container_status(&seen, "c")["state"]["terminated"];
    assert_eq!(ended["exitCode"], 7);
    let finished = parse_time(ended["finishedAt"].as_str().unwrap());
    assert!((before..=after).contains(&finished), "ended at {finished}, not in {before}..={after}");
    node.finish();
}

#[test]
fn a_manifest_taken_away_while_no_agent_ran_ends_its_pod() {
    needs_root!();
    let mut node = Node::start();
    node.run(&pod("gone", vec![idle("c")]));
    node.run(&pod("kept", vec![idle("c")]));
    node.wait_running("gone");
    let kept = node.wait_running("kept");
    node.kill_agent();
    node.remove("gone");
    node.start_agent();
    node.wait_gone("gone");
    assert_eq!(container_id(&node.wait_running("kept"), "c"), container_id(&kept, "c"));
    node.finish();
}

/// How many pods the storm starts and stops: few in every run, `CORACLE_TEST_STARTS=200` for the whole of it.
fn starts() -> usize {
    std::env::var("CORACLE_TEST_STARTS").ok().and_then(|text| text.parse().ok()).unwrap_or(24)
}

#[test]
fn kills_at_any_moment_leak_nothing_and_touch_no_survivor() {
    needs_root!();
    let mut node = Node::start();
    let mut random = Random::new();
    let script = "i=0; while :; do i=$((i+1)); echo $i; usleep 5000; done";
    node.run(&pod("survivor", vec![shell("c", script)]));
    let survivor = node.wait_running("survivor");
    let pid = node.container_pid(&survivor, "c");

    let total = starts();
    let mut present = BTreeSet::new();
    for number in 0..total {
        // Some pods end by themselves, with a code that tells them apart; some are ended.
        let name = format!("p{number}");
        let one = if number % 3 == 0 { shell("c", &format!("exit {}", number % 100)) } else { idle("c") };
        let never = if number % 3 == 0 { "Never" } else { "Always" };
        node.run(&with(pod(&name, vec![one]), "spec.restartPolicy", json!(never)));
        present.insert(number);
        if present.len() > 6 {
            let oldest = present.pop_first().unwrap();
            node.remove(&format!("p{oldest}"));
        }
        // From before the manifest is seen to after the container runs.
        std::thread::sleep(Duration::from_micros(random.below(120_000)));
        node.kill_agent();
        if random.below(4) == 0 {
            // Also in the middle of adopting what the one before left.
            node.launch_agent();
            std::thread::sleep(Duration::from_micros(random.below(60_000)));
            node.kill_agent();
        }
        node.start_agent();
    }

    for number in present {
        let name = format!("p{number}");
        if number % 3 == 0 {
            let code = number % 100;
            let seen = node.wait_phase(&name, if code == 0 { "Succeeded" } else { "Failed" });
            assert_eq!(container_status(&seen, "c")["state"]["terminated"]["exitCode"], code, "{name}");
        } else {
            let seen = node.wait_running(&name);
            assert_eq!(container_status(&seen, "c")["restartCount"], 0, "{name} was started once");
        }
    }
    let after = node.wait_running("survivor");
    assert_eq!(node.container_pid(&after, "c"), pid);
    assert_eq!(container_status(&after, "c")["restartCount"], 0);
    let log = node.logs("survivor", "c");
    for (line, number) in log.lines().zip(1..) {
        assert_eq!(line, number.to_string(), "a line was lost or doubled");
    }
    assert!(log.lines().count() > total, "the survivor wrote all the time");
    node.finish();
}

#[test]
fn a_pause_that_dies_takes_its_pod_with_it_and_the_pod_comes_back() {
    needs_root!();
    let node = Node::start();
    node.run(&pod("fragile", vec![idle("c")]));
    let before = node.wait_running("fragile");
    let old = node.container_pid(&before, "c");
    kill(node.pause_pid(&before));
    wait_until("the container to die with its pause", SOON, || !is_alive(old));
    let deadline = Instant::now() + SOON;
    let after = node.wait_pod("fragile", "to come back", |pod| {
        let status = container_status(pod, "c");
        status["state"]["running"].is_object()
            && status["containerID"] != container_status(&before, "c")["containerID"]
    });
    assert!(Instant::now() < deadline);
    assert!(is_alive(node.pause_pid(&after)));
    node.finish();
}

#[test]
fn a_shared_pid_namespace_that_ends_while_no_agent_runs_is_replaced() {
    needs_root!();
    let mut node = Node::start();
    let shared = pod("shared", vec![idle("a"), idle("b")]);
    node.run(&with(shared, "spec.shareProcessNamespace", json!(true)));
    let before = node.wait_running("shared");
    let pause = node.pause_pid(&before);
    let all = node.machine().cgroups().processes(&format!("pod{}", uid(&before)));
    let mut others = all.into_iter().filter(|pid| *pid != pause && name(*pid).starts_with("pause"));
    let first = others.next().expect("pid 1 of the shared namespace");
    let pids = ["a", "b"].map(|container| node.container_pid(&before, container));
    node.kill_agent();
    kill(first);
    wait_until("the containers to end with their namespace", SOON, || !pids.iter().any(|pid| is_alive(*pid)));
    node.start_agent();
    let after = node.wait_pod("shared", "to come back", |pod| {
        let status = |name| &container_status(pod, name)["state"]["running"];
        container_status(pod, "a")["restartCount"] == 1 && status("a").is_object() && status("b").is_object()
    });
    assert_ne!(node.pause_pid(&after), pause, "a new sandbox");
    node.finish();
}

#[test]
fn a_pause_that_does_not_answer_costs_nothing_and_holds_up_no_other_pod() {
    needs_root!();
    let mut node = Node::start();
    node.run(&pod("stopped", vec![idle("c")]));
    node.run(&pod("other", vec![idle("c")]));
    let before = ["stopped", "other"].map(|name| node.wait_running(name));
    let pause = node.pause_pid(&before[0]);
    let pids = before.each_ref().map(|pod| node.container_pid(pod, "c"));
    signal(pause, Signal::STOP);
    node.kill_agent();
    node.start_agent();
    let exec = |pod: &str| node.coracle(&["exec", pod, "--", "echo", "there"]);
    assert_eq!(exec("other").stdout, "there\n");
    // It is seen as it was, and what needs its pause says why it cannot be done.
    let seen = node.wait_running("stopped");
    assert_eq!(container_id(&seen, "c"), container_id(&before[0], "c"));
    let answer = exec("stopped");
    assert!(
        answer.code != 0 && answer.stderr.contains("has not answered this agent yet"),
        "{}",
        answer.stderr
    );

    signal(pause, Signal::CONT);
    wait_until("the pod to be taken over", SOON, || exec("stopped").stdout == "there\n");
    for (before, pid) in before.iter().zip(pids) {
        let after = node.wait_running(before["metadata"]["name"].as_str().unwrap());
        assert_eq!(node.container_pid(&after, "c"), pid);
        assert_eq!(container_status(&after, "c")["restartCount"], 0);
    }
    assert_eq!(node.pause_pid(&before[0]), pause);
    node.finish();
}

#[test]
fn a_pod_whose_pause_does_not_answer_is_removed() {
    needs_root!();
    let mut node = Node::start();
    node.run(&pod("stopped", vec![idle("c")]));
    let seen = node.wait_running("stopped");
    signal(node.pause_pid(&seen), Signal::STOP);
    node.kill_agent();
    node.remove("stopped");
    node.start_agent();
    node.wait_gone("stopped");
    node.finish();
}

#[test]
fn an_agent_waits_for_what_a_killed_one_was_about_to_start_and_not_for_another() {
    needs_root!();
    let mut node = Node::start();
    let answer = node.coracle(&["agent"]);
    assert!(answer.code == 1 && answer.stderr.contains("another agent runs with"), "{}", answer.stderr);
    node.kill_agent();
    // What was forked and has not executed its program holds the lock of whoever forked it.
    let lock = node.path("run/agent.lock");
    let hold = |how: &[&str], program: &[&str]| {
        let mut command = node.machine().command("flock");
        command.args(how).arg(&lock).args(program);
        command
    };
    let mut holder = hold(&["--close"], &["sleep", "1000"]).spawn().unwrap();
    wait_until("the lock to be held", SOON, || !hold(&["--nonblock"], &["true"]).status().unwrap().success());
    node.launch_agent();
    descendants(holder.id().cast_signed()).into_iter().for_each(kill);
    holder.wait().unwrap();
    wait_until("the agent to answer", SOON, || {
        node.http_get("/healthz").is_some_and(|answer| answer.starts_with("HTTP/1.1 200"))
    });
    node.finish();
}

#[test]
fn an_agent_takes_nothing_from_a_run_directory_that_others_can_write() {
    needs_root!();
    let mut node = Node::start();
    node.run(&pod("stays", vec![idle("c")]));
    let before = container_id(&node.wait_running("stays"), "c");
    node.stop_agent();
    let run = node.path("run");
    let open_to = |mode| fs::set_permissions(&run, fs::Permissions::from_mode(mode)).unwrap();
    open_to(0o777);
    let answer = node.coracle(&["agent"]);
    assert!(
        answer.code == 1 && answer.stderr.contains("is open to other users (mode 0777)"),
        "{}",
        answer.stderr
    );
    assert_eq!(answer.stderr.lines().count(), 1, "nothing was begun: {}", answer.stderr);
    open_to(0o700);
    node.start_agent();
    assert_eq!(container_id(&node.wait_running("stays"), "c"), before);
    node.finish();
}

fn seconds() -> u64 {
    SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap().as_secs()
}

/// Seconds since the epoch of a time in RFC 3339, in UTC.
fn parse_time(text: &str) -> u64 {
    let output = std::process::Command::new("date").args(["-u", "-d", text, "+%s"]).output().unwrap();
    String::from_utf8_lossy(&output.stdout).trim().parse().unwrap_or_else(|_| panic!("not a time: {text}"))
}

#[test]
fn a_record_that_cannot_be_read_ends_no_pod() {
    needs_root!();
    let mut node = Node::start();
    node.run(&pod("kept", vec![idle("c")]));
    let before = node.wait_running("kept");
    let pid = node.container_pid(&before, "c");
    let checkpoint = node.path(format!("root/checkpoints/{}.json", uid(&before)));
    let id = container_id(&before, "c");
    wait_until("the checkpoint", SOON, || fs::read_to_string(&checkpoint).is_ok_and(|it| it.contains(&id)));
    node.kill_agent();
    let record = node.path(format!("run/records/{}.json", uid(&before)));
    let aside = node.path("record");
    fs::rename(&record, &aside).unwrap();
    fs::create_dir(&record).unwrap();
    let refused = node.command(&["agent"]).output().unwrap();
    let said = String::from_utf8_lossy(&refused.stderr);
    assert!(!refused.status.success() && said.contains("the pod record cannot be read"), "{said}");
    assert!(is_alive(pid));
    fs::remove_dir(&record).unwrap();
    // A torn one, as a loss of power leaves it where the run directory is on a disk: the checkpoint counts.
    fs::write(&record, b"{\"boot\":").unwrap();
    node.start_agent();
    let after = node.wait_running("kept");
    assert_eq!(container_id(&after, "c"), id);
    assert!(is_alive(pid));
    fs::remove_file(record.with_extension("set-aside")).expect("kept for people to look at");
    node.finish();
}

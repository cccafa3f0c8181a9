//! Limits that hold.

use std::fs;
use std::time::{Duration, Instant};

use coracle_tests::manifests::{idle, pod, shell, with, with_host_path};
use coracle_tests::needs_root;
use coracle_tests::node::{Node, container_status, uid};
use coracle_tests::processes::ticks;
use coracle_tests::wait::{SOON, holds_for, wait_until};
use serde_json::json;

#[test]
fn a_container_over_its_memory_limit_is_oom_killed() {
    needs_root!();
    let node = Node::start();
    // dd fills one buffer of that size.
    let hog = with(
        shell("hog", "exec dd if=/dev/zero of=/dev/null bs=64M count=1"),
        "resources",
        json!({"limits": {"memory": "16Mi"}}),
    );
    node.run(&with(pod("hog", vec![hog, idle("other")]), "spec.restartPolicy", json!("Never")));
    let seen = node.wait_pod("hog", "to have its hog killed", |pod| {
        container_status(pod, "hog")["state"]["terminated"].is_object()
    });
    let ended = &container_status(&seen, "hog")["state"]["terminated"];
    assert_eq!((&ended["reason"], &ended["exitCode"]), (&json!("OOMKilled"), &json!(137)));
    // It may be only about to start.
    node.wait_pod("hog", "to have its neighbour run on", |pod| {
        container_status(pod, "other")["state"]["running"].is_object()
    });
    node.finish();
}

#[test]
fn a_container_that_only_exits_with_137_is_not_called_oom_killed() {
    needs_root!();
    let node = Node::start();
    let mut killed = pod("killed", vec![shell("c", "exit 137")]);
    killed["spec"]["restartPolicy"] = json!("Never");
    node.run(&killed);
    let seen = node.wait_phase("killed", "Failed");
    assert_eq!(container_status(&seen, "c")["state"]["terminated"]["reason"], "Error");
    node.finish();
}

#[test]
fn a_fork_bomb_stays_within_the_pods_process_limit() {
    needs_root!();
    const LIMIT: usize = 50;
    let node = Node::start_with(&format!("podPidsLimit: {LIMIT}\n"));
    // The container's first process sleeps, so that the bomb's failing forks do not end the container.
    let script = "mkfifo /fifo; until [ -e /data/go ]; do usleep 10000; done; \
                  sh -c 'f() { f | f & }; f' 2>/dev/null & exec cat /fifo";
    let bomb = shell("bomb", script);
    let bomb = with(bomb, "resources", json!({"limits": {"cpu": "200m"}}));
    let data = node.path("data");
    node.run(&with_host_path(pod("bomb", vec![bomb]), "data", &data, "/data"));
    let seen = node.wait_running("bomb");
    let cgroup = format!("pod{}", uid(&seen));
    // The bomb is real: it is lit only where the limit is seen to be there.
    let read = |file: &str| {
        let path = node.machine().cgroups().file(&cgroup, file).expect("the pod has a pids cgroup");
        fs::read_to_string(path).unwrap().trim().to_owned()
    };
    assert_eq!(read("pids.max"), LIMIT.to_string());
    fs::write(data.join("go"), "").unwrap();
    // The kernel's own count: those that ended and were not waited for hold their place.
    let count = || read("pids.current").parse::<usize>().unwrap();
    wait_until("the bomb to reach the limit", SOON, || count() >= LIMIT - 5);
    holds_for("no more processes than the limit", Duration::from_secs(2), || count() <= LIMIT);

    node.run(&pod("bystander", vec![idle("c")]));
    node.wait_running("bystander");
    node.finish();
}

#[test]
fn a_busy_loop_gets_its_cpu_limit() {
    needs_root!();
    const SHARE: f64 = 0.3;
    let node = Node::start();
    let busy = with(shell("busy", "while :; do :; done"), "resources", json!({"limits": {"cpu": "300m"}}));
    node.run(&pod("busy", vec![busy]));
    let seen = node.wait_running("busy");
    let pid = node.container_pid(&seen, "busy");
    let window = Duration::from_secs(3);
    let deadline = Instant::now() + 2 * SOON;
    // A busy machine may give less than the limit for a while; never more.
    loop {
        let (start, before) = (Instant::now(), ticks(pid).unwrap());
        std::thread::sleep(window);
        let used = (ticks(pid).unwrap() - before) as f64 / 100.0 / start.elapsed().as_secs_f64();
        assert!(used < SHARE * 1.1, "used {used:.3} of a core, over the limit of {SHARE}");
        if used > SHARE * 0.9 {
            break;
        }
        assert!(Instant::now() < deadline, "used only {used:.3} of a core, under the limit of {SHARE}");
    }
    node.finish();
}

#[test]
fn requests_become_weights() {
    needs_root!();
    let node = Node::start();
    let asks = with(idle("c"), "resources", json!({"requests": {"cpu": "500m", "memory": "8Mi"}}));
    node.run(&pod("asks", vec![asks]));
    let seen = node.wait_running("asks");
    assert_eq!(seen["status"]["qosClass"], "Burstable");
    let cgroups = node.machine().cgroups();
    let id = coracle_tests::node::container_id(&seen, "c");
    let file = if cgroups.is_unified() { "cpu.weight" } else { "cpu.shares" };
    let path = cgroups.file(&id, file).expect("the container has a cpu cgroup");
    let value: u64 = fs::read_to_string(path).unwrap().trim().parse().unwrap();
    if cgroups.is_unified() {
        assert!((1..100).contains(&value), "half a core weighs less than the default: {value}");
    } else {
        assert_eq!(value, 512);
    }
    node.finish();
}

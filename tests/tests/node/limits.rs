//! Limits that hold.

use std::fs;
use std::time::{Duration, Instant};

use coracle_tests::manifests::{idle, pod, shell, with, with_host_path};
use coracle_tests::needs_root;
use coracle_tests::node::{Node, container_status, uid};
use coracle_tests::processes::ticks;
use coracle_tests::wait::{SOON, holds_for, wait_until};
use rustix::process::{Pid, Resource, Rlimit, getrlimit, prlimit};
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
    let mut node = Node::start();
    let asks = |name: &str, cpu: &str| {
        let container = with(idle("c"), "resources", json!({"requests": {"cpu": cpu, "memory": "8Mi"}}));
        node.run(&pod(name, vec![container]));
        node.wait_running(name)
    };
    let seen = asks("asks", "500m");
    assert_eq!(seen["status"]["qosClass"], "Burstable");
    let cgroups = node.machine().cgroups();
    let (file, unified) = match cgroups.is_unified() {
        true => ("cpu.weight", true),
        false => ("cpu.shares", false),
    };
    let weight = |node: &Node, name: &str| {
        let path = node.machine().cgroups().file(name, file).expect("it has a cpu cgroup");
        fs::read_to_string(path).unwrap().trim().parse::<u64>().unwrap()
    };
    let value = weight(&node, &coracle_tests::node::container_id(&seen, "c"));
    if unified {
        assert!((1..100).contains(&value), "half a core weighs less than the default: {value}");
    } else {
        assert_eq!(value, 512);
    }

    // The class of burstable pods weighs what they ask for together: by cgroup v2 what 1,024 shares are.
    asks("more", "500m");
    node.run(&pod("free", vec![idle("c")]));
    node.wait_running("free");
    let one_cpu = if unified { 100 } else { 1024 };
    assert_eq!(weight(&node, "burstable"), one_cpu);
    assert_eq!(weight(&node, "besteffort"), if unified { 1 } else { 2 });
    node.kill_agent();
    node.start_agent();
    assert_eq!(weight(&node, "burstable"), one_cpu, "the next agent knows what they ask for");
    node.remove("more");
    node.wait_gone("more");
    wait_until("the class to weigh less", SOON, || weight(&node, "burstable") == value);
    node.remove("asks");
    node.wait_gone("asks");
    let least = if unified { 1 } else { 2 };
    wait_until("no pod to weigh anything", SOON, || weight(&node, "burstable") == least);
    node.finish();
}

#[test]
fn the_limit_of_open_files_is_that_of_services_and_not_the_agents() {
    needs_root!();
    let node = Node::start();
    // The soft limit alone: what root has lowered it cannot raise on every host.
    let agent = Pid::from_raw(node.agent_pid());
    let most = getrlimit(Resource::Nofile).maximum;
    prlimit(agent, Resource::Nofile, Rlimit { current: Some(512), maximum: most })
        .expect("the agent is there");
    // One that asks for more gets it.
    let script = "ulimit -S -n; ulimit -H -n";
    let raises = format!("{script}; ulimit -S -n $(ulimit -H -n) && echo raised; exec sleep 1000");
    node.run(&pod("files", vec![shell("c", &raises)]));
    let told = node.wait_log("files", "c", "raised");
    let limits: Vec<&str> = told.lines().collect();
    // A host that withholds CAP_SYS_RESOURCE grants no more than the agent has.
    let granted = most.filter(|most| *most < 524_288).unwrap_or(524_288).to_string();
    assert_eq!(limits[0], "1024");
    assert!(limits[1] == "524288" || limits[1] == granted, "{told}");
    assert_eq!(node.coracle_ok(&["exec", "files", "--", "sh", "-c", script]), limits[..2].join("\n") + "\n");
    // Told once, when the agent started, and not for each container.
    assert!(!node.agent_log().contains("resource limit Nofile"), "{}", node.agent_log());
    node.finish();
}

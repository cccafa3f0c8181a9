//! The agent as a service: what a service manager hands it, hears of it, and how it is stopped.

use std::fs::{self, Permissions};
use std::io::{Read, Write};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::{UnixDatagram, UnixListener, UnixStream};
use std::sync::mpsc::{self, Receiver};
use std::thread;
use std::time::{Duration, Instant};

use coracle_tests::machine::Machine;
use coracle_tests::manifests::{idle, pod, shell, with, with_host_path};
use coracle_tests::needs_root;
use coracle_tests::node::{Answer, Node, container_id, container_status, uid};
use coracle_tests::processes::is_alive;
use coracle_tests::wait::{SOON, deadline, wait_until};
use serde_json::json;

/// A service manager, as far as an agent speaks with it.
struct Manager {
    heard: Receiver<String>,
}

impl Manager {
    /// One that is found by these variables.
    fn new(machine: &Machine, watchdog: &str) -> (Self, Vec<(String, String)>) {
        let path = machine.path("notify");
        let socket = UnixDatagram::bind(&path).unwrap();
        let (told, heard) = mpsc::channel();
        // Ends with the test's process.
        thread::spawn(move || {
            let mut buffer = [0; 4096];
            while let Ok(length) = socket.recv(&mut buffer) {
                let _ = told.send(String::from_utf8_lossy(&buffer[..length]).into_owned());
            }
        });
        let variables = [("NOTIFY_SOCKET", path.to_str().unwrap()), ("WATCHDOG_USEC", watchdog)];
        (Self { heard }, variables.map(|(name, value)| (name.to_owned(), value.to_owned())).to_vec())
    }

    /// Waits until this is told.
    #[track_caller]
    fn wait(&self, wanted: &str) {
        self.wait_all(&[wanted]);
    }

    /// Waits until all of these are told, in whatever order.
    #[track_caller]
    fn wait_all(&self, wanted: &[&str]) {
        let mut missing = wanted.to_vec();
        let mut told = Vec::new();
        let end = deadline(SOON);
        while let Some(left) = end.checked_duration_since(Instant::now()).filter(|_| !missing.is_empty()) {
            let Ok(message) = self.heard.recv_timeout(left) else { break };
            missing.retain(|wanted| !message.contains(wanted));
            told.push(message);
        }
        assert!(missing.is_empty(), "{missing:?} was not told: {told:?}");
    }

    /// Waits until nothing is told for some time.
    #[track_caller]
    fn wait_silence(&self, time: Duration) {
        let end = deadline(SOON);
        while self.heard.recv_timeout(time).is_ok() {
            assert!(Instant::now() < end, "it is told again and again");
        }
    }
}

#[test]
fn a_service_manager_hears_of_readiness_status_life_and_end() {
    needs_root!();
    let machine = Machine::new();
    let (manager, variables) = Manager::new(&machine, "1000000");
    let mut node = Node::start_on(machine, "", variables);
    manager.wait_all(&["READY=1", "STATUS=No pods"]);
    manager.wait("WATCHDOG=1");
    node.run(&pod("kept", vec![idle("c")]));
    manager.wait("STATUS=1 pod, 1 running");
    let pod = node.wait_running("kept");
    let processes = [node.pause_pid(&pod), node.container_pid(&pod, "c")];
    for pid in processes {
        let environment = fs::read(format!("/proc/{pid}/environ")).unwrap_or_default();
        let environment = String::from_utf8_lossy(&environment);
        assert!(!environment.contains("NOTIFY_SOCKET"), "{environment}");
    }
    node.stop_agent();
    manager.wait("STOPPING=1");

    // Ready is said once the manifests were read: what is in them then is known to whoever asks.
    node.write_manifest("more.yaml", &coracle_tests::manifests::pod("more", vec![idle("c")]));
    node.launch_agent();
    manager.wait("READY=1");
    assert!(node.pod("more").is_some() && node.pod("kept").is_some(), "{:?}", node.pods());

    // An agent that hangs is not heard.
    manager.wait("WATCHDOG=1");
    node.suspend_agent();
    // Three times as long as it takes it to be heard.
    manager.wait_silence(Duration::from_millis(1500));
    node.resume_agent();
    manager.wait("WATCHDOG=1");
    node.finish();
}

#[test]
fn clients_of_an_agent_that_restarts_wait_for_the_next() {
    needs_root!();
    let mut node = Node::start();
    node.run(&pod("kept", vec![idle("c")]));
    let before = node.wait_running("kept");
    node.stop_agent();
    let path = node.path("run/coracle.sock");
    fs::remove_file(&path).unwrap();
    let listener = UnixListener::bind(&path).unwrap();
    fs::set_permissions(&path, Permissions::from_mode(0o600)).unwrap();
    node.hold_socket(listener);

    for _ in 0..2 {
        let mut client = UnixStream::connect(&path).unwrap();
        client.set_read_timeout(Some(SOON)).unwrap();
        client.write_all(b"GET /healthz HTTP/1.1\r\nHost: node\r\nConnection: close\r\n\r\n").unwrap();
        node.start_agent();
        let mut answer = String::new();
        client.read_to_string(&mut answer).unwrap();
        assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
        assert_eq!(container_id(&node.wait_running("kept"), "c"), container_id(&before, "c"));
        node.kill_agent();
    }
    node.finish();
}

#[test]
fn a_socket_that_clients_do_not_look_for_is_refused() {
    needs_root!();
    let mut node = Node::start();
    node.stop_agent();
    let elsewhere = UnixListener::bind(node.path("elsewhere.sock")).unwrap();
    let mut command = node.command_with_socket(&elsewhere);
    let answer = Answer::from(command.args(node.flags()).arg("agent").output().unwrap());
    let wanted = "make ListenStream= of coracle.socket and runDir of the configuration agree";
    assert!(answer.code == 1 && answer.stderr.contains(wanted), "{}", answer.stderr);
    node.start_agent();
    node.finish();
}

#[test]
fn pods_end_with_an_agent_that_is_stopped_where_that_is_configured_and_begin_again_with_the_next() {
    needs_root!();
    let machine = Machine::new();
    let (manager, variables) = Manager::new(&machine, "60000000");
    let mut node = Node::start_on(machine, "podsOnStop: end\n", variables);
    let out = node.path("out");
    let script = |name: &str| {
        format!(
            "echo {name} runs >> /out/order; trap 'sleep 1; echo {name} ended >> /out/order; exit 0' TERM; \
             while :; do sleep 3600 & wait $!; done"
        )
    };
    for (name, priority) in [("critical", 2_000_001_000), ("other", 0)] {
        let pod = with_host_path(pod(name, vec![shell("c", &script(name))]), "out", &out, "/out");
        let pod = with(pod, "spec.terminationGracePeriodSeconds", json!(600));
        node.run(&with(pod, "spec.priority", json!(priority)));
        node.wait_running(name);
    }
    let order = || fs::read_to_string(out.join("order")).unwrap_or_default();
    wait_until("both to run", SOON, || order().lines().count() == 2);

    // A crash is no stop.
    let uids = ["critical", "other"].map(|name| uid(&node.wait_running(name)).to_owned());
    node.kill_agent();
    node.start_agent();
    node.wait_running("critical");
    assert_eq!(order().lines().count(), 2, "{}", order());

    node.stop_agent();
    manager.wait("STATUS=Ends its pods");
    manager.wait("EXTEND_TIMEOUT_USEC=");
    let ended = order();
    let ended: Vec<&str> = ended.lines().skip(2).collect();
    assert_eq!(ended, ["other ended", "critical ended"]);
    let left = node.machine().processes().into_iter().filter(|pid| is_alive(*pid)).count();
    assert_eq!(left, 0, "nothing of the pods runs");

    node.start_agent();
    for (name, uid_before) in ["critical", "other"].into_iter().zip(uids) {
        let again = node.wait_running(name);
        assert_eq!(uid(&again), uid_before);
        assert_eq!(container_status(&again, "c")["restartCount"], 1, "{again:#}");
    }
    wait_until("both to run again", SOON, || order().lines().count() == 6);
    for name in ["critical", "other"] {
        node.remove(name);
    }
    node.finish();
}

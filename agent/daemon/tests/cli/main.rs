//! The command line as a user has it: the program itself, against a served node.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

// Of the server's tests: one node for both. Not all of it is used here.
#[allow(dead_code)]
#[path = "../../../server/tests/server/node.rs"]
mod node;

use std::fs::{self, File};
use std::future::pending;
use std::io::{BufRead, BufReader, Read, Write};
use std::process::{Command, Output, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use coracle_model::Event;
use coracle_server::Socket;
use jiff::Timestamp;
use rustix::event::{PollFd, PollFlags, Timespec};
use rustix::pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt};
use rustix::termios::{Termios, Winsize, tcgetattr, tcsetwinsize};

use node::{TestNode, back_off, ended, node_ready, pod, running, terminated, waiting};

struct Served {
    directory: tempfile::TempDir,
    node: Arc<TestNode>,
}

impl Served {
    fn new() -> Self {
        let directory = tempfile::tempdir().unwrap();
        let node = Arc::new(TestNode::new(directory.path().join("logs")));
        let socket = Socket::bind(&directory.path().join("run/coracle.sock")).unwrap();
        tokio::spawn(coracle_server::serve(socket, node.clone(), pending()));
        Self { directory, node }
    }

    fn command(&self, words: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_coracle"));
        command.arg("--run-dir").arg(self.directory.path().join("run")).args(words);
        command.stdin(Stdio::null());
        command
    }

    fn run(&self, words: &[&str]) -> (i32, String, String) {
        answer(&self.command(words).output().unwrap())
    }

    fn log(&self, container: &str, lines: &[&str]) {
        let directory = self.directory.path().join(format!("logs/default_web_{}/{container}", pod().uid));
        fs::create_dir_all(&directory).unwrap();
        let text: String =
            lines.iter().map(|line| format!("2026-01-01T00:00:00.000000001Z stdout F {line}\n")).collect();
        fs::write(directory.join("0.log"), text).unwrap();
    }
}

fn answer(output: &Output) -> (i32, String, String) {
    let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).unwrap();
    (output.status.code().unwrap_or(-1), text(&output.stdout), text(&output.stderr))
}

/// The words of every line: ages differ in width, not in number.
fn words(text: &str) -> Vec<Vec<&str>> {
    text.lines().map(|line| line.split_whitespace().collect()).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn pods_are_printed_in_every_form() {
    let served = Served::new();
    let (code, out, err) = served.run(&["get", "pods"]);
    assert_eq!((code, out.as_str()), (0, ""));
    assert!(err.starts_with("No resources found in default namespace.\n"), "{err}");
    assert!(err.contains("warning: /m/a.yaml: line 3: no\n"), "{err}");

    served.node.put(
        &pod(),
        vec![running("web", 2, Some(terminated(1))), waiting("side", "CrashLoopBackOff", 0, None)],
    );
    let (_, out, _) = served.run(&["get", "pods"]);
    let lines = words(&out);
    assert_eq!(lines[0], ["NAME", "READY", "STATUS", "RESTARTS", "AGE"]);
    assert_eq!(lines[1][..4], ["web", "1/2", "CrashLoopBackOff", "2"]);
    let (_, out, _) = served.run(&["get", "po", "-A", "-o", "wide"]);
    assert!(out.starts_with("NAMESPACE   NAME   READY   STATUS             RESTARTS   AGE"), "{out}");
    assert_eq!(
        words(&out)[1].iter().rev().take(3).copied().collect::<Vec<_>>(),
        ["<none>", "<none>", "node"]
    );
    assert_eq!(served.run(&["get", "pods", "-o", "name"]).1, "pod/web\n");
    let list: serde_json::Value =
        serde_json::from_str(&served.run(&["get", "pods", "-o", "json"]).1).unwrap();
    assert_eq!(
        (list["kind"].as_str(), list["items"][0]["metadata"]["name"].as_str()),
        (Some("List"), Some("web"))
    );
    let one: serde_json::Value =
        serde_json::from_str(&served.run(&["get", "pod/web", "-o", "json"]).1).unwrap();
    assert_eq!(one["kind"], "Pod");
    let yaml = served.run(&["get", "pod", "web", "-o", "yaml"]).1;
    let same: serde_json::Value = serde_saphyr::from_str(&yaml).unwrap();
    assert_eq!(same, one, "{yaml}");
    assert_eq!(served.run(&["get", "pods", "-n", "other"]).1, "");

    let (code, out, err) = served.run(&["get", "pod", "api"]);
    assert_eq!(
        (code, out.as_str(), err.as_str()),
        (1, "", "Error from server (NotFound): pods \"api\" not found\n")
    );
    served.node.happens(back_off());
    served.node.happens(of_another_life());
    let (code, out, _) = served.run(&["describe", "pod", "web"]);
    assert_eq!(code, 0);
    assert!(out.contains("Restart Count:  2"), "{out}");
    let events = &out[out.find("Events:").unwrap()..];
    assert!(events.contains("(x3 over ") && events.contains("coracle  Back-off restarting"), "{events}");
    assert!(!events.contains("before"), "of another pod that had its name: {events}");
}

/// An event of a pod that had the name before.
fn of_another_life() -> Event {
    let mut event = Event { name: "web.0".to_owned(), message: "before".to_owned(), ..back_off() };
    event.involved_object.uid = "another".to_owned();
    event
}

#[tokio::test(flavor = "multi_thread")]
async fn events_are_printed_in_every_form() {
    let served = Served::new();
    let (code, out, err) = served.run(&["get", "events"]);
    assert_eq!((code, out.as_str(), err.as_str()), (0, "", "No resources found in default namespace.\n"));
    served.node.happens(back_off());
    served.node.happens(of_another_life());
    let hostile =
        Event { message: "\x1b[2Jone\ntwo".to_owned(), last_timestamp: Timestamp::now(), ..node_ready() };
    served.node.happens(hostile);

    let (_, out, _) = served.run(&["get", "events"]);
    let lines = words(&out);
    assert_eq!(lines[0], ["LAST", "SEEN", "TYPE", "REASON", "OBJECT", "MESSAGE"]);
    assert_eq!(lines[1][1..], ["Warning", "BackOff", "pod/web", "Back-off", "restarting"]);
    let (age, rest) = lines[3].split_first().unwrap();
    assert!(age.ends_with('s') && age.len() <= 3, "{age}: it has just happened");
    assert_eq!(rest, ["Normal", "NodeReady", "node/node", "^[[2Jone..."], "one line, and no command");
    let (_, out, _) = served.run(&["get", "ev", "-A", "-o", "wide", "--types", "warning"]);
    assert!(out.starts_with("NAMESPACE   LAST SEEN   TYPE      REASON    OBJECT    SUBOBJECT"), "{out}");
    assert!(out.contains("spec.containers{web}   coracle, node   Back-off restarting"), "{out}");
    assert_eq!(words(&out)[1].last(), Some(&"web.1"));
    assert_eq!(words(&out).len(), 3, "{out}");
    assert_eq!(served.run(&["get", "events", "--types=Normal,Warning", "-o", "name"]).1.lines().count(), 3);
    assert_eq!(served.run(&["get", "events", "--for", "no/node", "-o", "name"]).1, "event/node.1\n");
    assert_eq!(served.run(&["get", "events", "-n", "other"]).1, "");
    let parse = |text: &str| serde_json::from_str::<serde_json::Value>(text).unwrap();
    let list = parse(&served.run(&["get", "events", "--for", "pod/web", "-o", "json"]).1);
    assert_eq!((list["kind"].as_str(), list["items"].as_array().map(Vec::len)), (Some("List"), Some(2)));
    let one = parse(&served.run(&["get", "event/web.1", "-o", "json"]).1);
    assert_eq!((one["kind"].as_str(), one["count"].as_u64()), (Some("Event"), Some(3)));

    let (code, _, err) = served.run(&["get", "events", "none"]);
    assert_eq!((code, err.as_str()), (1, "Error from server (NotFound): events \"none\" not found\n"));
    let (code, _, err) = served.run(&["get", "pods", "--for", "pod/web"]);
    assert_eq!(code, 1);
    assert!(err.contains("--for and --types choose among events"), "{err}");
    assert_eq!(served.run(&["get", "events", "--for", "web"]).0, 2);
    assert_eq!(served.run(&["describe", "events"]).0, 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_watch_of_events_prints_what_happens() {
    let served = Served::new();
    served.node.happens(back_off());
    let mut child = served.command(&["get", "events", "-w"]).stdout(Stdio::piped()).spawn().unwrap();
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines().map(Result::unwrap);
    assert!(lines.next().unwrap().starts_with("LAST SEEN"));
    assert!(lines.next().unwrap().contains("BackOff"));
    served.node.happens(node_ready());
    assert!(lines.next().unwrap().contains("NodeReady"));
    served.node.expires("web.1");
    served.node.happens(Event { message: "again".to_owned(), ..node_ready() });
    assert!(lines.next().unwrap().contains("again"), "an event that is kept no longer is no news");
    child.kill().unwrap();
    child.wait().unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_watch_prints_what_changes() {
    let served = Served::new();
    served.node.put(&pod(), vec![waiting("web", "ContainerCreating", 0, None)]);
    let mut child = served.command(&["get", "pods", "-w"]).stdout(Stdio::piped()).spawn().unwrap();
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines().map(Result::unwrap);
    assert!(lines.next().unwrap().starts_with("NAME"));
    assert!(lines.next().unwrap().contains("ContainerCreating"));
    served.node.put(&pod(), vec![running("web", 0, None), running("side", 0, None)]);
    assert_eq!(words(&lines.next().unwrap())[0][..3], ["web", "2/2", "Running"]);
    child.kill().unwrap();
    child.wait().unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn logs_are_printed() {
    let served = Served::new();
    served.node.put(&pod(), vec![ended("web", 0), ended("side", 0)]);
    served.log("web", &["one", "two", "three"]);
    served.log("side", &["aside"]);
    let (code, out, err) = served.run(&["logs", "web"]);
    assert_eq!((code, out.as_str()), (0, "one\ntwo\nthree\n"));
    assert_eq!(err, "Defaulted container \"web\" out of: web, side\n");
    assert_eq!(served.run(&["logs", "web", "-c", "web", "--tail", "1", "-f"]).1, "three\n");
    assert_eq!(served.run(&["logs", "pod/web", "-c", "web", "--limit-bytes=5"]).1, "one\nt");
    assert_eq!(
        served.run(&["logs", "web", "--all-containers", "--prefix", "--tail=1"]).1,
        "[pod/web/web] three\n[pod/web/side] aside\n"
    );
    let (code, _, err) = served.run(&["logs", "web", "-c", "no"]);
    assert_eq!(
        (code, err.as_str()),
        (1, "Error from server (BadRequest): container no is not valid for pod web\n")
    );
    let (code, _, err) = served.run(&["logs", "web", "-c", "web", "-p"]);
    assert_eq!(code, 1);
    assert!(err.contains("previous terminated container \"web\" in pod \"web\" not found"), "{err}");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_output_that_closes_is_no_error() {
    let served = Served::new();
    served.node.put(&pod(), vec![ended("web", 0)]);
    served.log("web", &["x".repeat(100_000).as_str(); 100]);
    for command in
        [&["logs", "web", "-c", "web"][..], &["completion", "bash"], &["get", "pods", "-o", "json"]]
    {
        let (reader, writer) = rustix::pipe::pipe().unwrap();
        drop(reader);
        let child =
            served.command(command).stdout(Stdio::from(writer)).stderr(Stdio::piped()).output().unwrap();
        assert_eq!((child.status.code(), child.stderr.as_slice()), (Some(141), &b""[..]), "{command:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn exec_passes_on_streams_and_exit_code() {
    let served = Served::new();
    served.node.put(&pod(), vec![running("web", 0, None)]);
    let (code, out, err) =
        served.run(&["exec", "web", "-c", "web", "--", "sh", "-c", "echo out; echo err >&2; exit 3"]);
    assert_eq!((code, out.as_str()), (3, "out\n"));
    assert_eq!(err, "err\ncommand terminated with exit code 3\n");

    let mut child = served
        .command(&["exec", "-i", "web", "-c", "web", "--", "wc", "-c"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    child.stdin.take().unwrap().write_all(&vec![b'x'; 1 << 20]).unwrap();
    let (code, out, _) = answer(&child.wait_with_output().unwrap());
    assert_eq!((code, out.trim()), (0, "1048576"));

    // Standard input that stays open does not hold the end up.
    let mut child = served
        .command(&["exec", "-i", "web", "-c", "web", "--", "true"])
        .stdin(Stdio::piped())
        .spawn()
        .unwrap();
    let _open = child.stdin.take();
    assert!(child.wait().unwrap().success());

    let (code, _, err) = served.run(&["exec", "web", "-c", "side", "--", "true"]);
    assert_eq!(code, 1);
    assert!(err.contains("container not found (\"side\")"), "{err}");
    assert_eq!(served.run(&["exec", "web"]).0, 2);
}

/// A user's terminal, and the program behind it.
#[tokio::test(flavor = "multi_thread")]
async fn a_terminal_is_lent_and_given_back() {
    let served = Served::new();
    served.node.put(&pod(), vec![running("web", 0, None)]);
    let master = openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC).unwrap();
    grantpt(&master).unwrap();
    unlockpt(&master).unwrap();
    let slave = ptsname(&master, Vec::new()).unwrap().into_string().unwrap();
    let slave = File::options().read(true).write(true).open(slave).unwrap();
    let size = |rows, columns| Winsize { ws_row: rows, ws_col: columns, ws_xpixel: 0, ws_ypixel: 0 };
    tcsetwinsize(&master, size(40, 100)).unwrap();
    let modes = |termios: &Termios| (termios.input_modes, termios.output_modes, termios.local_modes);
    let before = modes(&tcgetattr(&slave).unwrap());

    // A size arrives a moment after the program began, or the user's terminal changed.
    let script = "until stty size | grep '40 100'; do sleep 0.05; done; read line; echo got $line; \
                  until stty size | grep '20 50'; do sleep 0.05; done; \
                  trap 'echo interrupted; exit 5' INT; echo ready; while :; do sleep 0.05; done";
    let mut command = Command::new("setsid");
    let program = served.command(&["exec", "-it", "web", "-c", "web", "--", "sh", "-c", script]);
    command.args(["--ctty", "--wait"]).arg(program.get_program()).args(program.get_args());
    let stream = || Stdio::from(slave.try_clone().unwrap());
    let mut child = command.stdin(stream()).stdout(stream()).stderr(stream()).spawn().unwrap();

    let mut terminal = File::from(master);
    let mut seen = String::new();
    let mut read_until = |terminal: &mut File, wanted: &str| {
        let deadline = Instant::now() + Duration::from_secs(30);
        while !seen.contains(wanted) {
            assert!(Instant::now() < deadline, "{seen:?} has no {wanted:?}");
            let mut ready = [PollFd::new(terminal, PollFlags::IN)];
            let tick = Timespec { tv_sec: 1, tv_nsec: 0 };
            if rustix::event::poll(&mut ready, Some(&tick)).unwrap() == 0 {
                continue;
            }
            let mut buffer = [0; 1024];
            let length = terminal.read(&mut buffer).unwrap();
            seen.push_str(&String::from_utf8_lossy(&buffer[..length]));
        }
    };
    read_until(&mut terminal, "40 100");
    assert_ne!(modes(&tcgetattr(&slave).unwrap()), before, "the terminal is raw");
    tcsetwinsize(&terminal, size(20, 50)).unwrap();
    terminal.write_all(b"hello\r").unwrap();
    read_until(&mut terminal, "got hello");
    read_until(&mut terminal, "20 50");
    read_until(&mut terminal, "ready");
    // Typed, not a signal of this side: the program over there gets it.
    terminal.write_all(b"\x03").unwrap();
    read_until(&mut terminal, "interrupted");
    read_until(&mut terminal, "exit code 5");
    assert_eq!(child.wait().unwrap().code(), Some(5));
    assert_eq!(modes(&tcgetattr(&slave).unwrap()), before, "the terminal is as it was");
}

#[test]
fn without_an_agent_it_is_said_what_to_do() {
    let directory = tempfile::tempdir().unwrap();
    let output = Command::new(env!("CARGO_BIN_EXE_coracle"))
        .args(["get", "pods", "--run-dir"])
        .arg(directory.path())
        .output()
        .unwrap();
    let (code, out, err) = answer(&output);
    assert_eq!((code, out.as_str()), (1, ""));
    assert!(err.starts_with("error: cannot reach the agent at ") && err.contains("is it running?"), "{err}");
    assert_eq!(err.matches("No such file or directory").count(), 1, "{err}");
}

#[test]
fn a_configuration_error_names_file_line_and_field() {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("config.yaml");
    fs::write(&file, "runDir: /run/x\nrunDirr: /y\n").unwrap();
    let coracle = |arguments: [&str; 2]| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_coracle"));
        answer(&command.args(arguments).arg("--config").arg(&file).output().unwrap())
    };
    // Whoever only speaks with the agent needs to know where it is.
    let (code, _, err) = coracle(["get", "pods"]);
    assert_eq!(code, 1);
    assert!(
        err.starts_with("warning: the configuration is wrong (`coracle config check` says how)"),
        "{err}"
    );
    assert!(err.contains("cannot reach the agent at /run/x/coracle.sock: "), "{err}");
    let (code, _, err) = coracle(["image", "ls"]);
    assert_eq!(code, 1);
    let message = format!("error: {}:2:1: runDirr: unknown field; did you mean \"runDir\"?", file.display());
    assert!(err.starts_with(&message), "{err}");
    fs::write(&file, "runDir: x\n").unwrap();
    let (_, _, err) = coracle(["get", "pods"]);
    assert!(err.contains("runDir: Invalid value: \"x\": must be an absolute path"), "{err}");
}

#[test]
fn a_configuration_is_checked_and_shown() {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("config.yaml");
    let name = file.display();
    let coracle = |arguments: &[&str]| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_coracle"));
        answer(&command.arg("config").args(arguments).arg("--config").arg(&file).output().unwrap())
    };
    fs::write(&file, "podPidsLimit: 0\nmaxPods: 5\nkubeAPIQPS: 7\n").unwrap();
    let expected = format!(
        "{name}:1:15: podPidsLimit: Invalid value: 0: must be positive, or -1 for no limit\n\
         {name}:2:1: maxPods: not supported yet: the number of pods is not limited; leave it out\n"
    );
    assert_eq!(coracle(&["check"]), (1, expected, String::new()));
    fs::write(&file, "podPidsLimit: 9\nkubeAPIQPS: 7\nstaticPodURL: http://me:secret@h/\n").unwrap();
    let expected = format!(
        "warning: {name}:2:1: kubeAPIQPS: has no effect: the node has no API server to speak with\n\
         {name}: nothing is wrong\n"
    );
    assert_eq!(coracle(&["check"]), (0, expected, String::new()));

    let (code, shown, err) = coracle(&["show", "--node-name", "n1"]);
    assert_eq!((code, err.as_str()), (0, ""));
    assert!(shown.contains(&format!("podPidsLimit: 9  # {name}:1\n")), "{shown}");
    assert!(shown.contains("nodeName: n1  # --node-name\n"), "{shown}");
    assert!(shown.contains("containerLogMaxFiles: 5\n") && !shown.contains("secret"), "{shown}");
    let again = directory.path().join("shown.yaml");
    fs::write(&again, &shown).unwrap();
    let (code, _, _) = coracle(&["check", again.to_str().unwrap()]);
    assert_eq!(code, 0);
    let (_, json, _) = coracle(&["show", "-o", "json"]);
    let json: serde_json::Value = serde_json::from_str(&json).unwrap();
    assert_eq!(json["podPidsLimit"], 9);

    let (_, defaults, _) = coracle(&["defaults"]);
    fs::write(&again, defaults).unwrap();
    let expected = format!("{}: nothing is wrong\n", again.display());
    assert_eq!(coracle(&["check", again.to_str().unwrap()]), (0, expected, String::new()));
}

#[test]
fn a_configuration_is_checked_with_that_of_the_device_plugin_it_names() {
    let directory = tempfile::tempdir().unwrap();
    let (file, devices) = (directory.path().join("config.yaml"), directory.path().join("devices.yaml"));
    let check = || {
        let mut command = Command::new(env!("CARGO_BIN_EXE_coracle"));
        answer(&command.args(["config", "check"]).arg(&file).output().unwrap())
    };
    let (of_node, of_plugin) = (file.display(), devices.display());
    let named = format!("devicePluginConfig: {of_plugin}\n");
    fs::write(&file, &named).unwrap();
    let missing = format!(
        "{of_node}: nothing is wrong\n\
         devicePluginConfig: cannot read the configuration {of_plugin}: No such file or directory (os error 2)\n"
    );
    assert_eq!(check(), (1, missing, String::new()));

    fs::write(
        &devices,
        "resources:\n- name: coracle.dev/fuse\n  shares: 0\n  devices: []\namd: {shares: -1}\n",
    )
    .unwrap();
    let wrong = format!(
        "{of_plugin}:3:11: resources[0].shares: Invalid value: 0: must be between 1 and 4096, inclusive\n\
         {of_plugin}:4:3: resources[0].devices: Required value: at least one device\n\
         {of_plugin}:5:15: amd.shares: Invalid value: -1: must be between 1 and 4096, inclusive\n"
    );
    assert_eq!(check(), (1, format!("{of_node}: nothing is wrong\n{wrong}"), String::new()));
    // What is wrong in one of them keeps nobody from hearing what is in the other.
    fs::write(&file, format!("podPidsLimit: 0\n{named}")).unwrap();
    let limit = "podPidsLimit: Invalid value: 0: must be positive, or -1 for no limit";
    assert_eq!(check(), (1, format!("{of_node}:1:15: {limit}\n{wrong}"), String::new()));

    fs::write(&file, &named).unwrap();
    fs::write(&devices, "resources: [{name: coracle.dev/fuse, devices: [{paths: [{path: /dev/fuse}]}]}]\n")
        .unwrap();
    let right = format!("{of_node}: nothing is wrong\n{of_plugin}: nothing is wrong\n");
    assert_eq!(check(), (0, right, String::new()));
}

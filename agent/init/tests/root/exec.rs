//! Adding processes to a container that runs.

use std::collections::BTreeSet;
use std::fs;

use coracle_init::protocol::Failure;
use coracle_linux::join_new_session_keyring;
use rustix::process::{Pid, Signal, kill_process};
use serde_json::{Value, json};

use crate::harness::{Container, Image, Recipe, spec};

/// A container that runs until it is dropped.
struct Running {
    container: Option<Container>,
    pid: Pid,
}

impl Running {
    fn new(image: &Image) -> Self {
        let mut container = Recipe::new(image, "exec sleep 1000").create().unwrap();
        container.start().unwrap();
        let pid = container.pid();
        Self { container: Some(container), pid }
    }

    fn run(&self, process: Value) -> Result<String, Failure> {
        let mut process = self.container.as_ref().unwrap().exec(process)?;
        assert!(process.sibling.is_some());
        process.start()?;
        Ok(process.finish().0)
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        kill_process(self.pid, Signal::KILL).unwrap();
        self.container.take().unwrap().finish();
    }
}

fn process(script: &str) -> Value {
    spec(script)["process"].clone()
}

#[test]
fn an_added_process_is_inside_and_has_nothing_but_its_own() {
    let image = Image::new();
    let running = Running::new(&image);
    let ns = |name: &str| fs::read_link(format!("/proc/{}/ns/{name}", running.pid.as_raw_nonzero())).unwrap();
    let output = running
        .run(process(
            "for n in mnt pid net ipc uts cgroup; do readlink /proc/self/ns/$n; done; \
             ls /proc/self/fd; cat /proc/1/comm; grep -E '^(CapInh|CapEff|CapBnd|NoNewPrivs)' /proc/self/status; pwd",
        ))
        .unwrap();
    let mut expected = String::new();
    for name in ["mnt", "pid", "net", "ipc", "uts", "cgroup"] {
        expected.push_str(&format!("{}\n", ns(name).display()));
    }
    expected.push_str("0\n1\n2\n3\nsleep\n");
    expected.push_str("CapInh:\t0000000000000000\nCapEff:\t0000000000000021\nCapBnd:\t0000000000000021\nNoNewPrivs:\t1\n/\n");
    assert_eq!(output, expected);
}

#[test]
fn every_program_has_a_session_keyring_of_its_own() {
    // As whoever starts the agent has one. Not every kernel and sandbox has keyrings.
    if !fs::exists("/proc/keys").unwrap() || join_new_session_keyring().is_err() {
        return;
    }
    let image = Image::new();
    // Somebody who has no keys sees those that the program possesses.
    let user = json!({ "uid": 4711, "gid": 4711 });
    let recipe = |script: &str| {
        let mut recipe = Recipe::new(&image, script);
        recipe.spec["linux"]["maskedPaths"] = json!([]);
        recipe.spec["process"]["user"] = user.clone();
        recipe
    };
    let mut container = recipe("exec sleep 1000").create().unwrap();
    container.start().unwrap();
    let pid = container.pid();
    let running = Running { container: Some(container), pid };
    let added = || {
        let mut process = process("cat /proc/keys");
        process["user"] = user.clone();
        running.run(process).unwrap()
    };
    let seen = [recipe("cat /proc/keys").run().unwrap(), added(), added()];
    let keyrings = seen.each_ref().map(|keys| {
        let mut sessions = keys.lines().filter(|line| line.contains(" _ses"));
        sessions.next().unwrap_or_else(|| panic!("no session keyring: {keys:?}")).split(' ').next().unwrap()
    });
    assert_eq!(BTreeSet::from(keyrings).len(), 3, "{seen:?}");
}

#[test]
fn an_added_process_may_be_another_user_and_has_a_terminal_of_the_container() {
    let image = Image::new();
    let running = Running::new(&image);
    let mut process = process("tty; id -u; echo >/dev/tty");
    process["terminal"] = json!(true);
    process["user"] = json!({ "uid": 7, "gid": 7 });
    let mut added = running.container.as_ref().unwrap().exec(process).unwrap();
    let master = added.console.take().unwrap();
    added.start().unwrap();
    let mut output = Vec::new();
    let mut chunk = [0; 256];
    while let Ok(length @ 1..) = rustix::io::read(&master, &mut chunk) {
        output.extend_from_slice(&chunk[..length]);
    }
    assert_eq!(String::from_utf8(output).unwrap(), "/dev/pts/0\r\n7\r\n\r\n");
    added.finish();
}

#[test]
fn what_becomes_visible_inside_has_no_privilege_and_cannot_be_looked_into() {
    let image = Image::new();
    let running = Running::new(&image);
    // It waits for Start, inside.
    let waiting = running.container.as_ref().unwrap().exec(process("true")).unwrap();
    let host = fs::read_to_string(format!("/proc/{}/status", waiting.sibling.unwrap())).unwrap();
    let line = |name: &str| host.lines().find(|line| line.starts_with(name)).unwrap().to_owned();
    assert_eq!(line("CapPrm"), "CapPrm:\t0000000000000021");
    assert_eq!(line("CapBnd"), "CapBnd:\t0000000000000021");
    assert_eq!(line("NoNewPrivs"), "NoNewPrivs:\t1");
    let inside = line("NSpid").split_whitespace().next_back().unwrap().to_owned();
    let output = running
        .run(process(&format!(
            "cd /proc/{inside}; cat comm; for l in exe root cwd fd/3; do readlink $l || echo no; done; \
             echo x > exe; cat mem environ maps"
        )))
        .unwrap();
    let (allowed, denied): (Vec<&str>, Vec<&str>) =
        output.lines().partition(|line| !line.contains("ermission denied"));
    assert_eq!(allowed, ["coracle-init", "no", "no", "no", "no"], "{output}");
    assert_eq!(denied.len(), 4, "{output}");
    waiting.finish();
}

#[test]
fn a_working_directory_that_is_no_directory_of_the_container_is_refused() {
    let image = Image::new();
    let running = Running::new(&image);
    for cwd in ["/missing", "/bin/busybox", "/proc/1/root", "/proc/1/cwd/x", "/proc/self/fd/3"] {
        let mut process = process("pwd");
        process["cwd"] = json!(cwd);
        let failure = running.run(process).unwrap_err();
        assert_eq!(
            (failure.step.as_str(), failure.path.as_deref()),
            ("working directory", Some(cwd)),
            "{failure}"
        );
    }
}

#[test]
fn a_program_that_is_not_there_is_explained() {
    let image = Image::new();
    let running = Running::new(&image);
    let mut process = process("");
    process["args"] = json!(["bash"]);
    let failure = running.run(process).unwrap_err();
    assert_eq!(failure.message, "exec: \"bash\": executable file not found in $PATH");
}

#[test]
fn a_container_that_ended_is_not_joined() {
    let image = Image::new();
    let mut container = Recipe::new(&image, "exit 0").create().unwrap();
    let pidfd = container.pidfd();
    container.start().unwrap();
    container.finish();
    let Err(failure) = Container::join(&pidfd, process("true"), None) else { panic!("joined the dead") };
    assert_eq!((failure.step.as_str(), failure.errno), ("namespace", Some(3)), "{failure}");
}

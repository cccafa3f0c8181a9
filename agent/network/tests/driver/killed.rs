//! An agent killed at any step: a process of its own does what the agent does, until it is killed.

use std::collections::BTreeSet;
use std::env;
use std::os::unix::process::CommandExt as _;
use std::path::Path;
use std::process::{Child, Command};
use std::time::{Duration, Instant};

use serde_json::json;

use super::scripted::{Node, RESULT, ip, uid, write};

/// The directory of the node, in the process that is killed.
const DIRECTORY: &str = "CORACLE_TEST_KILLED_IN";
/// What it does there.
const DOES: &str = "CORACLE_TEST_KILLED_DOES";

/// What the process does that is killed: nothing, unless it is that process.
#[test]
fn agent() {
    let Some(directory) = env::var_os(DIRECTORY) else { return };
    let node = Node::at(Path::new(&directory));
    let network = node.network();
    match env::var(DOES).unwrap().as_str() {
        "add" => drop(node.add(&network)),
        _ => drop(network.del(&uid(), None, false)),
    }
}

fn start(node: &Node, does: &str) -> Child {
    let mut command = Command::new(env::current_exe().unwrap());
    command.args(["--exact", "killed::agent"]).env(DIRECTORY, node.path("")).env(DOES, does);
    // So that nothing it leaves is met by the signals of a terminal.
    command.process_group(0).spawn().unwrap()
}

fn wait_for(path: &Path) {
    let deadline = Instant::now() + Duration::from_secs(60);
    while !path.exists() {
        assert!(Instant::now() < deadline, "{} does not come", path.display());
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// Kills an agent while one of the plugins does this verb, and leaves the plugin hanging.
fn killed_in(node: &Node, does: &str, verb: &str, kind: &str) {
    let reached = node.path("reached");
    let script = format!(
        "if [ $CNI_COMMAND = {verb} ]; then touch {reached}; sleep 600; touch {late}; fi; \
         [ $CNI_COMMAND != ADD ] || echo '{RESULT}'",
        reached = reached.display(),
        late = node.path("late").display(),
    );
    node.install(kind, &script);
    let mut agent = start(node, does);
    wait_for(&reached);
    agent.kill().unwrap();
    agent.wait().unwrap();
    std::fs::remove_file(reached).unwrap();
    node.install_answering(kind, RESULT);
    node.executed();
}

fn node() -> Node {
    let node = Node::new();
    node.configure("1.0.0", json!([{"type": "first"}, {"type": "second"}]));
    node.install_answering("first", RESULT);
    node.install_answering("second", RESULT);
    node
}

/// Whether a plugin is still at work.
fn hanging(node: &Node) -> bool {
    let bin = node.path("bin").into_os_string().into_string().unwrap();
    std::fs::read_dir("/proc").unwrap().any(|process| {
        let command = std::fs::read(process.unwrap().path().join("cmdline")).unwrap_or_default();
        String::from_utf8_lossy(&command).contains(&bin)
    })
}

#[test]
fn killed_in_any_plugin_of_an_add_the_next_agent_takes_back_what_there_is() {
    for kind in ["first", "second"] {
        let node = node();
        killed_in(&node, "add", "ADD", kind);
        assert!(hanging(&node), "the plugin goes on without its agent");
        let network = node.network();
        assert!(!hanging(&node), "an abandoned plugin must not go on beside the next agent");
        assert_eq!(network.attached(&uid(), 0), None);
        network.gc(&BTreeSet::new()).unwrap();
        assert_eq!(node.verbs(), ["DEL second", "DEL first"]);
        assert!(node.files().is_empty());
        assert!(!node.path("late").exists());
    }
}

#[test]
fn killed_in_any_plugin_of_an_add_the_next_try_succeeds() {
    for kind in ["first", "second"] {
        let node = node();
        killed_in(&node, "add", "ADD", kind);
        let network = node.network();
        assert_eq!(node.add(&network).unwrap().ips, [ip("10.9.0.7")]);
        assert_eq!(node.verbs(), ["DEL second", "DEL first", "ADD first", "ADD second"]);
    }
}

#[test]
fn the_next_try_of_an_add_that_an_agent_was_killed_in_can_be_interrupted() {
    let node = node();
    killed_in(&node, "add", "ADD", "first");
    let reached = node.path("reached");
    let script = format!("[ $CNI_COMMAND != ADD ] || {{ touch {}; sleep 600; }}", reached.display());
    node.install("first", &script);
    let network = node.network();
    std::thread::scope(|scope| {
        let added = scope.spawn(|| node.add(&network));
        wait_for(&reached);
        network.interrupt(&uid());
        let error = added.join().unwrap().unwrap_err().to_string();
        assert!(error.contains("killed by signal 9"), "{error}");
    });
    assert_eq!(node.verbs(), ["DEL second", "DEL first", "ADD first", "DEL second", "DEL first"]);
    assert!(node.files().is_empty());
}

#[test]
fn killed_in_any_plugin_of_a_del_it_is_still_owed() {
    for kind in ["first", "second"] {
        let node = node();
        node.add(&node.network()).unwrap();
        killed_in(&node, "del", "DEL", kind);
        let network = node.network();
        assert_eq!(network.attached(&uid(), 0).unwrap().ips, [ip("10.9.0.7")]);
        network.gc(&BTreeSet::new()).unwrap();
        assert_eq!(node.verbs(), ["DEL second", "DEL first"]);
        assert!(node.files().is_empty());
    }
}

#[test]
fn killed_while_a_record_is_written_there_is_the_one_before_or_none() {
    let node = node();
    node.add(&node.network()).unwrap();
    // As a kill between writing and renaming leaves it.
    write(&node.path("state/.0f0e-uid-0.json.new"), b"{\"pod\"");
    write(&node.path("state/.0f0e-uid-1.json.new"), b"");
    let network = node.network();
    assert_eq!(network.attached(&uid(), 0).unwrap().ips, [ip("10.9.0.7")]);
    assert_eq!(node.files(), ["0f0e-uid-0.json"]);
}

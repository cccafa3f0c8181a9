//! A host that lacks what one has as a rule: room on its disk, a disk that can be written to, the kernel's log.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::Command;

use coracle_tests::machine::Machine;
use coracle_tests::manifests::{idle, pod, shell, with};
use coracle_tests::needs_root;
use coracle_tests::node::{Node, container_id, container_status, uid};
use coracle_tests::processes::{is_alive, status_field};
use coracle_tests::wait::{SOON, wait_until};
use rustix::fs::{FallocateFlags, fallocate};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use serde_json::{Value, json};

/// A node whose images, pods and checkpoints are on a disk of its own, of so many MiB.
fn on_a_small_disk(mebibytes: u64) -> Node {
    let machine = Machine::new();
    let (disk, root) = (machine.path("disk"), machine.path("root"));
    File::create(&disk).unwrap().set_len(mebibytes << 20).unwrap();
    fs::create_dir(&root).unwrap();
    succeeds(Command::new("mkfs.ext4").args(["-q", "-F", "-m", "0"]).arg(&disk));
    mount(&machine);
    Node::start_on(machine, "", Vec::new())
}

/// Detached from the file that it is on with the machine's mount namespace.
fn mount(machine: &Machine) {
    let mut mount = machine.command("mount");
    mount
        .args(["-t", "ext4", "-o", "loop,errors=remount-ro"])
        .args([machine.path("disk"), machine.path("root")]);
    succeeds(&mut mount);
}

fn succeeds(command: &mut Command) {
    let output = command.output().expect("util-linux and e2fsprogs are installed");
    assert!(output.status.success(), "{command:?}: {}", String::from_utf8_lossy(&output.stderr));
}

/// A path in the root directory as the machine sees it: it is no mount of ours.
fn in_root(node: &Node, name: &str) -> PathBuf {
    let below = node.path("root").join(name);
    PathBuf::from(format!("/proc/{}/root", node.machine().init())).join(below.strip_prefix("/").unwrap())
}

/// Leaves no block of the disk free.
fn fill(filler: &Path) {
    let file = File::create(filler).unwrap();
    let mut length = 0;
    for block in [1 << 20, 4096] {
        while fallocate(&file, FallocateFlags::empty(), length, block).is_ok() {
            length += block;
        }
    }
}

/// Waits for an event with one of these.
fn wait_told(node: &Node, object: &str, words: &[&str]) {
    wait_until(format_args!("an event of {object} to tell of {words:?}"), SOON, || {
        says(&node.coracle(&["get", "events", "--for", object, "-o", "json"]).stdout, words)
    });
}

fn says(text: &str, words: &[&str]) -> bool {
    words.iter().any(|it| text.contains(it))
}

/// Checks that a pod runs the container that it ran before.
#[track_caller]
fn assert_untouched(node: &Node, before: &Value) {
    let now = node.wait_running(before["metadata"]["name"].as_str().unwrap());
    assert_eq!(uid(before), uid(&now));
    assert_eq!(container_id(before, "c"), container_id(&now, "c"));
    assert_eq!(container_status(&now, "c")["restartCount"], 0);
}

#[test]
fn a_full_disk_ends_nothing_and_what_waits_for_room_begins_by_itself() {
    needs_root!();
    let mut node = on_a_small_disk(64);
    node.run(&pod("steady", vec![idle("c")]));
    let steady = node.wait_running("steady");
    let filler = in_root(&node, "filler");
    fill(&filler);
    node.run(&pod("new", vec![shell("c", "echo began; exec sleep 1000")]));
    wait_told(&node, "pod/new", &["No space left on device"]);
    assert_untouched(&node, &steady);
    // A pod can go, too.
    node.run(&pod("leaving", vec![idle("c")]));
    wait_told(&node, "pod/leaving", &["No space left on device"]);
    node.remove("leaving");
    node.wait_gone("leaving");
    // Neither the agent that runs nor one that starts gives up.
    node.kill_agent();
    node.start_agent();
    assert_untouched(&node, &steady);
    wait_told(&node, "pod/new", &["No space left on device"]);
    fs::remove_file(&filler).unwrap();
    node.wait_running("new");
    node.wait_log("new", "c", "began");
    assert_untouched(&node, &steady);
    node.finish();
}

#[test]
fn a_disk_that_became_read_only_ends_nothing_and_pods_go_on_once_it_is_mended() {
    needs_root!();
    let mut node = on_a_small_disk(64);
    node.run(&pod("steady", vec![idle("c")]));
    let steady = node.wait_running("steady");
    // As after an error of the disk: nobody is asked, and it stays so until the next boot.
    succeeds(node.machine().command("mount").args(["-o", "remount,abort"]).arg(node.path("root")));
    node.run(&pod("new", vec![idle("c")]));
    // Some versions of Linux do not even read what is there (6.12).
    let fails = ["Read-only file system", "Input/output error"];
    wait_told(&node, "pod/new", &fails);
    assert_untouched(&node, &steady);
    let process = node.container_pid(&steady, "c");
    // An agent that starts could keep nothing that must be kept: it says so, and leaves the pods as they are.
    node.kill_agent();
    let refused = node.coracle(&["agent"]);
    assert_eq!(refused.code, 1);
    assert!(says(&refused.stderr, &fails), "{}", refused.stderr);
    assert!(is_alive(process));
    node.machine().reboot();
    let repaired = Command::new("e2fsck").args(["-f", "-y"]).arg(node.path("disk")).output().unwrap();
    assert!(matches!(repaired.status.code(), Some(0 | 1)), "{}", String::from_utf8_lossy(&repaired.stdout));
    mount(node.machine());
    node.start_agent();
    for name in ["steady", "new"] {
        node.wait_running(name);
        node.remove(name);
        node.wait_gone(name);
    }
}

#[test]
fn without_the_kernels_log_a_kill_for_want_of_memory_is_told() {
    needs_root!();
    let machine = Machine::new();
    succeeds(machine.command("mount").args(["-t", "tmpfs", "-o", "mode=755", "none", "/dev"]));
    for device in ["null", "zero", "full", "random", "urandom", "tty"] {
        let number = match device {
            "null" => ["1", "3"],
            "zero" => ["1", "5"],
            "full" => ["1", "7"],
            "random" => ["1", "8"],
            "urandom" => ["1", "9"],
            _ => ["5", "0"],
        };
        succeeds(machine.command("mknod").args(["-m", "666", &format!("/dev/{device}"), "c"]).args(number));
    }
    let node = Node::start_on(machine, "", Vec::new());
    let greedy = shell("c", "tail /dev/zero");
    let greedy = with(greedy, "resources", json!({"limits": {"memory": "32Mi"}}));
    node.run(&with(pod("greedy", vec![greedy]), "spec.restartPolicy", json!("Never")));
    let pod = node.wait_phase("greedy", "Failed");
    assert_eq!(container_status(&pod, "c")["state"]["terminated"]["reason"], "OOMKilled");
    node.finish();
}

/// A shell's limit is 1,024 as a rule, which a hundred pods need; and a table that grows has the agent wait.
#[test]
fn an_agent_has_all_the_descriptors_that_it_may_have_and_room_for_many() {
    needs_root!();
    let limit = getrlimit(Resource::Nofile);
    setrlimit(Resource::Nofile, Rlimit { current: Some(256), ..limit }).unwrap();
    let node = Node::start();
    setrlimit(Resource::Nofile, limit).unwrap();
    let limits = fs::read_to_string(format!("/proc/{}/limits", node.agent_pid())).unwrap();
    let words = limits.lines().find_map(|line| line.strip_prefix("Max open files")).unwrap();
    let most: Vec<u64> = words.split_whitespace().filter_map(|word| word.parse().ok()).collect();
    assert_eq!(most, [limit.maximum.unwrap(); 2]);
    assert_eq!(status_field(node.agent_pid(), "FDSize").unwrap().trim(), "4096");
}

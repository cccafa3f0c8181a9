//! `coracle run`: a private agent in the foreground.

use std::fs;
use std::io::{BufRead, BufReader};
use std::process::{Child, Stdio};

use coracle_tests::images;
use coracle_tests::manifests::{idle, pod, shell, with};
use coracle_tests::needs_root;
use coracle_tests::node::{Answer, Node};
use coracle_tests::processes::{self, Pid, descendants};
use coracle_tests::wait::{SOON, wait_for};
use serde_json::{Value, json};

/// A node whose agent is gone: what is left is where `coracle run` works.
fn quiet_node() -> Node {
    let mut node = Node::start();
    node.import("nginx", images::NGINX);
    node.stop_agent();
    node
}

fn write(node: &Node, name: &str, manifest: &Value) -> String {
    let path = node.path(name);
    fs::write(&path, manifest.to_string()).unwrap();
    path.display().to_string()
}

/// The process that runs the command line, below the ones that bring it onto the machine.
fn coracle_pid(child: &Child) -> Pid {
    wait_for("coracle run", SOON, || {
        let all = descendants(child.id().cast_signed());
        all.into_iter().find(|pid| processes::command_line(*pid).contains(" run -f "))
    })
}

fn once(name: &str, script: &str) -> Value {
    with(pod(name, vec![shell("c", script)]), "spec.restartPolicy", json!("Never"))
}

#[test]
fn the_example_prints_its_page_and_ends_on_ctrl_c() {
    needs_root!();
    let node = quiet_node();
    let example = fs::read_to_string(images::project().join("examples/two-containers.yaml")).unwrap();
    let site = node.path("site");
    let path = node.path("example.yaml");
    fs::write(&path, example.replace("/tmp/coracle-two-containers", site.to_str().unwrap())).unwrap();
    let mut child =
        node.command(&["run", "-f", path.to_str().unwrap()]).stdout(Stdio::piped()).spawn().unwrap();
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines().map_while(Result::ok);
    let page = lines.find(|line| line.contains("read through nginx")).expect("the page is printed");
    assert!(page.contains("shell"), "the line says whose it is: {page}");
    processes::signal(coracle_pid(&child), rustix::process::Signal::INT);
    // What is printed while it ends must be read, or it waits.
    let rest = std::thread::spawn(move || lines.count());
    wait_for("coracle run to end", SOON, || child.try_wait().unwrap());
    rest.join().unwrap();
    node.assert_nothing_left();
    assert!(site.join("index.html").exists(), "what is the host's stays");
}

#[test]
fn the_pods_result_is_its_own() {
    needs_root!();
    let node = quiet_node();
    let good = write(&node, "good.json", &once("good", "echo well done"));
    let bad = write(&node, "bad.json", &once("bad", "echo badly done; exit 3"));
    let answer = Answer::from(node.command(&["run", "-f", &good]).output().unwrap());
    assert_eq!(answer.code, 0, "{}", answer.stderr);
    assert!(answer.stdout.contains("well done"), "{}", answer.stdout);
    node.assert_nothing_left();
    let answer = Answer::from(node.command(&["run", "-f", &good, "-f", &bad]).output().unwrap());
    assert_ne!(answer.code, 0);
    assert!(answer.stdout.contains("well done") && answer.stdout.contains("badly done"), "{}", answer.stdout);
    node.assert_nothing_left();
}

#[test]
fn a_bad_file_is_refused_before_anything_runs() {
    needs_root!();
    let node = quiet_node();
    let good = write(&node, "good.json", &once("good", "echo never"));
    let path = node.path("bad.yaml");
    fs::write(&path, "apiVersion: v1\nkind: Pod\nmetadata:\n  nam: x\n").unwrap();
    let answer =
        Answer::from(node.command(&["run", "-f", &good, "-f", path.to_str().unwrap()]).output().unwrap());
    assert_ne!(answer.code, 0);
    assert!(answer.stderr.contains("bad.yaml:4") && answer.stderr.contains("nam"), "{}", answer.stderr);
    assert!(!answer.stdout.contains("never"), "{}", answer.stdout);
    node.assert_nothing_left();
}

#[test]
fn it_keeps_out_of_the_way_of_an_agent() {
    needs_root!();
    let mut node = Node::start();
    node.run(&pod("agents", vec![idle("c")]));
    let before = node.wait_running("agents");
    let file = write(&node, "own.json", &once("own", "echo done"));
    let answer = Answer::from(node.command(&["run", "-f", &file]).output().unwrap());
    // It either runs beside the agent or says why it does not; it never harms what the agent runs.
    assert!(answer.code == 0 || !answer.stderr.is_empty());
    let after = node.wait_running("agents");
    assert_eq!(node.container_pid(&after, "c"), node.container_pid(&before, "c"));
    node.kill_agent();
    node.finish();
}

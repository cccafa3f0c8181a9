//! `coracle run`: a private agent in the foreground.

use std::fs;
use std::io::{BufRead, BufReader};
use std::path::PathBuf;
use std::process::{Child, Stdio};

use coracle_tests::images;
use coracle_tests::manifests::{idle, pod, shell, with, with_host_path};
use coracle_tests::needs_root;
use coracle_tests::node::{Answer, Node};
use coracle_tests::processes::{self, Pid, descendants};
use coracle_tests::wait::{SOON, wait_for, wait_until};
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
    let mut bad = once("bad", "echo badly done; exit 3");
    // Which is killed with the pod: that is no result of it.
    bad["spec"]["initContainers"] =
        json!([with(shell("beside", "exec sleep 100000"), "restartPolicy", json!("Always"))]);
    bad["spec"]["terminationGracePeriodSeconds"] = json!(1);
    let bad = write(&node, "bad.json", &bad);
    let answer = Answer::from(node.command(&["run", "-f", &good]).output().unwrap());
    assert_eq!(answer.code, 0, "{}", answer.stderr);
    assert!(answer.stdout.contains("well done"), "{}", answer.stdout);
    node.assert_nothing_left();
    let answer = Answer::from(node.command(&["run", "-f", &good, "-f", &bad]).output().unwrap());
    assert_eq!(answer.code, 3, "{}", answer.stderr);
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
fn an_empty_dir_has_a_place_in_a_node_of_ones_own() {
    needs_root!();
    let node = quiet_node();
    let mut pod = once("volumes", "echo kept > /disk/x; cat /disk/x");
    pod["spec"]["volumes"] = json!([{"name": "disk", "emptyDir": {}}]);
    pod["spec"]["containers"][0]["volumeMounts"] = json!([{"name": "disk", "mountPath": "/disk"}]);
    let file = write(&node, "volumes.json", &pod);
    let mut child = node.command(&["run", "-f", &file]).stdout(Stdio::piped()).spawn().unwrap();
    // What fails is tried again without end.
    let ended = wait_for("coracle run to end", SOON, || child.try_wait().unwrap());
    assert!(ended.success(), "{ended}");
    let printed = std::io::read_to_string(child.stdout.take().unwrap()).unwrap();
    assert!(printed.contains("kept"), "{printed}");
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

// --- What a killed one leaves ---

/// With a volume in memory, which is a mount on the host.
fn with_memory(mut pod: Value) -> Value {
    let lists = [
        ("/spec/volumes", json!({"name": "memory", "emptyDir": {"medium": "Memory"}})),
        ("/spec/containers/0/volumeMounts", json!({"name": "memory", "mountPath": "/memory"})),
    ];
    for (list, entry) in lists {
        pod.pointer_mut(list).and_then(Value::as_array_mut).unwrap().push(entry);
    }
    pod
}

/// A `coracle run` at work on a pod that does not end by itself.
struct Lasting {
    child: Child,
    coracle: Pid,
    /// What it makes beside what is the node's: its directories, and its tree of cgroups.
    places: Vec<PathBuf>,
    /// What its pod's container runs.
    container: Pid,
}

impl Lasting {
    /// With everything a pod may leave on a host: processes, cgroups, a tmpfs, layers, logs.
    fn start(node: &Node, name: &str) -> Self {
        let (ran, up) = (node.path("ran"), format!("{name} is up"));
        let script = format!("touch '/ran/{up}'; sleep 3600; exit 0");
        let pod = with_host_path(once(name, &script), "ran", &ran, "/ran");
        let pod = with_memory(pod);
        let file = write(node, &format!("{name}.json"), &pod);
        let child = node.command(&["run", "-f", &file]).stdout(Stdio::null()).spawn().unwrap();
        let coracle = coracle_pid(&child);
        wait_until(&up, SOON, || ran.join(&up).exists());
        // It names what it makes after its process number, as the machine's pid namespace has it.
        let own = processes::status_field(coracle, "NSpid").unwrap();
        let own = format!("run-{}", own.split_whitespace().next_back().unwrap());
        let mut places = vec![node.path(format!("root/{own}")), node.path(format!("run-{own}"))];
        places.extend(node.machine().cgroups().named(&format!("coracle-{own}")));
        assert!(places.len() > 2 && places.iter().all(|place| place.is_dir()), "{places:?}");
        let container = node.machine().processes().into_iter().find(|pid| {
            let command = processes::command_line(*pid);
            command.starts_with("/bin/sh -c") && command.contains(&up)
        });
        Self { child, coracle, places, container: container.unwrap() }
    }

    /// Kills it as a crash would.
    fn kill(mut self) -> (Vec<PathBuf>, Pid) {
        processes::kill(self.coracle);
        self.child.wait().unwrap();
        (self.places, self.container)
    }
}

#[test]
fn what_a_killed_one_left_goes_with_the_next_one_or_the_next_agent() {
    needs_root!();
    let mut node = quiet_node();
    let next = write(&node, "next.json", &once("next", "echo done"));
    for by_agent in [false, true] {
        let (places, container) = Lasting::start(&node, "killed").kill();
        assert!(processes::is_alive(container), "pods outlive whoever runs them");
        assert!(places.iter().all(|place| place.is_dir()), "there is something to clear away");
        if by_agent {
            node.start_agent();
        } else {
            let answer = Answer::from(node.command(&["run", "-f", &next]).output().unwrap());
            assert_eq!(answer.code, 0, "{}", answer.stderr);
            assert!(answer.stderr.contains("removing what a killed `coracle run`"), "{}", answer.stderr);
        }
        let left: Vec<_> = places.iter().filter(|place| place.exists()).collect();
        assert!(left.is_empty(), "left behind: {left:?}");
        assert!(!processes::is_alive(container));
        node.assert_nothing_left();
        fs::remove_file(node.path("ran").join("killed is up")).unwrap();
    }
    node.finish();
}

#[test]
fn one_that_is_at_work_is_not_taken_for_a_killed_one() {
    needs_root!();
    let mut node = quiet_node();
    let next = write(&node, "next.json", &once("next", "echo done"));
    let Lasting { mut child, coracle, places, container } = Lasting::start(&node, "lasting");
    let answer = Answer::from(node.command(&["run", "-f", &next]).output().unwrap());
    assert_eq!(answer.code, 0, "{}", answer.stderr);
    node.start_agent();
    assert!(processes::is_alive(container) && places.iter().all(|place| place.is_dir()));
    processes::signal(coracle, rustix::process::Signal::INT);
    wait_for("coracle run to end", SOON, || child.try_wait().unwrap());
    assert!(!places.iter().any(|place| place.exists()), "its own end leaves nothing");
    node.finish();
}

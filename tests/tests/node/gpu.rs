//! GPUs of NVIDIA in pods. The same is seen of a machine's own, where it has any, and of a made-up driver's anywhere.

mod driver;

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;
use std::process::Command;

use coracle_tests::images::{BUSYBOX, unpack};
use coracle_tests::manifests::{pod, with};
use coracle_tests::needs_root;
use coracle_tests::node::{Answer, Node};
use coracle_tests::wait::{SOON, wait_until};
use serde_json::{Value, json};

use crate::devices::amounts;
use crate::devices::plugin::pod_resources;

const RESOURCE: &str = "nvidia.com/gpu";
/// With glibc, as images of CUDA have it, and with a program that adds vectors.
const IMAGE: &str = "localhost/devices:debian";
/// Waits to be asked, and ends at once.
const IDLE: &str = "trap 'exit 0' TERM; while :; do sleep 3600 & wait $!; done";

/// The UUIDs of the machine's GPUs; else why it has none.
fn gpus() -> Result<Vec<String>, String> {
    let version = "/proc/driver/nvidia/version";
    fs::read_to_string(version).map_err(|error| format!("no driver of NVIDIA: {version}: {error}"))?;
    let devices = fs::read_dir("/dev").map_err(|error| format!("/dev: {error}"))?;
    let names = devices.filter_map(|entry| entry.ok()?.file_name().into_string().ok());
    let is_gpu = |name: String| name.strip_prefix("nvidia").is_some_and(|rest| rest.parse::<u32>().is_ok());
    if !names.into_iter().any(is_gpu) {
        return Err("NVIDIA's driver has no GPU: there is no /dev/nvidia0 or other".to_owned());
    }
    // By the driver's own library, libnvidia-ml.so.1.
    let mut command = Command::new("nvidia-smi");
    let answer = command.args(["--query-gpu=uuid", "--format=csv,noheader"]).output();
    let answer = Answer::from(answer.map_err(|error| format!("nvidia-smi: {error}"))?);
    if answer.code != 0 {
        return Err(format!("NVIDIA's driver does not answer: {}{}", answer.stdout, answer.stderr));
    }
    Ok(answer.stdout.lines().map(|line| line.trim().to_owned()).collect())
}

fn asking(name: &str, gpus: u32) -> Value {
    let mut container = json!({"name": "c", "image": IMAGE, "command": ["/bin/sh", "-c", IDLE]});
    if gpus > 0 {
        container["resources"] = json!({"limits": {RESOURCE: gpus}});
    }
    pod(name, vec![container])
}

fn in_pod(node: &Node, pod: &str, script: &str) -> Answer {
    node.coracle(&["exec", pod, "--", "sh", "-c", script])
}

/// The GPUs that `nvidia-smi` sees in a pod.
fn seen(node: &Node, pod: &str) -> Vec<String> {
    let answer = in_pod(node, pod, "nvidia-smi -L");
    assert_eq!(answer.code, 0, "{}{}", answer.stdout, answer.stderr);
    let gpus = answer.stdout.lines().filter(|line| line.starts_with("GPU "));
    gpus.map(|line| line.split_once("(UUID: ").unwrap().1.trim_end_matches(')').to_owned()).collect()
}

#[track_caller]
fn assert_computes(node: &Node, pod: &str, gpus: usize) {
    let answer = in_pod(node, pod, "vector-add");
    assert_eq!(answer.code, 0, "{}{}", answer.stdout, answer.stderr);
    assert!(answer.stdout.ends_with(&format!("\ndevices: {gpus}\n")), "{}", answer.stdout);
}

fn allocated(pod: &Value) -> Value {
    pod["status"]["containerStatuses"][0]["allocatedResourcesStatus"].clone()
}

fn wait_for_gpus(node: &Node, healthy: usize) {
    wait_until(format!("{healthy} GPUs that work"), SOON, || {
        amounts(node, RESOURCE).1 == json!(healthy.to_string())
    });
}

/// What a node shows whose machine has these GPUs.
fn show_on(node: &Node, gpus: &[String]) {
    node.import("devices", IMAGE);
    wait_for_gpus(node, gpus.len());

    node.run(&asking("one", 1));
    let one = node.wait_running("one");
    let [own] = &seen(node, "one")[..] else { panic!("not one GPU: {:?}", seen(node, "one")) };
    assert!(gpus.contains(own), "{own} is none of {gpus:?}");
    assert_computes(node, "one", 1);
    let healthy = json!([{"name": RESOURCE, "resources": [{"resourceID": own, "health": "Healthy"}]}]);
    assert_eq!(allocated(&one), healthy);
    assert_eq!(pod_resources(node)["one"], [own.as_str()]);
    let cache = in_pod(node, "one", "ldconfig -p");
    assert!(cache.stdout.contains("libcuda.so.1 (libc6"), "{}{}", cache.stdout, cache.stderr);

    node.run(&asking("none", 0));
    node.wait_running("none");
    let nodes = in_pod(node, "none", "ls /dev | grep nvidia; command -v nvidia-smi");
    assert_eq!(nodes.stdout, "", "a pod that asks for none has none");
    let computed = in_pod(node, "none", "vector-add");
    assert!(
        computed.code == 1 && computed.stderr.contains("libcuda.so.1: cannot open"),
        "{}",
        computed.stderr
    );
    let made = in_pod(node, "none", "mkdir -p /tmp; mknod /tmp/gpu c 195 255 && : </tmp/gpu");
    assert!(made.stderr.contains("Operation not permitted"), "a node of its own opens: {}", made.stderr);

    node.run(&asking("two", 1));
    if gpus.len() == 1 {
        let refused = node.wait_phase("two", "Failed");
        assert_eq!(refused["status"]["reason"], format!("OutOf{RESOURCE}"));
        node.remove("one");
    } else {
        node.wait_running("two");
        assert_ne!(seen(node, "two")[..], [own.as_str()], "another GPU than the first pod's");
        assert_computes(node, "two", 1);
        for name in ["one", "two"] {
            node.remove(name);
            node.wait_gone(name);
        }
        node.run(&asking("both", 2));
        node.wait_running("both");
        let both: BTreeSet<String> = seen(node, "both").into_iter().collect();
        assert!(both.len() == 2 && both.iter().all(|gpu| gpus.contains(gpu)), "{both:?}");
        assert_computes(node, "both", 2);
        assert_eq!(pod_resources(node)["both"].iter().cloned().collect::<BTreeSet<_>>(), both);
    }
}

fn end(node: Node) {
    let pods = node.pods();
    for pod in &pods {
        let name = pod["metadata"]["name"].as_str().unwrap();
        let _ = fs::remove_file(node.path("manifests").join(format!("{name}.yaml")));
    }
    node.finish();
}

#[test]
fn a_pod_computes_on_the_gpu_it_asked_for_and_one_that_did_not_sees_none() {
    needs_root!();
    let gpus = match gpus() {
        Ok(gpus) => gpus,
        Err(why) => return println!("skipped: {why}"),
    };
    let node = Node::start();
    show_on(&node, &gpus);
    end(node);
}

#[test]
fn a_pod_has_the_gpu_of_a_made_up_driver_that_it_asked_for_and_one_that_did_not_sees_none() {
    needs_root!();
    let Some(machine) = driver::machine() else { return };
    let node = Node::start_on(machine, "", Vec::new());
    show_on(&node, &driver::gpus());
    end(node);
}

#[test]
fn a_gpu_with_an_error_or_without_its_node_is_unhealthy() {
    needs_root!();
    let Some(machine) = driver::machine() else { return };
    let node = Node::start_on(machine, "", Vec::new());
    node.import("devices", IMAGE);
    wait_for_gpus(&node, 2);
    node.run(&asking("both", 2));
    node.wait_running("both");
    let health = |pod: &Value| -> Vec<(String, String)> {
        let of = |one: &Value| {
            let text = |field: &str| one[field].as_str().unwrap_or_default().to_owned();
            (text("resourceID"), text("health"))
        };
        allocated(pod)[0]["resources"].as_array().unwrap().iter().map(of).collect()
    };
    let healths = |first: &str, second: &str| -> Vec<(String, String)> {
        driver::gpus().into_iter().zip([first, second].map(str::to_owned)).collect()
    };
    let on_it =
        |line: &str| assert!(node.machine().command("sh").args(["-ec", line]).status().unwrap().success());

    on_it("mv /dev/nvidia0 /dev/away");
    node.wait_pod("both", "to show that a GPU's node is away", |pod| {
        health(pod) == healths("Unhealthy", "Healthy")
    });
    assert_eq!(amounts(&node, RESOURCE), (json!("2"), json!("1")));
    on_it("mv /dev/away /dev/nvidia0");
    node.wait_pod("both", "to show that it is back", |pod| health(pod) == healths("Healthy", "Healthy"));
    // The library tells an error: of the second GPU, that it has fallen off its bus.
    on_it("echo 1 79 > /usr/local/lib/xid.new; mv /usr/local/lib/xid.new /usr/local/lib/xid");
    node.wait_pod("both", "to show an error", |pod| health(pod) == healths("Healthy", "Unhealthy"));
    node.remove("both");
    node.wait_gone("both");
    node.run(&asking("next", 1));
    node.wait_running("next");
    assert_eq!(seen(&node, "next"), driver::gpus()[..1]);
    end(node);
}

#[test]
fn images_of_every_kind_start_with_a_gpu() {
    needs_root!();
    let Some(machine) = driver::machine() else { return };
    let node = Node::start_on(machine, "", Vec::new());
    node.import("devices", IMAGE);
    wait_for_gpus(&node, 2);
    let import = |name: &str, change: &dyn Fn(&Path)| {
        let root = node.path(name);
        unpack("devices", &root);
        change(&root);
        let image = format!("localhost/{name}:1");
        node.coracle_ok(&["image", "import", root.to_str().unwrap(), "--name", &image]);
        image
    };
    // A program and the C library: no shell, no ldconfig, no /etc.
    let bare = import("bare", &|root| {
        for path in ["etc", "usr/sbin", "usr/bin/busybox"] {
            let path = root.join(path);
            if path.is_dir() { fs::remove_dir_all(path).unwrap() } else { fs::remove_file(path).unwrap() }
        }
    });
    let empty = import("empty", &|root| fs::write(root.join("etc/ld.so.cache"), "").unwrap());
    let garbage = import("garbage", &|root| fs::write(root.join("etc/ld.so.cache"), "garbage").unwrap());

    let computing = |name: &str, image: &str| {
        let container = json!({
            "name": "c", "image": image, "command": ["/usr/bin/vector-add"],
            "resources": {"limits": {RESOURCE: 1}},
        });
        with(pod(name, vec![container]), "spec.restartPolicy", json!("Never"))
    };
    let by_variable = json!([{"name": "LD_LIBRARY_PATH", "value": "/usr/local/lib"}]);
    let security = json!({"readOnlyRootFilesystem": true, "runAsUser": 65534});
    let pods = [
        computing("bare", &bare),
        computing("empty", &empty),
        with(computing("garbage", &garbage), "spec.containers.0.env", by_variable),
        with(computing("closed", IMAGE), "spec.containers.0.securityContext", security),
    ];
    for pod in pods {
        node.run(&pod);
        let name = pod["metadata"]["name"].as_str().unwrap();
        let ended = node.wait_pod(name, "to end", |pod| {
            ["Succeeded", "Failed"].iter().any(|phase| pod["status"]["phase"] == *phase)
        });
        let said = node.coracle_ok(&["logs", name]);
        assert!(said.ends_with("devices: 1\n"), "{name}: {said}{:#}", ended["status"]);
        node.remove(name);
        node.wait_gone(name);
    }
    // Without a dynamic linker there is nobody to tell.
    let image = json!(BUSYBOX);
    node.run(&with(asking("static", 1), "spec.containers.0.image", image));
    node.wait_running("static");
    end(node);
}

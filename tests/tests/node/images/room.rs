//! Disks that fill up.

use std::fs;
use std::process::Command;

use coracle_tests::machine::Machine;
use coracle_tests::needs_root;
use coracle_tests::node::Node;
use coracle_tests::random::noise;
use coracle_tests::registry::{Content, Descriptor, Image, Registry, tar_of};
use coracle_tests::wait::{SOON, wait_until};
use serde_json::{Value, json};

use super::pulling::of;
use super::{REGISTRY, busybox_archive, events, serve, wait_event, waiting};

const MIB: usize = 1 << 20;

/// A machine whose node has a small disk of its own for all it keeps.
fn machine(size: usize) -> Machine {
    let machine = Machine::new();
    let (disk, root) = (machine.path("disk"), machine.path("root"));
    fs::File::create(&disk).unwrap().set_len(size as u64).unwrap();
    fs::create_dir(&root).unwrap();
    let mut format = Command::new("mkfs.ext4");
    assert!(format.args(["-q", "-m", "0"]).arg(&disk).status().expect("e2fsprogs is installed").success());
    // It goes with the machine's mounts, and the loop device with it.
    let mounted = machine.command("mount").args(["-o", "loop"]).args([&disk, &root]).status().unwrap();
    assert!(mounted.success(), "a loop device can be mounted");
    machine
}

/// An image with busybox and so many bytes that nothing makes smaller, of layers that are not compressed.
fn large(seed: u64, bytes: &[usize]) -> Image {
    let mut archives = vec![busybox_archive()];
    for (number, length) in bytes.iter().enumerate() {
        let noise = noise(*length, seed * 1000 + number as u64 + 1);
        archives.push(tar_of(&[(&format!("noise-{seed}-{number}"), &noise)]));
    }
    let mut image = Image::of(&archives, &json!({"Env": ["PATH=/bin"]}));
    let kind = "application/vnd.oci.image.layer.v1.tar";
    let layers: Vec<_> = archives.iter().map(|archive| Descriptor::of(kind, archive).json()).collect();
    image.manifest["layers"] = json!(layers);
    image.layers = archives;
    image
}

/// A registry with these images, `app:<number>`.
fn registry(node: &Node, images: &[Image]) -> Registry {
    let mut content = Content::default();
    for (number, image) in images.iter().enumerate() {
        let descriptor = content.image(image);
        content.tag("app", &number.to_string(), &descriptor);
    }
    serve(node, move |request| content.answer(request))
}

fn name(number: usize) -> String {
    format!("{REGISTRY}/app:{number}")
}

fn run_and_remove(node: &Node, number: usize) {
    let pod = format!("p{number}");
    node.run(&of(&pod, &name(number), "IfNotPresent"));
    node.wait_running(&pod);
    node.remove(&pod);
    node.wait_gone(&pod);
}

fn names(node: &Node) -> Vec<String> {
    let names = node.coracle_ok(&["image", "ls", "--output", "name"]);
    names.lines().filter_map(|line| line.strip_prefix(&format!("{REGISTRY}/"))).map(str::to_owned).collect()
}

fn sorted_names(node: &Node) -> Vec<String> {
    let mut names = names(node);
    names.sort();
    names
}

/// What there is of images, in bytes.
pub(super) fn df(node: &Node) -> Value {
    serde_json::from_str(&node.coracle_ok(&["image", "df", "--output", "json"])).unwrap()
}

#[test]
fn a_full_disk_is_cleared_of_what_nobody_uses_and_else_the_pull_says_so() {
    needs_root!();
    let configuration =
        "imageGCHighThresholdPercent: 100\nimageGCLowThresholdPercent: 99\nimageMinimumGCAge: 1ms\n";
    let node = Node::start_on(machine(128 * MIB), configuration, Vec::new());
    let images = [large(1, &[40 * MIB]), large(2, &[20 * MIB, 60 * MIB]), large(3, &[20 * MIB, 200 * MIB])];
    let registry = registry(&node, &images);
    run_and_remove(&node, 0);
    // There is no room for both.
    node.run(&of("second", &name(1), "IfNotPresent"));
    node.wait_running("second");
    assert_eq!(names(&node), ["app:1"]);
    let failed = events(&node, "pod/second").into_iter().find(|(reason, _)| reason == "Failed");
    assert_eq!(failed, None, "room is made before anybody is told that there is none");

    node.run(&of("third", &name(2), "IfNotPresent"));
    let seen = node.wait_pod("third", "to fail", |pod| waiting(pod).0 == "ErrImagePull");
    let (_, message) = waiting(&seen);
    assert!(message.contains("unpacking needs at least") && message.contains("are kept free"), "{message}");
    node.remove("third");
    node.wait_gone("third");
    assert_eq!(names(&node), ["app:1"], "what is in use stays");
    node.coracle_ok(&["image", "export", &name(1), "/dev/null"]);

    // The next pull finds its room.
    node.remove("second");
    node.wait_gone("second");
    run_and_remove(&node, 0);
    node.coracle_ok(&["image", "export", &name(0), "/dev/null"]);
    node.coracle_ok(&["image", "prune", "--all", "--force"]);
    let left = df(&node);
    assert_eq!(
        (&left["inFlight"], &left["unreferenced"], &left["layers"]),
        (&json!(0), &json!(0), &json!(0))
    );
    drop(registry);
    node.finish();
}

#[test]
fn images_go_least_recently_used_first_once_the_disk_is_as_full_as_is_configured() {
    needs_root!();
    // Of 200 MiB, some ten of which are the file system's: more than 140 bring it down to 100.
    let configuration =
        "imageGCHighThresholdPercent: 70\nimageGCLowThresholdPercent: 50\nimageMinimumGCAge: 1ms\n";
    let node = Node::start_on(machine(200 * MIB), configuration, Vec::new());
    let images: Vec<_> = (0..6).map(|number| large(number + 1, &[30 * MIB])).collect();
    let registry = registry(&node, &images);
    node.run(&of("stays", &name(0), "IfNotPresent"));
    node.wait_running("stays");
    run_and_remove(&node, 1);
    run_and_remove(&node, 2);
    // It was used before the others, and is again.
    run_and_remove(&node, 1);
    assert_eq!(names(&node).len(), 3);
    run_and_remove(&node, 3);
    wait_until("the least recently used to go", SOON, || !names(&node).contains(&"app:2".to_owned()));
    let left = names(&node);
    assert!(left.contains(&"app:0".to_owned()) && left.contains(&"app:3".to_owned()), "{left:?}");

    // What pods use is not taken from them, and who holds the space is said.
    for number in [3, 4, 5] {
        let pod = format!("uses-{number}");
        node.run(&of(&pod, &name(number), "IfNotPresent"));
        node.wait_running(&pod);
    }
    let beginning = "Failed to garbage collect required amount of images. Attempted to free ";
    let said = wait_event(&node, "node/node", "FreeDiskSpaceFailed", beginning);
    assert!(said.contains("used by pod default/") && said.contains("bytes in use, images have "), "{said}");
    assert_eq!(node.pods().len(), 4);
    for pod in ["stays", "uses-3", "uses-4", "uses-5"] {
        node.wait_running(pod);
    }
    drop(registry);
    node.finish();
}

#[test]
fn thresholds_that_change_count_for_the_images_that_are_there() {
    needs_root!();
    let never = "imageGCHighThresholdPercent: 100\nimageGCLowThresholdPercent: 99\nimageMinimumGCAge: 1ms\n";
    let node = Node::start_on(machine(200 * MIB), never, Vec::new());
    let images: Vec<_> = (0..4).map(|number| large(number + 1, &[30 * MIB])).collect();
    let registry = registry(&node, &images);
    node.run(&of("stays", &name(0), "IfNotPresent"));
    node.wait_running("stays");
    for number in 1..4 {
        run_and_remove(&node, number);
    }
    assert_eq!(names(&node).len(), 4);
    // Nothing is pulled or used from here on, and it would be five minutes until it is looked again.
    node.reload_agent(
        "imageGCHighThresholdPercent: 60\nimageGCLowThresholdPercent: 50\nimageMinimumGCAge: 1ms\n",
    );
    wait_event(
        &node,
        "node/node",
        "ConfigurationReloaded",
        "The configuration was read again, and counts from now on: imageGCHighThresholdPercent, \
         imageGCLowThresholdPercent",
    );
    wait_until("the least recently used to go", SOON, || sorted_names(&node) == ["app:0", "app:3"]);
    node.wait_running("stays");

    // Where the old ones are younger than they may have to be, they stay.
    run_and_remove(&node, 1);
    node.reload_agent(
        "imageGCHighThresholdPercent: 20\nimageGCLowThresholdPercent: 10\nimageMinimumGCAge: 1h\n",
    );
    wait_event(
        &node,
        "node/node",
        "FreeDiskSpaceFailed",
        "Failed to garbage collect required amount of images.",
    );
    assert_eq!(sorted_names(&node), ["app:0", "app:1", "app:3"]);
    drop(registry);
    node.finish();
}

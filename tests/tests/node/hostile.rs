//! Images and volumes that try to reach the host.

use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use coracle_tests::images;
use coracle_tests::manifests::{idle, pod, shell, with, with_host_path};
use coracle_tests::needs_root;
use coracle_tests::node::{Node, container_status};
use serde_json::json;

const SECRET: &str = "the host's secret";

/// A directory of the host that nothing in a container may read, change or add to.
struct Canary {
    directory: PathBuf,
}

impl Canary {
    fn new(node: &Node) -> Self {
        let directory = node.path("canary");
        fs::create_dir(&directory).unwrap();
        fs::write(directory.join("secret"), SECRET).unwrap();
        fs::write(directory.join("null"), "").unwrap();
        fs::set_permissions(&directory, fs::Permissions::from_mode(0o777)).unwrap();
        Self { directory }
    }

    fn assert_untouched(&self) {
        let mut names: Vec<_> =
            fs::read_dir(&self.directory).unwrap().map(|entry| entry.unwrap().file_name()).collect();
        names.sort();
        assert_eq!(names, ["null", "secret"], "something was made in a directory of the host");
        assert_eq!(fs::read_to_string(self.directory.join("secret")).unwrap(), SECRET);
        assert_eq!(fs::read_to_string(self.directory.join("null")).unwrap(), "");
        assert_eq!(fs::metadata(&self.directory).unwrap().permissions().mode() & 0o7777, 0o777);
    }
}

/// Imports busybox's root file system after `spoil` was at it.
fn import(node: &Node, name: &str, spoil: impl FnOnce(&Path)) -> String {
    let rootfs = node.path(format!("rootfs-{name}"));
    images::unpack("busybox", &rootfs);
    spoil(&rootfs);
    let image = format!("localhost/{name}:1");
    node.coracle_ok(&["image", "import", rootfs.to_str().unwrap(), "--name", &image]);
    image
}

fn replace_by_link(path: &Path, target: &Path) {
    if path.is_dir() {
        fs::remove_dir_all(path).unwrap();
    } else {
        let _ = fs::remove_file(path);
    }
    symlink(target, path).unwrap();
}

/// Waits until the container ran or was refused; everything it and the node said.
fn outcome(node: &Node, name: &str) -> String {
    let seen = node.wait_pod(name, "to run or be refused", |pod| {
        let state = &container_status(pod, "c")["state"];
        let waiting = state["waiting"]["reason"].as_str().unwrap_or_default();
        state["terminated"].is_object() || waiting.ends_with("Error") || waiting == "CrashLoopBackOff"
    });
    format!("{}\n{}", seen["status"], node.logs(name, "c"))
}

#[test]
fn links_in_the_places_of_system_directories_lead_nowhere() {
    needs_root!();
    let node = Node::start();
    let canary = Canary::new(&node);
    for place in ["dev", "proc", "sys", "etc", "run", "tmp"] {
        let image = import(&node, &format!("link-{place}"), |rootfs| {
            replace_by_link(&rootfs.join(place), &canary.directory);
        });
        let script = "cat /secret /dev/secret /proc/secret /sys/secret /etc/secret 2>/dev/null; \
                      echo x > /etc/made; echo x > /dev/made; echo x > /tmp/made; exit 0";
        let one = with(shell("c", script), "image", json!(image));
        let name = format!("link-{place}");
        node.run(&with(pod(&name, vec![one]), "spec.restartPolicy", json!("Never")));
        let said = outcome(&node, &name);
        assert!(!said.contains(SECRET), "{place}: {said}");
        canary.assert_untouched();
    }
    node.finish();
}

#[test]
fn a_mount_point_behind_links_is_beneath_the_root() {
    needs_root!();
    let node = Node::start();
    let canary = Canary::new(&node);
    let image = import(&node, "links", |rootfs| {
        symlink(&canary.directory, rootfs.join("absolute")).unwrap();
        symlink(
            "../../../../../../../../..".to_owned() + canary.directory.to_str().unwrap(),
            rootfs.join("relative"),
        )
        .unwrap();
        symlink("loop", rootfs.join("loop")).unwrap();
    });
    let data = node.path("data");
    for (number, place) in
        ["/absolute/new", "/relative/new", "/absolute", "/loop/x", "/proc/self/root/x"].iter().enumerate()
    {
        let one = with(
            shell("c", "cat /absolute/secret /relative/secret 2>/dev/null; exit 0"),
            "image",
            json!(image),
        );
        let name = format!("links-{number}");
        let one = with_host_path(pod(&name, vec![one]), "data", &data, place);
        node.run(&with(one, "spec.restartPolicy", json!("Never")));
        let said = outcome(&node, &name);
        assert!(!said.contains(SECRET), "{place}: {said}");
        canary.assert_untouched();
    }
    assert!(fs::read_dir(&data).unwrap().next().is_none(), "nothing was made in the volume either");
    node.finish();
}

#[test]
fn a_working_directory_cannot_be_a_descriptor_of_the_runtimes() {
    needs_root!();
    let node = Node::start();
    for descriptor in 3..16 {
        let name = format!("fd-{descriptor}");
        let place = format!("/proc/self/fd/{descriptor}");
        let one = with(shell("c", "ls -a .; ls ..; echo entered"), "workingDir", json!(place));
        node.run(&with(pod(&name, vec![one]), "spec.restartPolicy", json!("Never")));
    }
    for descriptor in 3..16 {
        let said = outcome(&node, &format!("fd-{descriptor}"));
        assert!(!said.contains("entered"), "descriptor {descriptor}: {said}");
    }
    node.finish();
}

#[test]
fn devices_are_the_runtimes_own() {
    needs_root!();
    let node = Node::start();
    let canary = Canary::new(&node);
    let image = import(&node, "devices", |rootfs| {
        symlink(canary.directory.join("null"), rootfs.join("dev/null")).unwrap();
        fs::write(rootfs.join("dev/zero"), "not zero").unwrap();
        symlink(&canary.directory, rootfs.join("dev/pts")).unwrap();
        symlink(&canary.directory, rootfs.join("dev/shm")).unwrap();
    });
    let script = "echo gone > /dev/null; stat -c '%F %t:%T' /dev/null /dev/zero; head -c 1 /dev/zero | od -An -tx1; \
                  echo x > /dev/shm/made; exit 0";
    let one = with(shell("c", script), "image", json!(image));
    node.run(&with(pod("devices", vec![one]), "spec.restartPolicy", json!("Never")));
    let said = outcome(&node, "devices");
    let expected = "character special file 1:3\ncharacter special file 1:5\n 00\n";
    assert!(said.ends_with(expected), "{said}");
    canary.assert_untouched();
    node.finish();
}

#[test]
fn a_device_of_the_host_cannot_be_opened() {
    needs_root!();
    let node = Node::start();
    let script = "mknod /mem c 1 1 && head -c 1 /mem > /x 2>&1 && echo read; mknod /null c 1 3 && echo y > /null && echo ok";
    node.run(&with(pod("device", vec![shell("c", script)]), "spec.restartPolicy", json!("Never")));
    let said = outcome(&node, "device");
    assert!(said.ends_with("ok\n") && !said.contains("read\n"), "{said}");
    node.finish();
}

#[test]
fn a_sub_path_that_is_swapped_while_it_is_mounted_stays_in_its_volume() {
    needs_root!();
    let node = Node::start();
    let canary = Canary::new(&node);
    let data = node.path("data");
    fs::create_dir_all(data.join("d")).unwrap();
    fs::write(data.join("d/harmless"), "").unwrap();
    symlink(&canary.directory, data.join("l")).unwrap();
    let racer = "cd /data; while :; do mv d x; mv l d; mv d l; mv x d; done 2>/dev/null";
    node.run(&with_host_path(pod("racer", vec![shell("c", racer)]), "data", &data, "/data"));
    node.wait_running("racer");

    let end = Instant::now() + Duration::from_secs(5);
    let mut number = 0;
    while Instant::now() < end || number < 10 {
        let name = format!("victim-{number}");
        let script = "cat /m/secret 2>/dev/null; touch /m/made 2>/dev/null; exit 0";
        let mut one = with_host_path(pod(&name, vec![shell("c", script)]), "data", &data, "/m");
        one["spec"]["containers"][0]["volumeMounts"][0]["subPath"] = json!("d");
        node.run(&with(one, "spec.restartPolicy", json!("Never")));
        let said = outcome(&node, &name);
        assert!(!said.contains(SECRET), "{said}");
        canary.assert_untouched();
        node.remove(&name);
        number += 1;
    }
    node.finish();
}

#[test]
fn a_container_cannot_reach_the_program_that_made_it() {
    needs_root!();
    let node = Node::start();
    node.run(&pod("target", vec![idle("c")]));
    node.wait_running("target");
    // Whatever stands behind the links of the processes a container sees is its own.
    let script = "for p in /proc/[0-9]*; do readlink $p/exe; done | sort -u";
    let seen = node.coracle_ok(&["exec", "target", "--", "sh", "-c", script]);
    for line in seen.lines() {
        assert!(line.ends_with("/busybox"), "{seen}");
    }
    node.finish();
}

//! Devices of our own plugin by configuration, with real devices of the kernel's.

use std::fs;

use coracle_tests::images::BUSYBOX;
use coracle_tests::machine::Machine;
use coracle_tests::manifests::{idle, pod, with};
use coracle_tests::needs_root;
use coracle_tests::node::{Answer, Node};
use coracle_tests::wait::{SOON, wait_until};
use rustix::fs::{CWD, FileType, Mode, makedev, mknodat};
use serde_json::{Value, json};

use super::amounts;
use super::plugin::pod_resources;
use crate::systemd::{has_systemd, scope, systemctl};

const IMAGE: &str = "localhost/devices:debian";
/// A device of the host's.
#[derive(Clone, Copy)]
struct Real {
    name: &'static str,
    path: &'static str,
    number: (u32, u32),
    /// What using it takes.
    capabilities: &'static [&'static str],
}

const DEVICES: [Real; 3] = [
    Real { name: "tun", path: "/dev/net/tun", number: (10, 200), capabilities: &["NET_ADMIN"] },
    Real { name: "fuse", path: "/dev/fuse", number: (10, 229), capabilities: &["SYS_ADMIN"] },
    Real { name: "kvm", path: "/dev/kvm", number: (10, 232), capabilities: &[] },
];
/// Device nodes of one kind that are the test's own, which opening does nothing to, and which need not be there.
const OWN: [(&str, (u32, u32)); 3] = [("own-a", (10, 200)), ("own-b", (195, 250)), ("own-c", (195, 251))];

/// A node that offers these by our plugin.
fn node(resources: &Value) -> Node {
    node_with(resources, "")
}

/// The same, with this in the agent's configuration file.
fn node_with(resources: &Value, configuration: &str) -> Node {
    let machine = Machine::new();
    for (name, (major, minor)) in OWN {
        let mode = Mode::from_raw_mode(0o666);
        let path = machine.path(name);
        mknodat(CWD, &path, FileType::CharacterDevice, mode, makedev(major, minor)).unwrap();
    }
    let off = json!({"enabled": false});
    let offered = json!({"resources": resources, "nvidia": off, "amd": off, "intel": off});
    let text = offered.to_string().replace("$OWN", &machine.path("own-").display().to_string());
    let file = machine.path("devices.json");
    fs::write(&file, text).unwrap();
    let configuration = format!("devicePluginConfig: {}\n{configuration}", file.display());
    Node::start_on(machine, &configuration, Vec::new())
}

fn resource(name: &str, shares: u32, path: &str) -> Value {
    json!({"name": format!("test.dev/{name}"), "shares": shares, "devices": [{"paths": [{"path": path}]}]})
}

fn asking(name: &str, image: &str, resources: &[(&str, u32)]) -> Value {
    let limits: Value =
        resources.iter().map(|(name, count)| (format!("test.dev/{name}"), json!(count))).collect();
    let container = with(idle("a"), "resources", json!({"limits": limits}));
    pod(name, vec![with(container, "image", json!(image))])
}

fn in_pod(node: &Node, pod: &str, script: &str) -> Answer {
    node.coracle(&["exec", pod, "--", "sh", "-c", script])
}

/// Whether it may be opened that way (`<` or `>`). What nothing answers at may be as well, and fails otherwise.
fn may_open(node: &Node, pod: &str, how: &str, path: &str) -> bool {
    let answer = in_pod(node, pod, &format!(": 3{how} {path}"));
    let refused = answer.stderr.contains("Operation not permitted");
    assert!(refused || answer.code == 0 || answer.stderr.contains("o such device"), "{}", answer.stderr);
    !refused
}

/// Whether a node of this number that the container makes itself may be opened that way.
fn may_make(node: &Node, pod: &str, how: &str, (major, minor): (u32, u32)) -> bool {
    let script =
        format!("mkdir -p /tmp; rm -f /tmp/made; mknod /tmp/made c {major} {minor} && : 3{how} /tmp/made");
    let answer = in_pod(node, pod, &script);
    !answer.stderr.contains("Operation not permitted")
}

/// The devices that this host has and lets root open.
fn there() -> Vec<Real> {
    let opens = |path: &str| fs::File::options().read(true).write(true).open(path);
    let usable = |it: &Real| {
        let said = |error: &std::io::Error| {
            println!("not tried: {}, since {} cannot be opened: {error}", it.name, it.path);
        };
        opens(it.path).inspect_err(said).is_ok()
    };
    DEVICES.into_iter().filter(usable).collect()
}

#[test]
fn real_devices_work_where_they_were_asked_for_and_open_nowhere_else() {
    needs_root!();
    let devices = there();
    let offered: Vec<_> = devices.iter().map(|it| resource(it.name, 2, it.path)).collect();
    let node = node(&json!(offered));
    node.import("devices", IMAGE);
    for Real { name, capabilities, .. } in &devices {
        wait_until(format!("{name} to be offered"), SOON, || {
            amounts(&node, &format!("test.dev/{name}")).1 == json!("2")
        });
        let pod = asking(name, IMAGE, &[(name, 1)]);
        let security = json!({"capabilities": {"add": capabilities}});
        node.run(&with(pod, "spec.containers.0.securityContext", security));
    }
    for Real { name, path, number, .. } in &devices {
        let running = node.wait_running(name);
        let used = in_pod(&node, name, &format!("use-device {name}"));
        assert!(used.code == 0, "{name}: {}{}", used.stdout, used.stderr);
        let id = format!("{}::0", path.trim_start_matches("/dev/").replace('/', "-"));
        let status = &running["status"]["containerStatuses"][0]["allocatedResourcesStatus"];
        let healthy = json!([{"resourceID": id, "health": "Healthy"}]);
        assert_eq!(*status, json!([{"name": format!("test.dev/{name}"), "resources": healthy}]));
        assert_eq!(pod_resources(&node)[*name], [id]);
        // It has this one and none of the others, and can make nodes of none.
        for other in devices.iter().filter(|other| other.number != *number) {
            assert_ne!(
                in_pod(&node, name, &format!("test -e {}", other.path)).code,
                0,
                "{name} has {}",
                other.name
            );
            assert!(!may_make(&node, name, "<", other.number), "{name} opens {}", other.name);
        }
        assert!(!may_make(&node, name, "<", (1, 11)), "{name} opens the kernel's log");
        assert!(!may_make(&node, name, "<", (1, 1)), "{name} opens the machine's memory");
    }
    for Real { name, .. } in &devices {
        node.remove(name);
    }
    node.finish();
}

#[test]
fn where_systemd_is_reloaded_or_executed_anew_a_container_opens_its_device_and_no_other() {
    needs_root!();
    if !has_systemd() {
        return;
    }
    let paths = json!([{"path": "$OWNa", "containerPath": "/dev/own", "permissions": "r"}]);
    let resources = json!([{"name": "test.dev/own", "devices": [{"paths": paths}]}]);
    let mut node = node_with(&resources, "cgroupDriver: systemd\n");
    node.run(&asking("own", BUSYBOX, &[("own", 1)]));
    let running = node.wait_running("own");
    let check = |node: &Node, after: &str| {
        assert!(may_open(node, "own", "<", "/dev/own"), "after {after}: its own device");
        assert!(!may_open(node, "own", ">", "/dev/own"), "after {after}: more than it was given");
        assert!(!may_make(node, "own", "<", OWN[1].1), "after {after}: another device");
    };
    let scope = scope(&node, &running);
    let units = scope.ancestors().filter_map(|path| path.file_name()?.to_str());
    let units: Vec<_> = units.filter(|it| it.ends_with(".scope") || it.ends_with(".slice")).collect();
    assert!(units.len() > 1, "{units:?}");
    for verb in ["daemon-reload", "daemon-reexec"] {
        systemctl(&[verb]);
        check(&node, verb);
        for unit in &units {
            systemctl(&["set-property", "--runtime", unit, "CPUWeight=200"]);
            systemctl(&["set-property", "--runtime", unit, "CPUWeight=100"]);
        }
        check(&node, "properties that were set");
    }
    node.kill_agent();
    systemctl(&["daemon-reload"]);
    node.start_agent();
    check(&node, "the agent's end and beginning");
    node.remove("own");
    node.finish();
}

#[test]
fn of_devices_of_one_kind_a_container_has_its_own_and_may_do_what_is_said() {
    needs_root!();
    let resources = json!([{
        "name": "test.dev/own",
        "devices": [{"paths": [{"path": "$OWN*", "containerPath": "/dev/own/*", "permissions": "r"}]}],
    }]);
    let node = node(&resources);
    wait_until("three devices", SOON, || amounts(&node, "test.dev/own").1 == json!("3"));
    let numbers = |pod: &str| in_pod(&node, pod, "cd /dev/own && ls").stdout;
    node.run(&asking("both", BUSYBOX, &[("own", 2)]));
    node.wait_running("both");
    node.run(&asking("last", BUSYBOX, &[("own", 1)]));
    node.wait_running("last");
    node.run(&asking("late", BUSYBOX, &[("own", 1)]));
    let refused = node.wait_phase("late", "Failed");
    assert_eq!(refused["status"]["reason"], "OutOftest.dev/own");
    let (both, last) = (numbers("both"), numbers("last"));
    let mut all: Vec<&str> = both.lines().chain(last.lines()).collect();
    all.sort_unstable();
    assert!(both.lines().count() == 2 && all == ["a", "b", "c"], "{both:?} {last:?}");
    for (name, number) in OWN {
        let id = name.trim_start_matches("own-");
        let (owner, other) = if last.trim() == id { ("last", "both") } else { ("both", "last") };
        let path = format!("/dev/own/{id}");
        assert!(may_open(&node, owner, "<", &path), "{owner} reads {id}");
        assert!(!may_open(&node, owner, ">", &path), "{owner} writes {id}, which it may read");
        assert!(!may_make(&node, owner, ">", number), "{owner} writes {id} by a node of its own");
        assert!(!may_make(&node, other, "<", number), "{other} opens {id}, which is another's");
    }
    for name in ["both", "last", "late"] {
        node.remove(name);
    }
    node.finish();
}

#[test]
fn as_many_pods_share_a_device_as_it_has_shares() {
    needs_root!();
    let paths = json!([{"path": "$OWNa", "containerPath": "/dev/shared"}]);
    let resource = json!({"name": "test.dev/shared", "shares": 3, "devices": [{"paths": paths}]});
    let node = node(&json!([resource]));
    wait_until("three shares", SOON, || amounts(&node, "test.dev/shared") == (json!("3"), json!("3")));
    for name in ["one", "two", "three"] {
        node.run(&asking(name, BUSYBOX, &[("shared", 1)]));
        node.wait_running(name);
        assert!(may_open(&node, name, "<", "/dev/shared"), "{name}");
    }
    node.run(&asking("four", BUSYBOX, &[("shared", 1)]));
    let refused = node.wait_phase("four", "Failed");
    assert_eq!(refused["status"]["reason"], "OutOftest.dev/shared");

    // One that ends leaves its share to the next.
    node.remove("two");
    node.run(&asking("five", BUSYBOX, &[("shared", 1)]));
    node.wait_running("five");
    let mut given: Vec<String> = pod_resources(&node).into_values().flatten().collect();
    given.sort();
    given.dedup();
    assert_eq!(given.len(), 3, "{given:?}");
    for name in ["one", "three", "four", "five"] {
        node.remove(name);
    }
    node.finish();
}

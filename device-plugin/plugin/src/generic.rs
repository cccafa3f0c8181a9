//! Devices by configuration: what paths match.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;

use coracle_model::DeviceNode;

use crate::config::{GenericResource, Group, GroupPath};
use crate::device::{Device, Grant, Resource, node};
use crate::glob::Match;
use crate::host::Host;

/// More devices of one resource are not offered: a kubelet is told of each in one message.
const MOST_DEVICES: usize = 4096;

/// What there is of a resource. The directories that decide it are added to `looked`.
pub(crate) fn discover(resource: &GenericResource, host: &Host, looked: &mut BTreeSet<PathBuf>) -> Resource {
    let mut devices = Vec::new();
    // By another path it is the same device still, and nobody else's: a link by its serial number, say, and its own name.
    let mut mains = BTreeSet::new();
    for group in &resource.groups {
        let members = members(group, host, looked);
        devices.extend(members.into_iter().filter(|(main, _)| mains.insert(main.clone())).map(|(_, it)| it));
    }
    if devices.len() > MOST_DEVICES {
        tracing::warn!(
            resource = resource.name,
            there = devices.len(),
            most = MOST_DEVICES,
            "more devices match than are offered"
        );
        devices.truncate(MOST_DEVICES);
    }
    Resource::new(resource.name.clone(), devices, resource.shares)
}

/// The devices of a group: one for each match of its first path, and the node that this one leads to.
fn members(group: &Group, host: &Host, looked: &mut BTreeSet<PathBuf>) -> Vec<(String, Device)> {
    let first = group.first.glob.find(host.root(), looked);
    let rest: Vec<(&GroupPath, BTreeMap<Vec<String>, Match>)> = group
        .rest
        .iter()
        .map(|path| {
            let matches = path.glob.find(host.root(), looked);
            (path, matches.into_iter().map(|found| (found.captures.clone(), found)).collect())
        })
        .collect();
    // What is at the end of a link decides too.
    let matches = first.iter().chain(rest.iter().flat_map(|(_, found)| found.values()));
    for found in matches {
        if let Some(directory) =
            host.node(&found.path).and_then(|node| Some(host.at(node.rsplit_once('/')?.0)))
        {
            looked.insert(directory);
        }
    }
    first.iter().filter_map(|found| member(group, found, &rest, host)).collect()
}

fn member(
    group: &Group,
    found: &Match,
    rest: &[(&GroupPath, BTreeMap<Vec<String>, Match>)],
    host: &Host,
) -> Option<(String, Device)> {
    // What is no device node is no device; a pattern such as /dev/* matches directories too.
    let main = host.node(&found.path)?;
    let mut missing = None;
    let mut nodes = vec![grant_of(&group.first, found, &main)];
    for (path, matches) in rest {
        let wanted = if path.glob.wildcards() == 0 { &Vec::new() } else { &found.captures };
        let other = matches.get(wanted).and_then(|other| Some((other, host.node(&other.path)?)));
        match other {
            Some((other, resolved)) => nodes.push(grant_of(path, other, &resolved)),
            None if path.optional => {}
            None => missing = Some(format!("there is no device node for {}", path.glob.as_str())),
        }
    }
    let sysfs = sysfs_of(host, &main);
    let device = Device {
        id: id_of(&found.path),
        unhealthy: missing,
        numa: sysfs.as_deref().and_then(|device| host.numa(device)),
        place: sysfs.as_deref().map(|device| host.place(device)).unwrap_or_default(),
        grant: Grant { nodes, ..Grant::default() },
    };
    Some((main, device))
}

/// The node as the container gets it: at the configured path, or at the one it was found by, which a program may look for.
fn grant_of(path: &GroupPath, found: &Match, resolved: &str) -> DeviceNode {
    let inside = match &path.container_path {
        None => found.path.clone(),
        Some(pattern) => {
            let mut captures = found.captures.iter();
            let parts: Vec<&str> = pattern.split('*').collect();
            let mut text = String::new();
            for (position, part) in parts.iter().enumerate() {
                if position > 0 {
                    text.push_str(captures.next().map(String::as_str).unwrap_or_default());
                }
                text.push_str(part);
            }
            text
        }
    };
    node(&inside, resolved, &path.permissions)
}

/// A device's name: its path below /dev. Of what a kubelet does not like in an id nothing is left.
fn id_of(path: &str) -> String {
    path.strip_prefix("/dev/").unwrap_or(path.trim_start_matches('/')).replace('/', "-")
}

/// The device of sysfs that a node is of, where it has a name in a class or is of a bus that has one.
fn sysfs_of(host: &Host, node: &str) -> Option<String> {
    let name = node.rsplit('/').next()?;
    let classes = host.names("/sys/class");
    let paths = classes.into_iter().map(|class| format!("/sys/class/{class}/{name}/device"));
    paths.into_iter().find(|path| host.exists(path))
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::symlink;

    use super::*;
    use crate::config::Config;

    fn tree(files: &[&str]) -> tempfile::TempDir {
        let root = tempfile::tempdir().expect("a directory");
        for file in files {
            let path = root.path().join(file);
            fs::create_dir_all(path.parent().expect("below the root")).expect("directories");
            fs::write(path, "").expect("a file");
        }
        root
    }

    fn resource(yaml: &str) -> GenericResource {
        let config = Config::decode(yaml.as_bytes(), "test").expect("a configuration");
        config.resources.into_iter().next().expect("a resource")
    }

    fn summary(found: &Resource) -> Vec<(String, bool, Vec<String>)> {
        let nodes = |device: &Device| {
            device
                .grant
                .nodes
                .iter()
                .map(|it| format!("{}<-{}:{}", it.path, it.host_path, it.permissions))
                .collect()
        };
        found.devices.iter().map(|it| (it.id.clone(), it.unhealthy.is_none(), nodes(it))).collect()
    }

    #[test]
    fn paths_of_one_device_belong_together_by_what_wildcards_stand_for() {
        let root = tree(&["dev/video0", "dev/video1", "dev/media1", "dev/media7", "dev/shared"]);
        let wanted = resource(
            "resources: [{name: a.b/camera, devices: [{paths: [\
             {path: /dev/video*, containerPath: /dev/cam*}, {path: /dev/media*, permissions: r}, {path: /dev/shared},\
             {path: /dev/none, optional: true}]}]}]",
        );
        let found = discover(&wanted, &Host::new(root.path()), &mut BTreeSet::new());
        assert_eq!(
            summary(&found),
            [
                (
                    "video0".to_owned(),
                    false,
                    vec!["/dev/cam0<-/dev/video0:rw".to_owned(), "/dev/shared<-/dev/shared:rw".to_owned()]
                ),
                (
                    "video1".to_owned(),
                    true,
                    vec![
                        "/dev/cam1<-/dev/video1:rw".to_owned(),
                        "/dev/media1<-/dev/media1:r".to_owned(),
                        "/dev/shared<-/dev/shared:rw".to_owned()
                    ]
                )
            ]
        );
        let why = found.devices.first().and_then(|device| device.unhealthy.clone());
        assert_eq!(why.as_deref(), Some("there is no device node for /dev/media*"));
    }

    #[test]
    fn a_link_is_followed_and_its_name_kept() {
        let root = tree(&["dev/ttyUSB3", "dev/serial/by-id/README/x"]);
        symlink("../../ttyUSB3", root.path().join("dev/serial/by-id/usb-FTDI_1")).expect("a link");
        symlink("../../ttyUSB4", root.path().join("dev/serial/by-id/usb-gone")).expect("a link");
        let wanted =
            resource("resources: [{name: a.b/serial, devices: [{paths: [{path: /dev/serial/by-id/*}]}]}]");
        let mut looked = BTreeSet::new();
        let found = discover(&wanted, &Host::new(root.path()), &mut looked);
        let nodes = vec!["/dev/serial/by-id/usb-FTDI_1<-/dev/ttyUSB3:rw".to_owned()];
        assert_eq!(summary(&found), [("serial-by-id-usb-FTDI_1".to_owned(), true, nodes)]);
        assert!(looked.contains(&root.path().join("dev")), "{looked:?}");
    }

    #[test]
    fn a_device_that_two_paths_lead_to_is_offered_once() {
        let root = tree(&["dev/ttyACM0", "dev/ttyACM1", "dev/serial/by-id/README/x"]);
        for link in ["usb-Arduino_1", "usb-Arduino_1-if00"] {
            symlink("../../ttyACM1", root.path().join("dev/serial/by-id").join(link)).expect("a link");
        }
        let wanted = resource(
            "resources: [{name: a.b/serial, devices: [\
             {paths: [{path: /dev/serial/by-id/*}]}, {paths: [{path: /dev/ttyACM*}]}, {paths: [{path: \"/dev/tty*0\"}]}]}]",
        );
        let found = discover(&wanted, &Host::new(root.path()), &mut BTreeSet::new());
        let ids: Vec<_> = found.devices.iter().map(|it| it.id.as_str()).collect();
        assert_eq!(ids, ["serial-by-id-usb-Arduino_1", "ttyACM0"]);
    }

    #[test]
    fn a_device_knows_its_numa_node() {
        let root = tree(&["dev/vfio1", "sys/devices/pci0000:00/0000:00:01.0/x", "sys/class/vfio/vfio1/x"]);
        fs::write(root.path().join("sys/devices/pci0000:00/0000:00:01.0/numa_node"), "1\n").expect("a file");
        symlink("../../../devices/pci0000:00/0000:00:01.0", root.path().join("sys/class/vfio/vfio1/device"))
            .expect("a link");
        let wanted = resource("resources: [{name: a.b/vfio, devices: [{paths: [{path: /dev/vfio1}]}]}]");
        let found = discover(&wanted, &Host::new(root.path()), &mut BTreeSet::new());
        assert_eq!(found.devices.first().and_then(|it| it.numa), Some(1));
    }

    #[test]
    fn a_node_of_this_machine_is_a_node_and_a_file_is_none() {
        let wanted = resource(
            "resources: [{name: a.b/null, devices: [{paths: [{path: /dev/null}]}, {paths: [{path: /etc/passwd, containerPath: /dev/passwd}]}]}]",
        );
        let found = discover(&wanted, &Host::new("/".as_ref()), &mut BTreeSet::new());
        assert_eq!(summary(&found), [("null".to_owned(), true, vec!["/dev/null<-/dev/null:rw".to_owned()])]);
    }
}

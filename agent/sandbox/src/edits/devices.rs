//! Device nodes: what they are on the host, and what the container may do with them.

use std::collections::BTreeMap;
use std::fs::{self, Metadata};
use std::io;
use std::os::unix::fs::{FileTypeExt as _, MetadataExt as _};
use std::path::{Path, PathBuf};

use coracle_cgroup::{Access, DeviceKind, DeviceRule};
use coracle_model::{DeviceNode, DeviceNumbers};
use oci_spec::runtime::{LinuxDevice, LinuxDeviceBuilder, LinuxDeviceType};
use rustix::fs::{major, minor};

use super::{check_path, refuse};
use crate::error::Error;

const EDIT: &str = "device node";

/// As many nodes as one container is given at most: a directory of the host may be large.
const MOST_NODES: usize = 4096;
/// How deep directories of nodes lie at most.
const MOST_DEPTH: usize = 8;
/// What is in /dev of every container: its own terminals and memory, and links.
const OWN: [&str; 9] = [
    "/dev/pts",
    "/dev/shm",
    "/dev/mqueue",
    "/dev/fd",
    "/dev/stdin",
    "/dev/stdout",
    "/dev/stderr",
    "/dev/core",
    "/dev/ptmx",
];
/// Where nobody makes a file.
const KERNELS: [&str; 2] = ["/proc", "/sys"];
/// The mode of a node that nothing is known of (as under runc).
const MODE: u32 = 0o666;

/// What a node is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Node {
    kind: LinuxDeviceType,
    major: u32,
    minor: u32,
}

/// The nodes init makes, and the rules that let the container use them. A later edit of the same path counts.
pub(super) fn prepare(nodes: &[DeviceNode]) -> Result<(Vec<LinuxDevice>, Vec<DeviceRule>), Error> {
    let mut devices: Vec<LinuxDevice> = Vec::new();
    let mut rules: BTreeMap<_, DeviceRule> = BTreeMap::new();
    for node in nodes {
        for (path, device, rule) in expand(node)? {
            devices.retain(|known| *known.path() != path);
            devices.push(device);
            if let Some(rule) = rule {
                // One rule a device: the kernel asks for all that an open needs at once.
                let known = rules.entry((rule.kind, rule.major, rule.minor)).or_insert(rule);
                known.access.read |= rule.access.read;
                known.access.write |= rule.access.write;
                known.access.mknod |= rule.access.mknod;
            }
            if devices.len() > MOST_NODES {
                return Err(refuse(
                    EDIT,
                    &node.path,
                    format!("a container has at most {MOST_NODES} of them"),
                ));
            }
        }
    }
    Ok((devices, rules.into_values().collect()))
}

type Expanded = (PathBuf, LinuxDevice, Option<DeviceRule>);

/// A node, or those in a directory.
fn expand(node: &DeviceNode) -> Result<Vec<Expanded>, Error> {
    let host = if node.host_path.is_empty() { &node.path } else { &node.host_path };
    check_path(EDIT, &node.path)?;
    check_path(EDIT, host)?;
    let access = access(node)?;
    let found = match fs::metadata(host) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => None,
        found => Some(found.map_err(crate::error::file("look at the device node", host))?),
    };
    if !(found.as_ref().is_some_and(Metadata::is_dir) && node.kind.is_none()) {
        let what = what(node, host, found.as_ref())?;
        return Ok(vec![make(node, PathBuf::from(&node.path), what, found.as_ref(), access)?]);
    }
    let mut all = Vec::new();
    walk(node, Path::new(host), Path::new(&node.path), access, 0, &mut all)?;
    if all.is_empty() {
        return Err(refuse(EDIT, host, "is a directory of the host without a device node"));
    }
    Ok(all)
}

/// Every node beneath a directory; links in it are not followed.
fn walk(
    node: &DeviceNode,
    host: &Path,
    path: &Path,
    access: Access,
    depth: usize,
    all: &mut Vec<Expanded>,
) -> Result<(), Error> {
    let failed = |error| crate::error::file("list the directory of device nodes", host)(error);
    for entry in fs::read_dir(host).map_err(failed)? {
        let entry = entry.map_err(failed)?;
        // A device may go away between being listed and being looked at.
        let Ok(metadata) = entry.metadata() else { continue };
        let (host, path) = (entry.path(), path.join(entry.file_name()));
        if metadata.is_dir() && depth < MOST_DEPTH {
            walk(node, &host, &path, access, depth + 1, all)?;
        } else if let Some(what) = of_host(&metadata) {
            all.push(make(node, path, what, Some(&metadata), access)?);
        }
        if all.len() > MOST_NODES {
            return Err(refuse(EDIT, &node.path, format!("a container has at most {MOST_NODES} of them")));
        }
    }
    Ok(())
}

/// What is to be made.
fn what(node: &DeviceNode, host: &str, found: Option<&Metadata>) -> Result<Node, Error> {
    let kind = node.kind.map(|kind| letter(node, kind)).transpose()?;
    match (kind, node.kind.and_then(|kind| kind.numbers)) {
        (Some(kind), Some((major, minor))) => return Ok(Node { kind, major, minor }),
        (Some(LinuxDeviceType::P), None) => {
            return Ok(Node { kind: LinuxDeviceType::P, major: 0, minor: 0 });
        }
        _ => {}
    }
    let Some(found) = found else {
        let why = "does not exist on the host; the device may have been removed, or its driver is not loaded";
        return Err(refuse(EDIT, host, why));
    };
    let found = of_host(found).ok_or_else(|| refuse(EDIT, host, "is no device node on the host"))?;
    match kind {
        Some(kind) if kind != found.kind => {
            let why = format!("is of type {} on the host, not {}", found.kind.as_str(), kind.as_str());
            Err(refuse(EDIT, host, why))
        }
        _ => Ok(found),
    }
}

fn of_host(metadata: &Metadata) -> Option<Node> {
    let kind = match metadata.file_type() {
        kind if kind.is_block_device() => LinuxDeviceType::B,
        kind if kind.is_char_device() => LinuxDeviceType::C,
        kind if kind.is_fifo() => LinuxDeviceType::P,
        _ => return None,
    };
    Some(Node { kind, major: major(metadata.rdev()), minor: minor(metadata.rdev()) })
}

/// `u`, an unbuffered character device, is a character device to Linux.
fn letter(node: &DeviceNode, kind: DeviceNumbers) -> Result<LinuxDeviceType, Error> {
    match kind.letter {
        'b' => Ok(LinuxDeviceType::B),
        'c' | 'u' => Ok(LinuxDeviceType::C),
        'p' => Ok(LinuxDeviceType::P),
        other => Err(refuse(EDIT, &node.path, format!("{other:?} is no type of node: b, c, u and p are"))),
    }
}

fn access(node: &DeviceNode) -> Result<Access, Error> {
    let mut access = Access { read: false, write: false, mknod: false };
    for letter in node.permissions.chars() {
        match letter {
            'r' => access.read = true,
            'w' => access.write = true,
            'm' => access.mknod = true,
            other => {
                let why = format!("{other:?} is no permission: r, w and m are");
                return Err(refuse(EDIT, &node.path, why));
            }
        }
    }
    Ok(access)
}

fn make(
    node: &DeviceNode,
    path: PathBuf,
    what: Node,
    found: Option<&Metadata>,
    access: Access,
) -> Result<Expanded, Error> {
    if OWN.iter().any(|own| path.starts_with(own)) {
        let why = "this is the container's own, whatever the host has there";
        return Err(refuse(EDIT, &path.to_string_lossy(), why));
    }
    if path.file_name().is_none()
        || path == *"/dev"
        || KERNELS.iter().any(|kernels| path.starts_with(kernels))
    {
        let why = "no node can be made there: give it a path beneath /dev";
        return Err(refuse(EDIT, &path.to_string_lossy(), why));
    }
    let host = |of: fn(&Metadata) -> u32| found.map(of);
    let mode = node.file_mode.or_else(|| host(Metadata::mode)).unwrap_or(MODE) & 0o777;
    let device = LinuxDeviceBuilder::default()
        .path(path.clone())
        .typ(what.kind)
        .major(i64::from(what.major))
        .minor(i64::from(what.minor))
        .file_mode(mode)
        .uid(node.uid.or_else(|| host(Metadata::uid)).unwrap_or(0))
        .gid(node.gid.or_else(|| host(Metadata::gid)).unwrap_or(0))
        .build()
        .map_err(Error::Spec)?;
    let kind = match what.kind {
        LinuxDeviceType::B => Some(DeviceKind::Block),
        LinuxDeviceType::C => Some(DeviceKind::Char),
        _ => None,
    };
    let nothing = !(access.read || access.write || access.mknod);
    let rule = kind.filter(|_| !nothing).map(|kind| DeviceRule {
        kind,
        major: Some(what.major),
        minor: Some(what.minor),
        access,
    });
    Ok((path, device, rule))
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    fn node(path: &str, host: &str, permissions: &str) -> DeviceNode {
        DeviceNode {
            path: path.to_owned(),
            host_path: host.to_owned(),
            kind: None,
            permissions: permissions.to_owned(),
            file_mode: None,
            uid: None,
            gid: None,
            is_users: false,
        }
    }

    fn refused(node: DeviceNode) -> String {
        prepare(&[node]).unwrap_err().to_string()
    }

    #[test]
    fn a_link_of_the_host_stands_for_what_it_leads_to() {
        let dir = tempfile::tempdir().unwrap();
        let link = dir.path().join("zero");
        std::os::unix::fs::symlink("/dev/zero", &link).unwrap();
        let (devices, rules) = prepare(&[node("/dev/mine", link.to_str().unwrap(), "r")]).unwrap();
        assert_eq!(devices[0].path(), Path::new("/dev/mine"));
        assert_eq!((devices[0].typ(), devices[0].major(), devices[0].minor()), (LinuxDeviceType::C, 1, 5));
        assert_eq!(rules[0].to_string(), "c 1:5 r");
    }

    #[test]
    fn of_two_nodes_at_one_path_the_later_is_made_and_both_may_be_used() {
        let (devices, rules) =
            prepare(&[node("/dev/a", "/dev/null", "rw"), node("/dev/a", "/dev/zero", "r")]).unwrap();
        assert_eq!(devices.len(), 1);
        assert_eq!(devices[0].minor(), 5);
        let rules: Vec<_> = rules.iter().map(ToString::to_string).collect();
        assert_eq!(rules, ["c 1:3 rw", "c 1:5 r"]);
    }

    #[test]
    fn what_is_said_of_a_node_counts_before_what_the_host_has() {
        let said = DeviceNode {
            kind: Some(DeviceNumbers { letter: 'b', numbers: Some((7, 3)) }),
            file_mode: Some(0o640),
            uid: Some(5),
            gid: Some(6),
            ..node("/dev/not-here", "", "rwm")
        };
        let (devices, rules) = prepare(&[said]).unwrap();
        let device = &devices[0];
        assert_eq!((device.typ(), device.major(), device.minor()), (LinuxDeviceType::B, 7, 3));
        assert_eq!((device.file_mode(), device.uid(), device.gid()), (Some(0o640), Some(5), Some(6)));
        assert_eq!(rules[0].to_string(), "b 7:3 rwm");
    }

    #[test]
    fn a_fifo_needs_no_rule() {
        let fifo = DeviceNode {
            kind: Some(DeviceNumbers { letter: 'p', numbers: None }),
            ..node("/dev/initctl", "", "rw")
        };
        let (devices, rules) = prepare(&[fifo]).unwrap();
        assert_eq!((devices[0].typ(), rules.len()), (LinuxDeviceType::P, 0));
    }

    #[test]
    fn what_is_no_device_is_refused_with_the_reason() {
        let kind = |letter| Some(DeviceNumbers { letter, numbers: None });
        for (node, why) in [
            (node("/dev/x", "/dev/there-is-no-such", "rw"), "does not exist"),
            (node("/dev/x", "/etc/passwd", "rw"), "no device node"),
            (node("/dev/x", "/dev/null", "rx"), "no permission"),
            (node("dev/x", "/dev/null", "r"), "absolute"),
            (node("/dev/../x", "/dev/null", "r"), ".."),
            (node("/dev/ptmx", "/dev/null", "r"), "own"),
            (node("/dev/pts/0", "/dev/null", "r"), "own"),
            (node("/proc/x", "/dev/null", "r"), "beneath /dev"),
            (node("/dev", "/dev/null", "r"), "beneath /dev"),
            (node("/", "/dev/null", "r"), "beneath /dev"),
            (DeviceNode { kind: kind('b'), ..node("/dev/null", "", "r") }, "not b"),
            (DeviceNode { kind: kind('x'), ..node("/dev/null", "", "r") }, "no type"),
        ] {
            let message = refused(node);
            assert!(message.contains(why), "{message}");
        }
    }

    #[test]
    fn a_directory_stands_for_every_node_in_it() {
        let dir = tempfile::tempdir().unwrap();
        fs::create_dir(dir.path().join("sub")).unwrap();
        let fifo = |name: &str| {
            let path = dir.path().join(name);
            rustix::fs::mknodat(rustix::fs::CWD, &path, rustix::fs::FileType::Fifo, 0o600.into(), 0).unwrap();
        };
        fifo("one");
        fifo("sub/two");
        fs::write(dir.path().join("file"), "").unwrap();
        let (devices, _) = prepare(&[node("/dev/snd", dir.path().to_str().unwrap(), "rw")]).unwrap();
        let paths: BTreeSet<_> = devices.iter().map(|device| device.path().to_owned()).collect();
        assert_eq!(paths, ["/dev/snd/one", "/dev/snd/sub/two"].map(PathBuf::from).into());
        fs::remove_file(dir.path().join("one")).unwrap();
        fs::remove_file(dir.path().join("sub/two")).unwrap();
        assert!(
            refused(node("/dev/snd", dir.path().to_str().unwrap(), "rw")).contains("without a device node")
        );
    }
}

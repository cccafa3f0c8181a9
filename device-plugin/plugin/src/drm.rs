//! A GPU by sysfs, and its nodes in /dev/dri.

use coracle_model::DeviceNode;

use crate::device::{Device, Grant, node};
use crate::host::Host;

/// The nodes of a device of sysfs: its card and render nodes, each also by its name in /dev/dri/by-path, by which a program
/// that wants a certain GPU looks for it.
pub(crate) fn nodes(host: &Host, device: &str) -> Vec<DeviceNode> {
    let names = host.names(&format!("{device}/drm"));
    let names = names.into_iter().filter(|name| is_numbered(name, "card") || is_numbered(name, "renderD"));
    let paths: Vec<String> =
        names.map(|name| format!("/dev/dri/{name}")).filter_map(|path| host.node(&path)).collect();
    let by_path = host.names("/dev/dri/by-path");
    let links = by_path.into_iter().filter_map(|name| {
        let link = format!("/dev/dri/by-path/{name}");
        let target = host.node(&link).filter(|target| paths.contains(target))?;
        Some(node(&link, &target, "rw"))
    });
    paths.iter().map(|path| node(path, path, "rw")).chain(links).collect()
}

/// The GPU that is a device of sysfs. It has its address for a name, which outlasts a restart of the machine as the numbers
/// of nodes do not; `name` where it has none.
pub(crate) fn device(
    host: &Host,
    sysfs: &str,
    name: &str,
    nodes: Vec<DeviceNode>,
    unhealthy: Option<String>,
) -> Device {
    let place = host.place(sysfs);
    Device {
        id: place.last().cloned().unwrap_or_else(|| name.to_owned()),
        unhealthy,
        numa: host.numa(sysfs),
        place,
        grant: Grant { nodes, ..Grant::default() },
    }
}

/// Whether a name is a word and a number: `card0`, and not `card0-HDMI-A-1`.
pub(crate) fn is_numbered(name: &str, word: &str) -> bool {
    name.strip_prefix(word)
        .is_some_and(|rest| !rest.is_empty() && rest.bytes().all(|byte| byte.is_ascii_digit()))
}

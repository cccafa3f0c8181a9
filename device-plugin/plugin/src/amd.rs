//! GPUs of AMD: what the kernel's compute driver (KFD) lists, with the render node of each.

use crate::config::RenderNodes;
use crate::device::{Device, Resource, node};
use crate::drm;
use crate::host::Host;

/// Where KFD lists processors and GPUs.
const TOPOLOGY: &str = "/sys/class/kfd/kfd/topology/nodes";
/// The node by which programs compute on any of them.
const KFD: &str = "/dev/kfd";

/// What there is, if anything.
pub(crate) fn discover(config: RenderNodes, host: &Host) -> Option<Resource> {
    let devices: Vec<_> = host.names(TOPOLOGY).iter().filter_map(|name| device(host, name)).collect();
    (!devices.is_empty()).then(|| Resource::new("amd.com/gpu", devices, config.shares))
}

fn device(host: &Host, name: &str) -> Option<Device> {
    let properties = host.text(&format!("{TOPOLOGY}/{name}/properties"))?;
    let property = |wanted: &str| {
        let mut lines = properties.lines().filter_map(|line| line.split_once(' '));
        lines.find(|(name, _)| *name == wanted).and_then(|(_, value)| value.trim().parse::<u64>().ok())
    };
    // A processor has no such units, and no render node.
    if property("simd_count").unwrap_or_default() == 0 {
        return None;
    }
    let minor = property("drm_render_minor").filter(|minor| *minor > 0)?;
    let sysfs = format!("/sys/class/drm/renderD{minor}/device");
    let mut nodes: Vec<_> = host.node(KFD).map(|kfd| node(KFD, &kfd, "rw")).into_iter().collect();
    let mut unhealthy = nodes.is_empty().then(|| format!("there is no {KFD}"));
    let render = format!("/dev/dri/renderD{minor}");
    let of_device = drm::nodes(host, &sysfs);
    if of_device.iter().any(|node| node.path == render) {
        nodes.extend(of_device);
    } else if let Some(resolved) = host.node(&render) {
        // A partition's node hangs at a device of its own that lists no others.
        nodes.push(node(&render, &resolved, "rw"));
    } else {
        unhealthy = Some(format!("there is no {render}"));
    }
    Some(drm::device(host, &sysfs, &format!("renderD{minor}"), nodes, unhealthy))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::Tree;

    #[test]
    fn gpus_of_the_topology_and_no_processors() {
        let tree = Tree::new();
        tree.file("dev/kfd", "");
        tree.drm("0000:c1:00.0", "0x1002", "amdgpu", 1, 128);
        tree.drm("0000:c2:00.0", "0x1002", "amdgpu", 2, 129);
        let node = |number: u32, text: &str| {
            tree.file(&format!("sys/class/kfd/kfd/topology/nodes/{number}/properties"), text)
        };
        node(0, "cpu_cores_count 16\nsimd_count 0\ndrm_render_minor 0\n");
        node(1, "cpu_cores_count 0\nsimd_count 240\ndrm_render_minor 128\nunique_id 1\n");
        node(2, "simd_count 240\ndrm_render_minor 129\n");
        node(3, "simd_count 240\ndrm_render_minor 130\n");
        let found = discover(RenderNodes { enabled: true, shares: 1 }, &tree.host()).expect("GPUs");
        let ids: Vec<_> =
            found.devices.iter().map(|it| (it.id.as_str(), it.unhealthy.as_deref(), it.numa)).collect();
        assert_eq!(
            ids,
            [
                ("0000:c1:00.0", None, Some(0)),
                ("0000:c2:00.0", None, Some(0)),
                ("renderD130", Some("there is no /dev/dri/renderD130"), None),
            ]
        );
        let paths: Vec<_> = found.devices[0].grant.nodes.iter().map(|it| it.path.as_str()).collect();
        assert_eq!(
            paths,
            [
                "/dev/kfd",
                "/dev/dri/card1",
                "/dev/dri/renderD128",
                "/dev/dri/by-path/pci-0000:c1:00.0-card",
                "/dev/dri/by-path/pci-0000:c1:00.0-render"
            ]
        );
        std::fs::remove_file(tree.path("dev/kfd")).expect("a node less");
        let found = discover(RenderNodes { enabled: true, shares: 1 }, &tree.host()).expect("GPUs");
        assert!(found.devices.iter().all(|device| device.unhealthy.is_some()));
    }

    #[test]
    fn without_the_driver_there_is_nothing() {
        assert_eq!(discover(RenderNodes { enabled: true, shares: 1 }, &Tree::new().host()), None);
    }
}

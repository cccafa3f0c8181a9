//! GPUs of Intel: one resource for each of the kernel's drivers, as Intel's own plugin names them.

use crate::config::RenderNodes;
use crate::device::{Device, Resource};
use crate::drm;
use crate::host::Host;

/// The drivers whose GPUs are offered.
const DRIVERS: &[&str] = &["i915", "xe"];

/// PCI's number of the vendor.
const VENDOR: &str = "0x8086";

/// What there is: for each driver with a GPU its resource.
pub(crate) fn discover(config: RenderNodes, host: &Host) -> Vec<Resource> {
    let cards: Vec<_> =
        host.names("/sys/class/drm").into_iter().filter(|name| drm::is_numbered(name, "card")).collect();
    let of = |driver: &&str| {
        let devices: Vec<Device> = cards.iter().filter_map(|card| device(host, card, driver)).collect();
        (!devices.is_empty())
            .then(|| Resource::new(format!("gpu.intel.com/{driver}"), devices, config.shares))
    };
    DRIVERS.iter().filter_map(of).collect()
}

fn device(host: &Host, card: &str, driver: &str) -> Option<Device> {
    let sysfs = format!("/sys/class/drm/{card}/device");
    if host.driver(&sysfs).as_deref() != Some(driver)
        || host.text(&format!("{sysfs}/vendor")).as_deref() != Some(VENDOR)
    {
        return None;
    }
    let nodes = drm::nodes(host, &sysfs);
    let unhealthy = (!nodes.iter().any(|node| node.path.contains("/renderD")))
        .then(|| "it has no render node in /dev/dri".to_owned());
    Some(drm::device(host, &sysfs, card, nodes, unhealthy))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::Tree;

    #[test]
    fn gpus_by_their_drivers() {
        let tree = Tree::new();
        tree.drm("0000:00:02.0", "0x8086", "i915", 0, 128);
        tree.drm("0000:03:00.0", "0x8086", "xe", 1, 129);
        tree.drm("0000:04:00.0", "0x1002", "amdgpu", 2, 130);
        tree.file("sys/class/drm/card0-HDMI-A-1/status", "connected");
        std::fs::remove_file(tree.path("dev/dri/renderD129")).expect("a node less");
        let found = discover(RenderNodes { enabled: true, shares: 2 }, &tree.host());
        let names: Vec<_> = found.iter().map(|it| (it.name.as_str(), it.shares)).collect();
        assert_eq!(names, [("gpu.intel.com/i915", 2), ("gpu.intel.com/xe", 2)]);
        let i915 = found[0].devices.first().expect("a GPU");
        assert_eq!(i915.id, "0000:00:02.0");
        assert_eq!(i915.unhealthy, None);
        let paths: Vec<_> =
            i915.grant.nodes.iter().map(|it| (it.path.as_str(), it.host_path.as_str())).collect();
        assert_eq!(
            paths,
            [
                ("/dev/dri/card0", "/dev/dri/card0"),
                ("/dev/dri/renderD128", "/dev/dri/renderD128"),
                ("/dev/dri/by-path/pci-0000:00:02.0-card", "/dev/dri/card0"),
                ("/dev/dri/by-path/pci-0000:00:02.0-render", "/dev/dri/renderD128"),
            ]
        );
        assert!(found[1].devices[0].unhealthy.is_some());
    }
}

//! The specification by which runtimes that know CDI learn what our names stand for.

use std::path::Path;

use coracle_cdi::{CdiError, Device, DeviceNode, Edits, Hook, Mount, Spec};
use coracle_model::{ContainerEdits, HookPoint};

use crate::nvidia::{Description, KIND};

/// The file in the directory of specifications, without its ending.
const FILE: &str = "coracle-nvidia";

/// Writes it, in one step; removes it where there is nothing to describe.
pub(crate) fn write(directory: &Path, description: &Description) -> Result<(), CdiError> {
    let specification = specification(description);
    if specification.devices.is_empty() {
        return remove(directory);
    }
    coracle_cdi::write(directory, FILE, specification).map(drop)
}

/// Whether it is there.
pub(crate) fn is_there(directory: &Path) -> bool {
    directory.join(FILE).with_extension("json").exists()
}

/// Removes it, if it is there: what it describes is not.
pub(crate) fn remove(directory: &Path) -> Result<(), CdiError> {
    coracle_cdi::remove(directory, FILE)
}

/// A GPU that has no node now brings nothing, and is nobody's meanwhile. One such device would make all of it invalid.
fn specification(description: &Description) -> Spec {
    let there = description.devices.iter().filter(|(_, edits)| **edits != ContainerEdits::default());
    let device = |(uuid, edits): (&String, &ContainerEdits)| Device {
        name: uuid.clone(),
        container_edits: edits_of(edits),
        ..Device::default()
    };
    Spec {
        kind: KIND.to_owned(),
        devices: there.map(device).collect(),
        container_edits: edits_of(&description.common),
        ..Spec::default()
    }
}

fn edits_of(edits: &ContainerEdits) -> Edits {
    let node = |node: &coracle_model::DeviceNode| DeviceNode {
        path: node.path.clone(),
        // What is the same need not be said, and has been known since CDI 0.3.
        host_path: if node.host_path == node.path { String::new() } else { node.host_path.clone() },
        permissions: node.permissions.clone(),
        ..DeviceNode::default()
    };
    let mount = |mount: &coracle_model::EditMount| Mount {
        host_path: mount.host_path.clone(),
        container_path: mount.container_path.clone(),
        options: mount.options.clone(),
        ..Mount::default()
    };
    let hook = |hook: &coracle_model::EditHook| Hook {
        hook_name: name_of(hook.point).to_owned(),
        path: hook.path.clone(),
        args: hook.args.clone(),
        env: hook.env.clone(),
        timeout: hook.timeout.and_then(|timeout| i64::try_from(timeout.as_secs()).ok()),
    };
    Edits {
        env: edits.env.iter().map(|(name, value)| format!("{name}={value}")).collect(),
        device_nodes: edits.device_nodes.iter().map(node).collect(),
        mounts: edits.mounts.iter().map(mount).collect(),
        hooks: edits.hooks.iter().map(hook).collect(),
        ..Edits::default()
    }
}

fn name_of(point: HookPoint) -> &'static str {
    match point {
        HookPoint::CreateRuntime => "createRuntime",
        HookPoint::CreateContainer => "createContainer",
        HookPoint::StartContainer => "startContainer",
        HookPoint::Poststart => "poststart",
        HookPoint::Poststop => "poststop",
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::nvidia::find;
    use crate::testing::Tree;

    #[test]
    fn what_is_written_is_a_specification_of_every_gpu() {
        let tree = Tree::new();
        tree.nvidia(&["0000:3b:00.0", "0000:86:00.0"]);
        tree.nvidia_files();
        let host = tree.host();
        let found = find(&host, &[], None).expect("GPUs");
        let hook = ["/usr/bin/coracle", "device-plugin", "hook"].map(str::to_owned);
        let description = Description::new(&host, &found.gpus, &found.version, &hook);
        let directory = tempfile::tempdir().expect("a directory");
        write(directory.path(), &description).expect("it is written");
        let text = std::fs::read(directory.path().join("coracle-nvidia.json")).expect("a file");
        let read = coracle_cdi::parse(&text, FILE).expect("a specification");
        assert_eq!(read.kind, "nvidia.coracle.dev/gpu");
        let expected = specification(&description);
        assert_eq!((read.devices, read.container_edits), (expected.devices, expected.container_edits));
        remove(directory.path()).expect("it is removed");
        remove(directory.path()).expect("there is none");
        assert_eq!(std::fs::read_dir(directory.path()).expect("a directory").count(), 0);
    }

    #[test]
    fn a_gpu_without_nodes_keeps_no_other_from_being_described() {
        let tree = Tree::new();
        tree.nvidia(&["0000:3b:00.0", "0000:86:00.0"]);
        let host = tree.host();
        let found = find(&host, &[], None).expect("GPUs");
        let directory = tempfile::tempdir().expect("a directory");
        let described = || {
            let description = Description::new(&host, &found.gpus, &found.version, &[]);
            write(directory.path(), &description).expect("it is written");
            let text = std::fs::read(directory.path().join("coracle-nvidia.json")).ok()?;
            let read = coracle_cdi::parse(&text, FILE).expect("a specification");
            Some(read.devices.into_iter().map(|device| device.name).collect::<Vec<_>>())
        };
        std::fs::remove_dir_all(tree.path("dev/dri")).expect("no nodes to draw by");
        std::fs::remove_file(tree.path("dev/nvidia0")).expect("a node less");
        assert_eq!(described(), Some(vec![found.gpus[1].uuid.clone()]));
        std::fs::remove_file(tree.path("dev/nvidia1")).expect("a node less");
        assert_eq!(described(), None);
    }
}

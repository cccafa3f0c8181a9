//! From devices of specifications to what is done in a container.

use std::fs;
use std::os::unix::fs::FileTypeExt as _;
use std::time::Duration;

use coracle_model as model;

use crate::spec::{DeviceNode, Edits, Hook};

/// The mode of a node whose specification says none, as OCI runtimes make it.
const MODE: u32 = 0o666;

/// Adds the edits of a specification, or of one of its devices. Both were validated.
pub(crate) fn add(to: &mut model::ContainerEdits, edits: &Edits) {
    // Taken apart, so that a field that is added is not forgotten here. `intelRdt` was refused.
    let Edits { env, device_nodes, net_devices, mounts, hooks, additional_gids, intel_rdt: _ } = edits;
    to.env.extend(env.iter().filter_map(|variable| {
        let (name, value) = variable.split_once('=')?;
        Some((name.to_owned(), value.to_owned()))
    }));
    to.device_nodes.extend(device_nodes.iter().map(node));
    for device in net_devices {
        let device =
            model::NetDevice { host_name: device.host_interface_name.clone(), name: device.name.clone() };
        if !to.net_devices.contains(&device) {
            to.net_devices.push(device);
        }
    }
    to.mounts.extend(mounts.iter().map(|mount| model::EditMount {
        host_path: mount.host_path.clone(),
        container_path: mount.container_path.clone(),
        fs_type: mount.kind.clone(),
        options: mount.options.clone(),
    }));
    to.hooks.extend(hooks.iter().filter_map(hook));
    for gid in additional_gids.iter().filter(|gid| **gid != 0) {
        if !to.additional_gids.contains(gid) {
            to.additional_gids.push(*gid);
        }
    }
}

fn node(node: &DeviceNode) -> model::DeviceNode {
    let host_path = if node.host_path.is_empty() { &node.path } else { &node.host_path };
    // Numbers without a type are of the type the host's node has.
    let letter = node.kind.chars().next().or_else(|| {
        let found = fs::metadata(host_path).ok().filter(|_| node.major != 0)?.file_type();
        Some(if found.is_block_device() { 'b' } else { 'c' })
    });
    let number = |number: i64| u32::try_from(number).unwrap_or_default();
    let numbers = (node.major != 0).then(|| (number(node.major), number(node.minor)));
    model::DeviceNode {
        path: node.path.clone(),
        host_path: host_path.clone(),
        kind: letter.map(|letter| model::DeviceNumbers { letter, numbers }),
        permissions: if node.permissions.is_empty() { "rwm".to_owned() } else { node.permissions.clone() },
        file_mode: Some(node.file_mode.unwrap_or(MODE)),
        uid: node.uid,
        gid: node.gid,
        is_users: true,
    }
}

fn hook(hook: &Hook) -> Option<model::EditHook> {
    let point = match hook.hook_name.as_str() {
        "prestart" | "createRuntime" => model::HookPoint::CreateRuntime,
        "createContainer" => model::HookPoint::CreateContainer,
        "startContainer" => model::HookPoint::StartContainer,
        "poststart" => model::HookPoint::Poststart,
        "poststop" => model::HookPoint::Poststop,
        _ => return None,
    };
    Some(model::EditHook {
        point,
        path: hook.path.clone(),
        args: hook.args.clone(),
        env: hook.env.clone(),
        timeout: hook.timeout.and_then(|seconds| u64::try_from(seconds).ok()).map(Duration::from_secs),
    })
}

//! What a specification must keep to, beyond the types of its fields.

use std::collections::{BTreeMap, BTreeSet};

use coracle_document::{Faults, Path};

use crate::name::{check_class, check_device, check_vendor};
use crate::spec::{DeviceNode, Edits, Hook, IntelRdt, Mount, NetDevice, Spec};
use crate::version::{Version, needed_version};

/// The most bytes of all annotations of one object, as in Kubernetes.
const MOST_ANNOTATIONS: usize = 256 << 10;
/// The longest name of a class of service (Linux: `NAME_MAX` of resctrl's directories is less).
const MOST_CLOS_ID: usize = 4096;
/// The longest name of an interface (`IFNAMSIZ`, without the zero byte).
const MOST_INTERFACE: usize = 15;

pub(crate) const HOOK_NAMES: [&str; 6] =
    ["prestart", "createRuntime", "createContainer", "startContainer", "poststart", "poststop"];

/// Adds everything that is wrong.
pub(crate) fn validate(spec: &Spec, faults: &mut Faults) {
    let root = Path::ROOT;
    version(spec, faults);
    kind(&spec.kind, &root.child("kind"), faults);
    annotations(&spec.annotations, &root.child("annotations"), faults);
    edits(&spec.container_edits, &root.child("containerEdits"), faults);
    let devices = root.child("devices");
    if spec.devices.is_empty() {
        faults.required(&devices, "a specification has at least one device");
    }
    let mut names = BTreeSet::new();
    for (index, device) in spec.devices.iter().enumerate() {
        let at = devices.index(index);
        let name = at.child("name");
        if let Err(why) = check_device(&device.name) {
            faults.invalid(&name, &device.name, why);
        } else if !names.insert(device.name.as_str()) {
            faults.duplicate(&name, &device.name);
        }
        annotations(&device.annotations, &at.child("annotations"), faults);
        let own = at.child("containerEdits");
        if device.container_edits.is_empty() {
            faults.required(&own, "a device brings something into a container");
        }
        edits(&device.container_edits, &own, faults);
    }
}

fn version(spec: &Spec, faults: &mut Faults) {
    let at = Path::ROOT;
    let at = at.child("cdiVersion");
    let Some(version) = Version::parse(&spec.cdi_version) else {
        if spec.cdi_version.is_empty() {
            return faults.required(&at, "");
        }
        let known: Vec<_> = Version::names().collect();
        return faults.unsupported_value(&at, &spec.cdi_version, &known);
    };
    let needed = needed_version(spec);
    if version < needed {
        let why = format!("must be at least {needed}, which has all fields that are used");
        faults.invalid(&at, &spec.cdi_version, why);
    }
}

fn kind(kind: &str, at: &Path<'_>, faults: &mut Faults) {
    if kind.is_empty() {
        return faults.required(at, "");
    }
    let checked = match kind.split_once('/') {
        None => Err("must be vendor/class, such as vendor.com/gpu"),
        Some((vendor, class)) => check_vendor(vendor).and_then(|()| check_class(class)),
    };
    if let Err(why) = checked {
        faults.invalid(at, kind, why);
    }
}

/// As Kubernetes has annotations of objects.
fn annotations(annotations: &BTreeMap<String, String>, at: &Path<'_>, faults: &mut Faults) {
    let mut size = 0;
    for (key, value) in annotations {
        size += key.len() + value.len();
        let (prefix, name) =
            key.rsplit_once('/').map_or((None, key.as_str()), |(prefix, name)| (Some(prefix), name));
        let part = |text: &str, most: usize, between: &str| {
            let edge = |c: Option<char>| c.is_some_and(|c| c.is_ascii_alphanumeric());
            text.len() <= most
                && edge(text.chars().next())
                && edge(text.chars().next_back())
                && text.chars().all(|c| c.is_ascii_alphanumeric() || between.contains(c))
        };
        let fine = part(name, 63, "-_.") && prefix.is_none_or(|prefix| part(prefix, 253, "-."));
        if !fine {
            faults.invalid(&at.key(key), key, "a key is [domain/]name of letters, digits, -, _ and .");
        }
    }
    if size > MOST_ANNOTATIONS {
        faults.too_long(at, MOST_ANNOTATIONS);
    }
}

fn edits(edits: &Edits, at: &Path<'_>, faults: &mut Faults) {
    // Taken apart, so that a field that is added is not forgotten here.
    let Edits { env, device_nodes, net_devices, mounts, hooks, additional_gids, intel_rdt } = edits;
    variables(env, &at.child("env"), faults);
    for (index, node) in device_nodes.iter().enumerate() {
        device_node(node, &at.child("deviceNodes").index(index), faults);
    }
    interfaces(net_devices, &at.child("netDevices"), faults);
    for (index, one) in mounts.iter().enumerate() {
        mount(one, &at.child("mounts").index(index), faults);
    }
    for (index, one) in hooks.iter().enumerate() {
        hook(one, &at.child("hooks").index(index), faults);
    }
    for (index, gid) in additional_gids.iter().enumerate() {
        if *gid == u32::MAX {
            faults.invalid_plain(&at.child("additionalGids").index(index), gid, "is no group");
        }
    }
    if let Some(one) = intel_rdt {
        rdt(one, &at.child("intelRdt"), faults);
    }
}

fn variables(env: &[String], at: &Path<'_>, faults: &mut Faults) {
    for (index, variable) in env.iter().enumerate() {
        if variable.split_once('=').is_none_or(|(name, _)| name.is_empty()) || variable.contains('\0') {
            faults.invalid(&at.index(index), variable, "must be NAME=value");
        }
    }
}

fn absolute(path: &str, at: &Path<'_>, faults: &mut Faults) {
    if path.is_empty() {
        faults.required(at, "");
    } else if !path.starts_with('/') || path.contains('\0') || path.split('/').any(|part| part == "..") {
        faults.invalid(at, path, "must be an absolute path without ..");
    }
}

fn device_node(node: &DeviceNode, at: &Path<'_>, faults: &mut Faults) {
    absolute(&node.path, &at.child("path"), faults);
    if !node.host_path.is_empty() {
        absolute(&node.host_path, &at.child("hostPath"), faults);
    }
    if !matches!(node.kind.as_str(), "" | "b" | "c" | "u" | "p") {
        faults.unsupported_value(&at.child("type"), &node.kind, &["b", "c", "u", "p"]);
    }
    for (name, number) in [("major", node.major), ("minor", node.minor)] {
        if u32::try_from(number).is_err() {
            faults.invalid_plain(&at.child(name), number, "is no device number");
        }
    }
    if !node.permissions.chars().all(|c| "rwm".contains(c)) {
        faults.invalid(&at.child("permissions"), &node.permissions, "must be of the letters r, w and m");
    }
    if node.file_mode.is_some_and(|mode| mode & !0o7777 != 0) {
        let mode = node.file_mode.unwrap_or_default();
        faults.invalid_plain(&at.child("fileMode"), mode, "must be permission bits alone");
    }
    for (name, id) in [("uid", node.uid), ("gid", node.gid)] {
        if id == Some(u32::MAX) {
            faults.invalid_plain(&at.child(name), u32::MAX, "is nobody's identifier");
        }
    }
}

fn interfaces(devices: &[NetDevice], at: &Path<'_>, faults: &mut Faults) {
    let (mut host, mut inside) = (BTreeSet::new(), BTreeSet::new());
    for (index, device) in devices.iter().enumerate() {
        let at = at.index(index);
        let names = [
            ("hostInterfaceName", &device.host_interface_name, &mut host),
            ("name", &device.name, &mut inside),
        ];
        for (field, name, known) in names {
            let at = at.child(field);
            if name.is_empty() {
                faults.required(&at, "");
            } else if !is_interface(name) {
                faults.invalid(&at, name, "is no name of an interface: at most 15 bytes, no space, / or :");
            } else if !known.insert(name.as_str()) {
                faults.duplicate(&at, name);
            }
        }
    }
}

/// What Linux takes (`dev_valid_name`).
fn is_interface(name: &str) -> bool {
    name.len() <= MOST_INTERFACE
        && !matches!(name, "." | "..")
        && !name.chars().any(|c| c == '/' || c == ':' || c == '\0' || c.is_whitespace())
}

fn mount(mount: &Mount, at: &Path<'_>, faults: &mut Faults) {
    if mount.host_path.is_empty() {
        faults.required(&at.child("hostPath"), "");
    }
    absolute(&mount.container_path, &at.child("containerPath"), faults);
}

fn hook(hook: &Hook, at: &Path<'_>, faults: &mut Faults) {
    if hook.hook_name.is_empty() {
        faults.required(&at.child("hookName"), "");
    } else if !HOOK_NAMES.contains(&hook.hook_name.as_str()) {
        faults.unsupported_value(&at.child("hookName"), &hook.hook_name, &HOOK_NAMES);
    }
    absolute(&hook.path, &at.child("path"), faults);
    variables(&hook.env, &at.child("env"), faults);
    for (index, argument) in hook.args.iter().enumerate() {
        if argument.contains('\0') {
            faults.invalid(&at.child("args").index(index), argument, "must not hold a zero byte");
        }
    }
    if let Some(timeout) = hook.timeout.filter(|timeout| *timeout <= 0) {
        faults.invalid_plain(&at.child("timeout"), timeout, "must be greater than 0 seconds");
    }
}

fn rdt(rdt: &IntelRdt, at: &Path<'_>, faults: &mut Faults) {
    let id = &rdt.clos_id;
    if id.len() >= MOST_CLOS_ID || matches!(id.as_str(), "." | "..") || id.contains(['/', '\n']) {
        faults.invalid(&at.child("closID"), id, "is no name of a class of service");
    }
}

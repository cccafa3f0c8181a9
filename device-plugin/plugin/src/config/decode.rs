//! From what stands in the file to a configuration that cannot be wrong.

use std::collections::BTreeSet;

use coracle_document::{Diagnostic, Fault, Faults, FieldPath, Path, deserialize, read};

use super::{
    Config, Delivery, GenericResource, Group, GroupPath, MOST_SHARES, MigStrategy, Nvidia, RenderNodes,
    TimeSlicing, file,
};
use crate::glob::Glob;
use crate::name;

/// More resources than any node has are a mistake, and each is a socket.
const MOST_RESOURCES: usize = 128;
/// More nodes than any device has.
const MOST_PATHS: usize = 64;

pub(super) fn decode(bytes: &[u8], source: &str) -> Result<Config, Vec<Diagnostic>> {
    let mut faults = Faults::default();
    let mut documents = match read(bytes, &mut faults) {
        Ok(documents) => documents,
        Err(fault) => {
            faults.add(fault);
            return Err(faults.in_file(source));
        }
    };
    if documents.len() > 1 {
        let message = "one document is read, and there are several".to_owned();
        faults.add(Fault {
            path: FieldPath::default(),
            at: documents.get(1).map(|second| second.at),
            message,
        });
    }
    let Some(tree) = documents.first_mut() else {
        // An empty file says nothing.
        return if faults.is_empty() { Ok(Config::default()) } else { Err(faults.in_file(source)) };
    };
    let whole = tree.clone();
    let config = deserialize::<file::File>(tree, &mut faults).map(|file| config(*file, &mut faults));
    faults.locate(&whole);
    match config {
        Some(config) if faults.is_empty() => Ok(config),
        _ => Err(faults.in_file(source)),
    }
}

fn config(file: file::File, faults: &mut Faults) -> Config {
    let root = Path::ROOT;
    let resources = resources(&root.child("resources"), file.resources, faults);
    Config {
        resources,
        nvidia: nvidia(&root.child("nvidia"), file.nvidia.unwrap_or_default(), faults),
        amd: render_nodes(&root.child("amd"), &file.amd.unwrap_or_default(), faults),
        intel: render_nodes(&root.child("intel"), &file.intel.unwrap_or_default(), faults),
    }
}

fn resources(path: &Path<'_>, list: Vec<file::Resource>, faults: &mut Faults) -> Vec<GenericResource> {
    if list.len() > MOST_RESOURCES {
        faults.too_many(path, list.len(), MOST_RESOURCES);
        return Vec::new();
    }
    let mut names = BTreeSet::new();
    let mut found = Vec::new();
    for (index, resource) in list.into_iter().enumerate() {
        let path = path.index(index);
        let name = resource_name(&path.child("name"), resource.name, faults);
        if !name.is_empty() && !names.insert(name.clone()) {
            faults.duplicate(&path.child("name"), &name);
        }
        let shares = shares(&path.child("shares"), resource.shares, faults);
        let devices = path.child("devices");
        if resource.devices.is_empty() {
            faults.required(&devices, "at least one device");
        }
        let groups = resource.devices.into_iter().enumerate();
        let groups =
            groups.filter_map(|(index, device)| group(&devices.index(index), device, faults)).collect();
        found.push(GenericResource { name, shares, groups });
    }
    found
}

fn resource_name(path: &Path<'_>, name: Option<String>, faults: &mut Faults) -> String {
    match name {
        None => faults.required(path, "such as coracle.dev/fuse"),
        Some(name) => match name::check_resource(&name) {
            Ok(()) => return name,
            Err(why) => faults.invalid(path, &name, why),
        },
    }
    String::new()
}

fn shares(path: &Path<'_>, shares: Option<i64>, faults: &mut Faults) -> u32 {
    match shares.map(u32::try_from) {
        None => 1,
        Some(Ok(shares)) if (1..=MOST_SHARES).contains(&shares) => shares,
        Some(_) => {
            let detail = format!("must be between 1 and {MOST_SHARES}, inclusive");
            faults.invalid_plain(path, shares.unwrap_or_default(), &detail);
            1
        }
    }
}

fn group(path: &Path<'_>, device: file::Device, faults: &mut Faults) -> Option<Group> {
    let paths = path.child("paths");
    if device.paths.is_empty() {
        faults.required(&paths, "at least one path");
    }
    if device.paths.len() > MOST_PATHS {
        faults.too_many(&paths, device.paths.len(), MOST_PATHS);
        return None;
    }
    let list = device.paths.into_iter().enumerate();
    let list: Vec<_> = list.map(|(index, one)| group_path(&paths.index(index), one, faults)).collect();
    let mut list = list.into_iter().collect::<Option<Vec<_>>>()?.into_iter();
    let first = list.next()?;
    let rest: Vec<GroupPath> = list.collect();
    if first.optional {
        faults
            .forbidden(&paths.index(0).child("optional"), "the first path says whether the device is there");
    }
    for (index, other) in rest.iter().enumerate() {
        let (there, most) = (other.glob.wildcards(), first.glob.wildcards());
        if there != 0 && there != most {
            let detail = format!(
                "has {there} wildcards and the device's first path {most}: what they match must be the same"
            );
            faults.invalid(&paths.index(index + 1).child("path"), other.glob.as_str(), detail);
        }
    }
    Some(Group { first, rest })
}

/// Where a container can have no device node.
const KERNELS: [&str; 2] = ["/proc/", "/sys/"];

fn group_path(path: &Path<'_>, one: file::DevicePath, faults: &mut Faults) -> Option<GroupPath> {
    let at = path.child("path");
    let Some(text) = one.path else {
        faults.required(&at, "such as /dev/fuse");
        return None;
    };
    let glob = Glob::parse(&text).map_err(|why| faults.invalid(&at, &text, why)).ok()?;
    if let Some(inside) = &one.container_path {
        let at = path.child("containerPath");
        if let Err(why) = name::check_container_path(inside) {
            faults.invalid(&at, inside, why);
        } else if !matches!(inside.matches('*').count(), there if there == 0 || there == glob.wildcards()) {
            faults.invalid(&at, inside, "must have as many wildcards (*) as the path, or none");
        } else if KERNELS.iter().any(|kernels| inside.starts_with(kernels)) {
            faults.invalid(&at, inside, "must not be in /proc or /sys, where no device node can be made");
        }
    } else if KERNELS.iter().any(|kernels| text.starts_with(kernels)) {
        let detail = "a path that is not in /proc or /sys, where no device node can be made";
        faults.required(&path.child("containerPath"), detail);
    }
    let permissions = one.permissions.unwrap_or_else(|| "rw".to_owned());
    if !is_permissions(&permissions) {
        faults.invalid(&path.child("permissions"), &permissions, "must be some of r, w and m, each once");
    }
    let optional = one.optional.unwrap_or_default();
    Some(GroupPath { glob, container_path: one.container_path, permissions, optional })
}

fn is_permissions(text: &str) -> bool {
    let letters: BTreeSet<char> = text.chars().collect();
    !text.is_empty() && letters.len() == text.len() && letters.iter().all(|letter| "rwm".contains(*letter))
}

fn nvidia(path: &Path<'_>, file: file::Nvidia, faults: &mut Faults) -> Nvidia {
    let usual = Nvidia::default();
    let mig = match file.mig_strategy.as_deref() {
        None => usual.mig,
        Some("none") => MigStrategy::None,
        Some("single") => MigStrategy::Single,
        Some("mixed") => MigStrategy::Mixed,
        Some(other) => {
            faults.unsupported_value(&path.child("migStrategy"), other, &["mixed", "none", "single"]);
            usual.mig
        }
    };
    let delivery = match file.device_list_strategy.as_deref() {
        None => usual.delivery,
        Some("cdi-cri") => Delivery::Cdi,
        Some("device-specs") => Delivery::DeviceSpecs,
        Some(other) => {
            faults.unsupported_value(&path.child("deviceListStrategy"), other, &["cdi-cri", "device-specs"]);
            usual.delivery
        }
    };
    let ignored_xids = match file.ignored_xids {
        None => usual.ignored_xids,
        Some(list) => {
            let at = path.child("ignoredXids");
            let number = |(index, xid): (usize, i64)| match u64::try_from(xid) {
                Ok(xid) => Some(xid),
                Err(_) => {
                    faults.invalid_plain(&at.index(index), xid, "must not be negative");
                    None
                }
            };
            list.into_iter().enumerate().filter_map(number).collect()
        }
    };
    let sharing = path.child("sharing");
    let slicing = file.sharing.unwrap_or_default().time_slicing.unwrap_or_default();
    Nvidia {
        enabled: file.enabled.unwrap_or(usual.enabled),
        mig,
        sharing: time_slicing(&sharing.child("timeSlicing"), slicing, faults),
        delivery,
        ignored_xids,
        prepare: file.prepare_driver.unwrap_or(usual.prepare),
    }
}

fn time_slicing(path: &Path<'_>, file: file::TimeSlicing, faults: &mut Faults) -> TimeSlicing {
    let list = path.child("resources");
    let mut names = BTreeSet::new();
    let mut replicas = Vec::new();
    for (index, one) in file.resources.into_iter().enumerate() {
        let path = list.index(index);
        let name = resource_name(&path.child("name"), one.name, faults);
        if !name.is_empty() && !name.starts_with("nvidia.com/") {
            faults.invalid(
                &path.child("name"),
                &name,
                "must be a resource of nvidia.com, such as nvidia.com/gpu",
            );
        }
        if !name.is_empty() && !names.insert(name.clone()) {
            faults.duplicate(&path.child("name"), &name);
        }
        let count = path.child("replicas");
        if one.replicas.is_none() {
            faults.required(&count, "in how many shares each device is offered");
        }
        replicas.push((name, shares(&count, one.replicas, faults)));
    }
    TimeSlicing {
        rename_by_default: file.rename_by_default.unwrap_or_default(),
        fail_requests_greater_than_one: file.fail_requests_greater_than_one.unwrap_or_default(),
        replicas,
    }
}

fn render_nodes(path: &Path<'_>, file: &file::RenderNodes, faults: &mut Faults) -> RenderNodes {
    RenderNodes {
        enabled: file.enabled.unwrap_or(true),
        shares: shares(&path.child("shares"), file.shares, faults),
    }
}

//! `volumeMounts` of a container.

use coracle_document::{Faults, Path};
use std::collections::HashSet;
use std::path::PathBuf;

use coracle_model::{MountPropagation, Name, VolumeMount};
use k8s_openapi::api::core::v1;

use super::container::Place;
use super::volume::VolumeKind;
use super::{check_nul, collect, filled, word};
use crate::syntax;

pub(super) fn convert_all(
    mounts: &[v1::VolumeMount],
    privileged: bool,
    list: &Path<'_>,
    place: &Place<'_>,
    faults: &mut Faults,
) -> Option<Vec<VolumeMount>> {
    let mut targets = HashSet::new();
    let mut converted = Vec::with_capacity(mounts.len());
    for (index, mount) in mounts.iter().enumerate() {
        let path = list.index(index);
        if !mount.mount_path.is_empty() && !targets.insert(&mount.mount_path) {
            faults.invalid(&path.child("mountPath"), &mount.mount_path, "must be unique");
        }
        let mount = convert(mount, privileged, &path, place, faults);
        converted.push(mount);
    }
    collect(converted)
}

fn convert(
    mount: &v1::VolumeMount,
    privileged: bool,
    path: &Path<'_>,
    place: &Place<'_>,
    faults: &mut Faults,
) -> Option<VolumeMount> {
    let v1::VolumeMount {
        bind_mount_options,
        mount_path,
        mount_propagation,
        name,
        read_only,
        recursive_read_only,
        sub_path,
        sub_path_expr,
    } = mount;

    let bind_path = path.child("bindMountOptions");
    faults.not_yet_if(filled(bind_mount_options.as_ref()), &bind_path, "");
    faults.not_yet_if(filled(sub_path_expr.as_ref()), &path.child("subPathExpr"), "use subPath");
    let recursive_path = path.child("recursiveReadOnly");
    match recursive_read_only.as_deref() {
        None | Some("Disabled") => {}
        Some("Enabled" | "IfPossible") => faults.not_yet(&recursive_path, "Disabled is what this node does"),
        Some(other) => {
            faults.unsupported_value(&recursive_path, other, &["Disabled", "Enabled", "IfPossible"]);
        }
    }

    let name_path = path.child("name");
    let volume = if name.is_empty() {
        faults.required(&name_path, "");
        None
    } else if !place.volumes.contains_key(name) {
        faults.not_found(&name_path, name);
        None
    } else {
        // A volume whose name is no label has been reported at the volume.
        Name::label(&**name).ok()
    };

    let target_path = path.child("mountPath");
    check_nul(mount_path, &target_path, faults);
    if mount_path.is_empty() {
        faults.required(&target_path, "");
    } else if mount_path.contains(':') {
        faults.invalid(&target_path, mount_path, "must not contain ':'");
    } else if is_root(mount_path) {
        faults.invalid(&target_path, mount_path, "must not be the container's root");
    }

    let sub = sub_path.as_deref().filter(|sub| !sub.is_empty());
    if let Some(sub) = sub {
        let sub_path = path.child("subPath");
        check_nul(sub, &sub_path, faults);
        if let Err(detail) = syntax::descending_path(sub) {
            faults.invalid(&sub_path, sub, detail);
        }
    }

    let propagation_path = path.child("mountPropagation");
    let propagation = match mount_propagation.as_deref() {
        None => Some(MountPropagation::None),
        Some(text) => word(
            text,
            &[
                ("Bidirectional", MountPropagation::Bidirectional),
                ("HostToContainer", MountPropagation::HostToContainer),
                ("None", MountPropagation::None),
            ],
            &propagation_path,
            faults,
        ),
    };
    if propagation == Some(MountPropagation::Bidirectional) && !privileged {
        faults.forbidden(
            &propagation_path,
            "Bidirectional mount propagation is available only to privileged containers",
        );
    }
    let is_image = place.volumes.get(name) == Some(&VolumeKind::Image);
    if is_image && propagation == Some(MountPropagation::Bidirectional) {
        let detail = "an image volume has no place on the host that mounts could be propagated to";
        faults.forbidden(&propagation_path, detail);
    }

    Some(VolumeMount {
        name: volume?,
        mount_path: absolute(mount_path),
        sub_path: sub.map(PathBuf::from),
        read_only: read_only.unwrap_or(false),
        propagation: propagation?,
    })
}

/// Whether nothing of a path in a container leads away from the root.
pub(super) fn is_root(path: &str) -> bool {
    path.split('/').all(|part| part.is_empty() || part == ".")
}

/// The kubelet takes a relative path from the container's root.
pub(super) fn absolute(path: &str) -> String {
    if path.starts_with('/') { path.to_owned() } else { format!("/{path}") }
}

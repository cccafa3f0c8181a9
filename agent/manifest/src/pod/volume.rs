//! `spec.volumes`.

use coracle_document::{Faults, Path};
use std::collections::{HashMap, HashSet};
use std::path::PathBuf;

use coracle_model::{EmptyDirMedium, HostPathType, Name, Quantity, Volume, VolumeSource};
use k8s_openapi::api::core::v1;

use super::{check_nul, collect, container, projected as files, word};
use crate::syntax;

const REMOVED: &str = "no longer supported: Kubernetes removed or deprecated this kind of volume";

pub(super) struct Volumes {
    /// All names that stand in the list, also of volumes with faults: a mount of one is not one more fault.
    pub(super) names: HashMap<String, VolumeKind>,
    /// `None` when one of them has a fault.
    pub(super) converted: Option<Vec<Volume>>,
}

/// What the checks of containers need to know of a volume.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum VolumeKind {
    EmptyDir,
    Image,
    Other,
}

// === impl VolumeKind ===

impl VolumeKind {
    pub(super) fn of(source: &VolumeSource) -> Self {
        match source {
            VolumeSource::EmptyDir { .. } => Self::EmptyDir,
            VolumeSource::Image { .. } => Self::Image,
            VolumeSource::HostPath { .. } | VolumeSource::Projected(_) => Self::Other,
        }
    }
}

/// `containers` are the names of the pod's.
pub(super) fn convert_all(
    volumes: &mut [v1::Volume],
    containers: &HashSet<String>,
    path: &Path<'_>,
    faults: &mut Faults,
) -> Volumes {
    let list = path.child("volumes");
    let mut names = HashMap::new();
    let mut converted = Vec::with_capacity(volumes.len());
    for (index, volume) in volumes.iter_mut().enumerate() {
        let path = list.index(index);
        let name_path = path.child("name");
        let name = if volume.name.is_empty() {
            faults.required(&name_path, "");
            None
        } else {
            if names.insert(volume.name.clone(), VolumeKind::Other).is_some() {
                faults.duplicate(&name_path, &volume.name);
            }
            Name::label(&*volume.name).map_err(|error| faults.invalid(&name_path, &volume.name, error)).ok()
        };
        let source = source(volume, containers, &path, faults);
        if let Some(kind) = names.get_mut(&volume.name) {
            *kind = match (&volume.empty_dir, &volume.image) {
                (Some(_), _) => VolumeKind::EmptyDir,
                (None, Some(_)) => VolumeKind::Image,
                (None, None) => VolumeKind::Other,
            };
        }
        converted.push(name.zip(source).map(|(name, source)| Volume { name, source }));
    }
    Volumes { names, converted: collect(converted) }
}

fn source(
    volume: &mut v1::Volume,
    containers: &HashSet<String>,
    path: &Path<'_>,
    faults: &mut Faults,
) -> Option<VolumeSource> {
    let v1::Volume {
        aws_elastic_block_store,
        azure_disk,
        azure_file,
        cephfs,
        cinder,
        config_map,
        csi,
        downward_api,
        empty_dir,
        ephemeral,
        fc,
        flex_volume,
        flocker,
        gce_persistent_disk,
        git_repo,
        glusterfs,
        host_path,
        image,
        iscsi,
        name: _,
        nfs,
        persistent_volume_claim,
        photon_persistent_disk,
        portworx_volume,
        projected,
        quobyte,
        rbd,
        scale_io,
        secret,
        storageos,
        vsphere_volume,
    } = volume;

    let removed = [
        ("awsElasticBlockStore", aws_elastic_block_store.is_some()),
        ("azureDisk", azure_disk.is_some()),
        ("azureFile", azure_file.is_some()),
        ("cephfs", cephfs.is_some()),
        ("cinder", cinder.is_some()),
        ("flexVolume", flex_volume.is_some()),
        ("flocker", flocker.is_some()),
        ("gcePersistentDisk", gce_persistent_disk.is_some()),
        ("gitRepo", git_repo.is_some()),
        ("glusterfs", glusterfs.is_some()),
        ("photonPersistentDisk", photon_persistent_disk.is_some()),
        ("portworxVolume", portworx_volume.is_some()),
        ("quobyte", quobyte.is_some()),
        ("rbd", rbd.is_some()),
        ("scaleIO", scale_io.is_some()),
        ("storageos", storageos.is_some()),
        ("vsphereVolume", vsphere_volume.is_some()),
    ];
    let later = [
        ("csi", csi.is_some()),
        ("ephemeral", ephemeral.is_some()),
        ("fc", fc.is_some()),
        ("iscsi", iscsi.is_some()),
        ("nfs", nfs.is_some()),
        ("persistentVolumeClaim", persistent_volume_claim.is_some()),
    ];
    let mut refused = false;
    for (field, there) in removed {
        if there {
            faults.push(&path.child(field), REMOVED);
            refused = true;
        }
    }
    for (field, there) in later {
        faults.not_yet_if(
            there,
            &path.child(field),
            "this node serves hostPath, emptyDir and image volumes, and those of configuration",
        );
        refused |= there;
    }
    if refused {
        return None;
    }

    // In the order in which Kubernetes looks at them: of several, the first is meant.
    let given = [
        ("emptyDir", empty_dir.is_some()),
        ("hostPath", host_path.is_some()),
        ("secret", secret.is_some()),
        ("downwardAPI", downward_api.is_some()),
        ("configMap", config_map.is_some()),
        ("projected", projected.is_some()),
        ("image", image.is_some()),
    ];
    let mut given = given.into_iter().filter(|(_, there)| *there);
    given.next();
    for (field, _) in given {
        faults.forbidden(&path.child(field), "may not specify more than 1 volume type");
        refused = true;
    }
    if refused {
        return None;
    }
    if let Some(source) = host_path {
        return host_path_source(source, &path.child("hostPath"), faults);
    }
    if let Some(source) = config_map {
        return files::config_map(source, &path.child("configMap"), faults);
    }
    if let Some(source) = secret {
        return files::secret(source, &path.child("secret"), faults);
    }
    if let Some(source) = downward_api {
        return files::downward_api(source, containers, &path.child("downwardAPI"), faults);
    }
    if let Some(source) = projected {
        return files::projected(source, containers, &path.child("projected"), faults);
    }
    if let Some(source) = image {
        return image_source(source, &path.child("image"), faults);
    }
    // Kubernetes' default for a volume that names no source.
    empty_dir_source(empty_dir.get_or_insert_with(Default::default), &path.child("emptyDir"), faults)
}

fn host_path_source(
    source: &mut v1::HostPathVolumeSource,
    at: &Path<'_>,
    faults: &mut Faults,
) -> Option<VolumeSource> {
    let v1::HostPathVolumeSource { path, type_ } = source;
    let path_path = at.child("path");
    check_nul(path, &path_path, faults);
    let usable = if path.is_empty() {
        faults.required(&path_path, "");
        false
    } else if let Err(detail) = syntax::no_backsteps(path) {
        faults.invalid(&path_path, path, detail);
        false
    } else if !path.starts_with('/') {
        faults.invalid(&path_path, path, "must be an absolute path");
        false
    } else {
        true
    };
    let kind = word(
        type_.get_or_insert_default(),
        &[
            ("", HostPathType::Unset),
            ("BlockDevice", HostPathType::BlockDevice),
            ("CharDevice", HostPathType::CharDevice),
            ("Directory", HostPathType::Directory),
            ("DirectoryOrCreate", HostPathType::DirectoryOrCreate),
            ("File", HostPathType::File),
            ("FileOrCreate", HostPathType::FileOrCreate),
            ("Socket", HostPathType::Socket),
        ],
        &at.child("type"),
        faults,
    )?;
    usable.then(|| VolumeSource::HostPath { path: PathBuf::from(&*path), kind })
}

fn image_source(
    source: &mut v1::ImageVolumeSource,
    at: &Path<'_>,
    faults: &mut Faults,
) -> Option<VolumeSource> {
    let v1::ImageVolumeSource { pull_policy, reference } = source;
    let reference = reference.as_deref().unwrap_or_default();
    let pull_policy = container::pull_policy(pull_policy, reference, &at.child("pullPolicy"), faults);
    let path = at.child("reference");
    check_nul(reference, &path, faults);
    if reference.is_empty() {
        faults.required(&path, "");
        return None;
    }
    Some(VolumeSource::Image { reference: reference.to_owned(), pull_policy: pull_policy? })
}

fn empty_dir_source(
    source: &mut v1::EmptyDirVolumeSource,
    at: &Path<'_>,
    faults: &mut Faults,
) -> Option<VolumeSource> {
    let v1::EmptyDirVolumeSource { medium, mode, size_limit } = source;
    faults.not_yet_if(mode.is_some(), &at.child("mode"), "");
    let medium_path = at.child("medium");
    let medium = match medium.as_deref().unwrap_or_default() {
        huge if huge.starts_with("HugePages") => {
            faults.not_yet(&medium_path, "huge pages");
            None
        }
        medium => word(
            medium,
            &[("", EmptyDirMedium::Default), ("Memory", EmptyDirMedium::Memory)],
            &medium_path,
            faults,
        ),
    };
    let size_path = at.child("sizeLimit");
    let size_limit = match size_limit {
        None => None,
        Some(text) => match text.0.parse::<Quantity>() {
            Ok(limit) => Some(limit),
            Err(error) => {
                faults.invalid(&size_path, &text.0, error);
                return None;
            }
        },
    };
    // Zero means no limit, as in Kubernetes.
    let size_limit = size_limit.filter(|limit| !limit.is_zero());
    Some(VolumeSource::EmptyDir { medium: medium?, size_limit })
}

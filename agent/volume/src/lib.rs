//! hostPath and emptyDir volumes, and subPath, as mounts held by descriptor.
//!
//! A volume is prepared once for its pod ([`Volumes::ensure`]) and then given to each container as a
//! detached mount ([`Volumes::mount`]). What a container can write is hostile: paths inside a volume are
//! resolved beneath it by `openat2(2)`, checks are made on the descriptor that is mounted, and removal
//! follows no link.
//!
//! Everything here may block on the disk: an asynchronous caller uses `spawn_blocking`.

mod empty_dir;
mod error;
mod host_path;
mod mount;
mod mount_table;
mod release;
mod sub_path;
mod usage;

use std::path::PathBuf;

use coracle_model::{Pod, PodUid, Volume, VolumeMount, VolumeSource};

pub use error::VolumeError;
pub use mount::PreparedMount;

/// The volumes of every pod on the node.
#[derive(Clone, Debug)]
pub struct Volumes {
    pods: PathBuf,
}

impl Volumes {
    /// Volumes whose content lies in `root`, the node's state directory, under `pods/<uid>/volumes`.
    pub fn new(root: impl Into<PathBuf>) -> Self {
        Self { pods: root.into().join("pods") }
    }

    /// Makes every volume of the pod ready to be mounted. What is there already is kept, so it can be
    /// called again after a failure or a restart.
    ///
    /// # Errors
    ///
    /// [`VolumeError`] of the first volume that cannot be had. The kubelet's event would be `FailedMount`.
    pub fn ensure(&self, pod: &Pod) -> Result<(), VolumeError> {
        for volume in &pod.spec.volumes {
            match &volume.source {
                VolumeSource::HostPath { path, kind } => {
                    host_path::open(&volume.name, path, *kind)?;
                }
                VolumeSource::EmptyDir { medium, size_limit } => {
                    let size = empty_dir::memory_size(pod, *size_limit);
                    empty_dir::ensure(&self.empty_dir(&pod.uid, volume), *medium, size)?;
                }
                VolumeSource::Projected(_) => return Err(VolumeError::not_served(&volume.name)),
            }
        }
        Ok(())
    }

    /// The mount of a volume for one container: detached, with its subPath, propagation and read-only
    /// flag applied. As in the kubelet, read-only concerns the volume itself and not what the host has
    /// mounted below it.
    ///
    /// # Errors
    ///
    /// [`VolumeError`]; the kubelet's reason would be `CreateContainerConfigError` for a subPath, and a
    /// runtime's `CreateContainerError` for a propagation.
    pub fn mount(&self, pod: &Pod, mount: &VolumeMount) -> Result<PreparedMount, VolumeError> {
        let volume = pod
            .spec
            .volumes
            .iter()
            .find(|volume| volume.name == mount.name)
            .ok_or_else(|| VolumeError::Unknown { volume: mount.name.to_string() })?;
        let (source, path) = match &volume.source {
            VolumeSource::HostPath { path, kind } => {
                (host_path::open(&volume.name, path, *kind)?, path.clone())
            }
            VolumeSource::EmptyDir { medium, .. } => {
                let path = self.empty_dir(&pod.uid, volume);
                (empty_dir::open(&path, *medium)?, path)
            }
            VolumeSource::Projected(_) => return Err(VolumeError::not_served(&volume.name)),
        };
        match &mount.sub_path {
            None => mount::prepare(&source, &path, mount),
            Some(sub_path) if sub_path.as_os_str().is_empty() => mount::prepare(&source, &path, mount),
            Some(sub_path) => {
                let target = sub_path::open(&source, &volume.name, sub_path)?;
                mount::prepare(&target, &path.join(sub_path), mount)
            }
        }
    }

    /// Unmounts and removes all the pod's volumes have on the host; absent is done. Goes on after a
    /// failure. Nothing of the pod may still run.
    ///
    /// # Errors
    ///
    /// Everything that failed; it can be called again.
    pub fn release(&self, uid: &PodUid) -> Result<(), Vec<VolumeError>> {
        release::release(&self.pods, uid)
    }

    /// The pods that have volumes on the host: for an audit against the pods there are.
    ///
    /// # Errors
    ///
    /// [`VolumeError::Io`] when the directory of the pods cannot be read.
    pub fn leftovers(&self) -> Result<Vec<PodUid>, VolumeError> {
        release::leftovers(&self.pods)
    }

    /// Whether the pod keeps to the `sizeLimit` of its emptyDir volumes on disk. A limit in memory is kept
    /// by the kernel; one on disk is kept, as in the kubelet, by evicting the pod that exceeds it, which
    /// is up to the caller: this walks the volumes, so it is to be called seldom.
    ///
    /// # Errors
    ///
    /// [`VolumeError::OverLimit`] with the kubelet's eviction message, [`VolumeError::Io`].
    pub fn check_limits(&self, pod: &Pod) -> Result<(), VolumeError> {
        for volume in &pod.spec.volumes {
            if let VolumeSource::EmptyDir {
                medium: coracle_model::EmptyDirMedium::Default,
                size_limit: Some(limit),
            } = &volume.source
            {
                let path = self.empty_dir(&pod.uid, volume);
                if usage::usage(&path)? > limit.units() {
                    return Err(VolumeError::OverLimit { volume: volume.name.to_string(), limit: *limit });
                }
            }
        }
        Ok(())
    }

    fn empty_dir(&self, uid: &PodUid, volume: &Volume) -> PathBuf {
        // Both names were validated: neither is a path.
        self.pods.join(uid.as_str()).join(release::VOLUMES).join(empty_dir::PLUGIN).join(volume.name.as_str())
    }
}

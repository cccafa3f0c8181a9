//! hostPath, emptyDir, images, volumes of configuration, and subPath, as mounts held by descriptor.
//!
//! A volume is prepared once for its pod ([`Volumes::ensure`]) and then given to each container as a
//! detached mount ([`Volumes::mount`]). What is in a volume of configuration is the caller's to say, as a
//! [`Payload`]; it can be changed under containers that run ([`Volumes::update`]). What a container can write is hostile: paths inside a volume are
//! resolved beneath it by `openat2(2)`, checks are made on the descriptor that is mounted, and removal
//! follows no link.
//!
//! Everything here may block on the disk: an asynchronous caller uses `spawn_blocking`.

mod atomic_writer;
mod directory;
mod empty_dir;
mod error;
mod file;
mod host_path;
mod image;
mod memory;
mod mount;
mod mount_table;
mod payload;
mod projected;
mod release;
mod sub_path;
mod usage;

use std::collections::BTreeMap;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};

use coracle_linux::{MountAttributes, mount_setattr};
use coracle_model::{EmptyDirMedium, Name, Pod, PodUid, Volume, VolumeMount, VolumeSource};
use rustix::mount::MountPropagationFlags;

pub use error::VolumeError;
pub use mount::PreparedMount;
pub use payload::{Payload, PayloadFile};

/// Makes a directory that lies in memory, is the agent's alone and outlives it, unless it is there: for what must
/// not reach a disk. Its parent has to be there.
///
/// # Errors
/// [`VolumeError::Io`] by the step that failed.
pub fn directory_in_memory(path: &Path) -> Result<(), VolumeError> {
    let directory = directory::make_all(path, 1)?;
    if memory::is_mount_root(&directory, path)? {
        return Ok(());
    }
    let memory = memory::Memory { size: None, inodes: None, mode: 0o700, group: None };
    // On a shared mount it became shared with it; nobody else is to have it.
    let private = MountAttributes { propagation: Some(MountPropagationFlags::PRIVATE), ..Default::default() };
    let mounted = memory::mount_memory(&directory, memory);
    let mounted = mounted.and_then(|mount| mount_setattr(&mount, private));
    mounted.map_err(VolumeError::io("mount memory on", path))
}

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
    /// `payloads` has what is to be in the volumes of configuration, by name. One without keeps what was
    /// written into it before. `memory` is asked, for a volume in
    /// it, how many bytes of memory all pods of the node may use together.
    ///
    /// # Errors
    ///
    /// [`VolumeError`] of the first volume that cannot be had. The kubelet's event would be `FailedMount`.
    pub fn ensure(
        &self,
        pod: &Pod,
        payloads: &BTreeMap<Name, Payload>,
        memory: impl Fn() -> Option<u64>,
    ) -> Result<(), VolumeError> {
        let group = pod.spec.security.fs_group;
        for volume in &pod.spec.volumes {
            let path = self.path(&pod.uid, volume);
            match &volume.source {
                VolumeSource::HostPath { path, kind } => {
                    host_path::open(&volume.name, path, *kind)?;
                }
                VolumeSource::EmptyDir { medium, size_limit } => {
                    let size = || empty_dir::memory_size(pod, *size_limit, memory());
                    empty_dir::ensure(&path, *medium, size, group)?;
                }
                VolumeSource::Projected(_) => match payloads.get(&volume.name) {
                    Some(payload) => projected::ensure(&path, payload, group)?,
                    None => drop(projected::open(&path)?),
                },
                // Its files are the image store's.
                VolumeSource::Image { .. } => {}
            }
        }
        Ok(())
    }

    /// Makes a volume of configuration hold these files and no others, at once for whoever reads through
    /// its `..data`. Whether it held others before. Containers see it, but for those that have a subPath
    /// of it mounted.
    ///
    /// # Errors
    ///
    /// [`VolumeError::NotReady`] for a volume that was not made.
    pub fn update(&self, pod: &Pod, volume: &Name, payload: &Payload) -> Result<bool, VolumeError> {
        let volume = find(pod, volume)?;
        projected::update(&self.path(&pod.uid, volume), payload, pod.spec.security.fs_group)
    }

    /// Whether a volume of configuration was made, and something written into it.
    pub fn is_written(&self, pod: &Pod, volume: &Volume) -> bool {
        projected::open(&self.path(&pod.uid, volume)).is_ok()
    }

    /// The content of a regular file that containers have written into an emptyDir; `None` when there is
    /// none. The path is resolved beneath the volume.
    ///
    /// # Errors
    ///
    /// [`VolumeError::File`] for what is no regular file, leads out of the volume or is larger than `limit`
    /// bytes; [`VolumeError::NotReady`].
    pub fn read_file(
        &self,
        pod: &Pod,
        volume: &Name,
        path: &Path,
        limit: u64,
    ) -> Result<Option<Vec<u8>>, VolumeError> {
        let volume = find(pod, volume)?;
        let VolumeSource::EmptyDir { medium, .. } = &volume.source else {
            return Err(VolumeError::File {
                volume: volume.name.to_string(),
                path: path.to_owned(),
                problem: "the volume is no emptyDir".to_owned(),
            });
        };
        file::read(&empty_dir::open(&self.path(&pod.uid, volume), *medium)?, &volume.name, path, limit)
    }

    /// The mount of a volume for one container: detached, with its subPath, propagation and read-only
    /// flag applied. As in the kubelet, read-only concerns the volume itself and not what the host has
    /// mounted below it, and volumes of configuration always are.
    ///
    /// # Errors
    ///
    /// [`VolumeError`]; the kubelet's reason would be `CreateContainerConfigError` for a subPath, and a
    /// runtime's `CreateContainerError` for a propagation.
    pub fn mount(&self, pod: &Pod, mount: &VolumeMount) -> Result<PreparedMount, VolumeError> {
        let volume = find(pod, &mount.name)?;
        let path = self.path(&pod.uid, volume);
        let source = match &volume.source {
            VolumeSource::HostPath { path, kind } => host_path::open(&volume.name, path, *kind)?,
            VolumeSource::EmptyDir { medium, .. } => empty_dir::open(&path, *medium)?,
            VolumeSource::Projected(_) => projected::open(&path)?,
            VolumeSource::Image { .. } => {
                return Err(VolumeError::NotReady { path, problem: "its image is not mounted" });
            }
        };
        let read_only = mount.read_only || matches!(volume.source, VolumeSource::Projected(_));
        match &mount.sub_path {
            None => mount::prepare(&source, &path, mount, read_only),
            Some(sub_path) if sub_path.as_os_str().is_empty() => {
                mount::prepare(&source, &path, mount, read_only)
            }
            Some(sub_path) => {
                let target = {
                    let host = match &volume.source {
                        VolumeSource::HostPath { path, .. } => Some(path.as_path()),
                        _ => None,
                    };
                    sub_path::open(&source, host, &volume.name, sub_path)?
                };
                mount::prepare(&target, &path.join(sub_path), mount, read_only)
            }
        }
    }

    /// The same of an image volume. `root` is the image's files, as a mount of this container's that is attached nowhere.
    /// It is read-only, and nothing of it can change: a subPath that is not there is not made.
    ///
    /// # Errors
    ///
    /// [`VolumeError::SubPath`], [`VolumeError::Io`]; the kubelet's reason would be `CreateContainerError`.
    pub fn mount_image(&self, mount: &VolumeMount, root: OwnedFd) -> Result<PreparedMount, VolumeError> {
        let sub_path = mount.sub_path.as_deref().filter(|path| !path.as_os_str().is_empty());
        image::prepare(root, &mount.name, sub_path)
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
    /// [`VolumeError::OverLimit`] with the kubelet's eviction message; else the first [`VolumeError::Io`].
    pub fn check_limits(&self, pod: &Pod) -> Result<(), VolumeError> {
        let mut unknown = Ok(());
        for volume in &pod.spec.volumes {
            if let VolumeSource::EmptyDir { medium: EmptyDirMedium::Default, size_limit: Some(limit) } =
                &volume.source
            {
                match usage::usage(&self.path(&pod.uid, volume), limit.units()) {
                    Ok(used) if used > limit.units() => {
                        return Err(VolumeError::OverLimit {
                            volume: volume.name.to_string(),
                            limit: *limit,
                        });
                    }
                    Ok(_) => {}
                    // The limits of the others hold all the same.
                    Err(error) => unknown = unknown.and(Err(error)),
                }
            }
        }
        unknown
    }

    /// Where a volume's content lies.
    fn path(&self, uid: &PodUid, volume: &Volume) -> PathBuf {
        let plugin = match &volume.source {
            VolumeSource::HostPath { path, .. } => return path.clone(),
            VolumeSource::EmptyDir { .. } => empty_dir::PLUGIN,
            VolumeSource::Projected(_) => projected::PLUGIN,
            VolumeSource::Image { .. } => image::PLUGIN,
        };
        // Both names were validated: neither is a path.
        self.pods.join(uid.as_str()).join(release::VOLUMES).join(plugin).join(volume.name.as_str())
    }
}

fn find<'a>(pod: &'a Pod, name: &Name) -> Result<&'a Volume, VolumeError> {
    let found = pod.spec.volumes.iter().find(|volume| volume.name == *name);
    found.ok_or_else(|| VolumeError::Unknown { volume: name.to_string() })
}

//! The detached mount a container is given.

use std::os::fd::OwnedFd;
use std::path::Path;

use coracle_linux::{MountAttributes, mount_setattr};
use coracle_model::{MountPropagation, VolumeMount};
use rustix::fs::{FileType, fstat};
use rustix::io::Errno;
use rustix::mount::{MountAttrFlags, MountPropagationFlags, OpenTreeFlags, open_tree};

use crate::VolumeError;
use crate::mount_table::mount_of;

/// A volume for one container.
#[derive(Debug)]
pub struct PreparedMount {
    /// A detached mount, recursive: what is mounted below the source comes with it.
    pub fd: OwnedFd,
    /// Whether it is to be mounted on a directory, or on a file.
    pub is_directory: bool,
}

/// Clones the mounts at `source`, which lies at `path`, as the container is to see them.
pub(crate) fn prepare(
    source: &OwnedFd,
    path: &Path,
    mount: &VolumeMount,
    read_only: bool,
) -> Result<PreparedMount, VolumeError> {
    let failed = |step| VolumeError::io::<Errno>(step, path);
    let propagation = match mount.propagation {
        MountPropagation::None => MountPropagationFlags::PRIVATE,
        MountPropagation::HostToContainer => MountPropagationFlags::DOWNSTREAM,
        MountPropagation::Bidirectional => MountPropagationFlags::SHARED,
    };
    if mount.propagation != MountPropagation::None {
        let host = mount_of(source, path)?;
        let fits =
            host.is_shared || (host.is_slave && mount.propagation == MountPropagation::HostToContainer);
        if !fits {
            return Err(VolumeError::Propagation {
                path: path.to_owned(),
                mounted_on: host.mount_point,
                wanted: mount.propagation,
            });
        }
    }
    let is_directory =
        FileType::from_raw_mode(fstat(source).map_err(failed("look at"))?.st_mode) == FileType::Directory;
    let mut flags =
        OpenTreeFlags::OPEN_TREE_CLONE | OpenTreeFlags::OPEN_TREE_CLOEXEC | OpenTreeFlags::AT_EMPTY_PATH;
    if is_directory {
        flags |= OpenTreeFlags::AT_RECURSIVE;
    }
    let fd = open_tree(source, "", flags).map_err(failed("clone the mount of"))?;
    let travel =
        MountAttributes { propagation: Some(propagation), recursive: is_directory, ..Default::default() };
    mount_setattr(&fd, travel).map_err(failed("set the propagation of"))?;
    if read_only {
        let read_only = MountAttributes { set: MountAttrFlags::MOUNT_ATTR_RDONLY, ..Default::default() };
        mount_setattr(&fd, read_only).map_err(failed("make read-only"))?;
    }
    Ok(PreparedMount { fd, is_directory })
}

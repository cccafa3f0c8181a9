//! A tmpfs on a volume's directory, in the agent's own mount namespace, as the kubelet has it.
//!
//! A detached mount would go with its last holder, but the volume has to outlive every container and the
//! agent itself. The next agent finds it where it is mounted.

use std::os::fd::OwnedFd;
use std::path::Path;

use rustix::fs::{AtFlags, StatxAttributes, StatxFlags, fstatvfs, statx};
use rustix::io::Errno;
use rustix::mount::{
    FsMountFlags, FsOpenFlags, FsPickFlags, MountAttrFlags, MoveMountFlags, fsconfig_create,
    fsconfig_reconfigure, fsconfig_set_flag, fsconfig_set_string, fsmount, fsopen, fspick, move_mount,
};

use crate::VolumeError;

/// What a tmpfs is to be.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Memory {
    /// The most it may hold, in bytes; the kernel's default when `None`.
    pub(crate) size: Option<u64>,
    /// The most files, directories and links; the kernel's default when `None`.
    pub(crate) inodes: Option<u64>,
    /// Of the root directory.
    pub(crate) mode: u32,
    /// Of the root directory; root's when `None`.
    pub(crate) group: Option<u32>,
}

/// Mounts it on the directory, whose propagation it takes on: on a shared mount it is shared, as the kubelet's are,
/// and what one container mounts in it can be another's. Returns the mount.
pub(crate) fn mount_memory(directory: &OwnedFd, memory: Memory) -> Result<OwnedFd, Errno> {
    let context = fsopen("tmpfs", FsOpenFlags::FSOPEN_CLOEXEC)?;
    fsconfig_set_string(&context, "source", "tmpfs")?;
    fsconfig_set_string(&context, "mode", format!("{:o}", memory.mode))?;
    if let Some(size) = memory.size {
        fsconfig_set_string(&context, "size", size.to_string())?;
    }
    if let Some(inodes) = memory.inodes {
        fsconfig_set_string(&context, "nr_inodes", inodes.to_string())?;
    }
    if let Some(group) = memory.group {
        fsconfig_set_string(&context, "gid", group.to_string())?;
    }
    // Memory is not to reach a disk. Kernels before 6.4 do not know the option.
    match fsconfig_set_flag(&context, "noswap") {
        Ok(()) | Err(Errno::INVAL) => {}
        Err(error) => return Err(error),
    }
    fsconfig_create(&context)?;
    let memory = fsmount(&context, FsMountFlags::FSMOUNT_CLOEXEC, MountAttrFlags::empty())?;
    let flags = MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH | MoveMountFlags::MOVE_MOUNT_T_EMPTY_PATH;
    move_mount(&memory, "", directory, "", flags)?;
    Ok(memory)
}

/// Sets the limits of a mounted tmpfs to what it holds now and this much more.
pub(crate) fn make_room(root: &OwnedFd, bytes: u64, inodes: u64) -> Result<(), Errno> {
    let now = fstatvfs(root)?;
    let used = now.f_blocks.saturating_sub(now.f_bfree).saturating_mul(now.f_frsize);
    let size = used.saturating_add(bytes);
    let count = now.f_files.saturating_sub(now.f_ffree).saturating_add(inodes);
    let context = fspick(root, "", FsPickFlags::FSPICK_EMPTY_PATH | FsPickFlags::FSPICK_CLOEXEC)?;
    fsconfig_set_string(&context, "size", size.to_string())?;
    fsconfig_set_string(&context, "nr_inodes", count.to_string())?;
    fsconfig_reconfigure(&context)
}

/// Whether something is mounted on the directory.
pub(crate) fn is_mount_root(directory: &OwnedFd, path: &Path) -> Result<bool, VolumeError> {
    let stat = statx(directory, "", AtFlags::EMPTY_PATH, StatxFlags::BASIC_STATS)
        .map_err(VolumeError::io("look at", path))?;
    Ok(stat.stx_attributes.contains(StatxAttributes::MOUNT_ROOT))
}

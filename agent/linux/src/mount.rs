//! `mount_setattr(2)`: changing a mount that is held by descriptor.

use std::os::fd::{AsFd, AsRawFd};

use rustix::io::Errno;
use rustix::mount::{MountAttrFlags, MountPropagationFlags};

/// What to change of a mount.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MountAttributes {
    /// Flags to set. To set one of the access-time modes, clear `MOUNT_ATTR__ATIME` as well.
    pub set: MountAttrFlags,
    /// Flags to clear.
    pub clear: MountAttrFlags,
    /// The new propagation type, one of shared, private, slave (`DOWNSTREAM`) and unbindable.
    pub propagation: Option<MountPropagationFlags>,
    /// Also every mount below it.
    pub recursive: bool,
}

impl Default for MountAttributes {
    fn default() -> Self {
        Self {
            set: MountAttrFlags::empty(),
            clear: MountAttrFlags::empty(),
            propagation: None,
            recursive: false,
        }
    }
}

/// Changes the mount that `mount`, a descriptor of its root, refers to. All of it or nothing is changed.
///
/// See `mount_setattr(2)`; since Linux 5.12.
pub fn mount_setattr(mount: impl AsFd, attributes: MountAttributes) -> Result<(), Errno> {
    let mut flags = libc::AT_EMPTY_PATH;
    if attributes.recursive {
        flags |= libc::AT_RECURSIVE;
    }
    let request = libc::mount_attr {
        attr_set: attributes.set.bits().into(),
        attr_clr: attributes.clear.bits().into(),
        propagation: attributes.propagation.map_or(0, |kind| kind.bits().into()),
        userns_fd: 0,
    };
    // SAFETY: the path is a terminated string, the request outlives the call, and its size is its own.
    let result = unsafe {
        libc::syscall(
            libc::SYS_mount_setattr,
            mount.as_fd().as_raw_fd(),
            c"".as_ptr(),
            flags,
            &raw const request,
            size_of::<libc::mount_attr>(),
        )
    };
    crate::errno::check(result).map(drop)
}

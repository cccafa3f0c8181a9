//! `mount_setattr(2)`: changing a mount that is held by descriptor.

use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::path::Path;

use rustix::fs::{CWD, Mode, OFlags, ResolveFlags, openat2};
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

/// Opens a path of the host to mount what is there, as a descriptor (`O_PATH`) that is close-on-exec.
///
/// What the host mounts only when it is used (autofs, `x-systemd.automount`) is mounted, as by `mount(2)`: the kernel
/// takes an `O_PATH` for a look from without, which uses nothing, unless it asks for a directory.
///
/// # Errors
/// Those of `openat2(2)`.
pub fn open_to_mount(path: &Path, resolve: ResolveFlags) -> Result<OwnedFd, Errno> {
    let open = |flags| openat2(CWD, path, flags | OFlags::PATH | OFlags::CLOEXEC, Mode::empty(), resolve);
    match open(OFlags::DIRECTORY) {
        Err(Errno::NOTDIR) => open(OFlags::empty()),
        opened => opened,
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

#[cfg(test)]
mod tests {
    use std::ffi::CString;
    use std::fs;
    use std::os::unix::process::CommandExt;
    use std::process::Command;

    use rustix::mount::{MountFlags, UnmountFlags, mount, mount_change, unmount};

    use super::*;

    #[test]
    fn what_is_mounted_when_it_is_used_is_asked_for() {
        if !rustix::process::geteuid().is_root() {
            return;
        }
        crate::unshare_mount_namespace().unwrap();
        mount_change("/", MountPropagationFlags::REC | MountPropagationFlags::PRIVATE).unwrap();
        let directory = std::env::temp_dir().join(format!("coracle-linux-automount-{}", std::process::id()));
        fs::create_dir_all(&directory).unwrap();
        // A daemon that is no more: the kernel asks it in vain, and says that nothing is there.
        let (requests, kernels) = std::io::pipe().unwrap();
        drop(requests);
        // Whoever is in its process group counts as the daemon.
        let mut daemon = Command::new("sleep").arg("60").process_group(0).spawn().unwrap();
        let (pipe, group) = (kernels.as_raw_fd(), daemon.id());
        let options = CString::new(format!("fd={pipe},pgrp={group},minproto=5,maxproto=5,direct")).unwrap();
        let mounted = mount("test", &directory, "autofs", MountFlags::empty(), options.as_c_str());
        daemon.kill().unwrap();
        daemon.wait().unwrap();
        if mounted == Err(Errno::NODEV) {
            // A kernel without it.
            return fs::remove_dir(&directory).unwrap();
        }
        mounted.unwrap();
        let look = openat2(CWD, &directory, OFlags::PATH, Mode::empty(), ResolveFlags::empty());
        look.expect("a look asks nobody");
        assert_eq!(open_to_mount(&directory, ResolveFlags::empty()).unwrap_err(), Errno::NOENT);
        unmount(&directory, UnmountFlags::DETACH).unwrap();
        fs::remove_dir(&directory).unwrap();
        let file = std::env::current_exe().unwrap();
        open_to_mount(&file, ResolveFlags::empty()).unwrap();
    }
}

//! /dev/shm: one for all containers of a pod, as they share one ipc namespace.
//!
//! Like an emptyDir in memory it is mounted in the pod's directory, where the next agent finds it. Held by
//! descriptor only, it could not be given to a second container before Linux 6.15, which learned to copy a
//! mount that is attached nowhere.

use std::fs;
use std::io;
use std::os::fd::OwnedFd;
use std::path::Path;

use coracle_linux::{MountAttributes, mount_setattr};
use rustix::fs::{AtFlags, CWD, StatxAttributes, StatxFlags, statx};
use rustix::io::Errno;
use rustix::mount::{
    FsMountFlags, FsOpenFlags, MountAttrFlags, MountPropagationFlags, MoveMountFlags, OpenTreeFlags,
    UnmountFlags, fsconfig_create, fsconfig_set_string, fsmount, fsopen, move_mount, open_tree, unmount,
};

use crate::error::{Error, file};
use crate::host;

/// Its name in the pod's directory.
const DIRECTORY: &str = "shm";
/// The host's, for a pod in the host's ipc namespace.
const OF_HOST: &str = "/dev/shm";
/// In bytes, as under containerd.
const SIZE: &str = "67108864";

/// Makes an empty one for a new sandbox, in place of that of a sandbox that died.
pub(crate) fn renew(pod_dir: &Path) -> Result<(), Error> {
    remove(pod_dir)?;
    let path = pod_dir.join(DIRECTORY);
    host::private_dir(&path)?;
    let directory = host::open_dir(&path)?;
    mount(&directory).map_err(|errno| file("mount the pod's /dev/shm on", path)(errno.into()))
}

/// A detached mount for one container, of the pod's or of the host's.
pub(crate) fn open(pod_dir: &Path, of_host: bool) -> Result<OwnedFd, Error> {
    let own = pod_dir.join(DIRECTORY);
    let path = if of_host { Path::new(OF_HOST) } else { &own };
    let failed = |step| move |errno: Errno| file(step, path)(errno.into());
    if !of_host {
        let stat = statx(CWD, path, AtFlags::SYMLINK_NOFOLLOW, StatxFlags::BASIC_STATS)
            .map_err(failed("look at the pod's /dev/shm in"))?;
        // The directory beneath would put on disk what is memory, without a limit.
        if !stat.stx_attributes.contains(StatxAttributes::MOUNT_ROOT) {
            let lost = io::Error::other("nothing is mounted there any more; a new pod gets a new one");
            return Err(file("find the pod's /dev/shm in", path)(lost));
        }
    }
    let flags = OpenTreeFlags::OPEN_TREE_CLONE | OpenTreeFlags::OPEN_TREE_CLOEXEC;
    let mount = open_tree(CWD, path, flags).map_err(failed("copy the mount of /dev/shm in"))?;
    let private = MountAttributes { propagation: Some(MountPropagationFlags::PRIVATE), ..Default::default() };
    mount_setattr(&mount, private).map_err(failed("keep to itself the mount of /dev/shm in"))?;
    Ok(mount)
}

/// Unmounts it. What a container still maps of it lives as long as that container.
pub(crate) fn remove(pod_dir: &Path) -> Result<(), Error> {
    let path = pod_dir.join(DIRECTORY);
    let flags = UnmountFlags::DETACH | UnmountFlags::NOFOLLOW;
    loop {
        match unmount(&path, flags) {
            // An agent that died while it renewed it may have left two.
            Ok(()) => {}
            // Nothing is mounted there, or there is no such directory.
            Err(Errno::INVAL | Errno::NOENT) => break,
            Err(errno) => return Err(file("unmount", path)(errno.into())),
        }
    }
    match fs::remove_dir(&path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(file("remove", path)(error)),
        _ => Ok(()),
    }
}

fn mount(directory: &OwnedFd) -> Result<(), Errno> {
    let context = fsopen("tmpfs", FsOpenFlags::FSOPEN_CLOEXEC)?;
    for (option, value) in [("source", "shm"), ("mode", "1777"), ("size", SIZE)] {
        fsconfig_set_string(&context, option, value)?;
    }
    fsconfig_create(&context)?;
    let attributes = MountAttrFlags::MOUNT_ATTR_NOSUID
        | MountAttrFlags::MOUNT_ATTR_NODEV
        | MountAttrFlags::MOUNT_ATTR_NOEXEC;
    let memory = fsmount(&context, FsMountFlags::FSMOUNT_CLOEXEC, attributes)?;
    let flags = MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH | MoveMountFlags::MOVE_MOUNT_T_EMPTY_PATH;
    move_mount(&memory, "", directory, "", flags)?;
    // On a shared parent the mount became shared with it.
    let private = MountAttributes { propagation: Some(MountPropagationFlags::PRIVATE), ..Default::default() };
    mount_setattr(&memory, private)
}

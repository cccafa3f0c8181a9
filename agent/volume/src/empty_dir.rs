//! emptyDir: a directory that lives as long as its pod, on disk or in memory.
//!
//! Memory is a tmpfs mounted on the volume's directory in the agent's own mount namespace, as the kubelet
//! does: a detached mount would go with its last holder, but the volume has to outlive every container
//! and the agent itself. The next agent finds it where it is mounted.

use std::os::fd::OwnedFd;
use std::path::Path;

use coracle_linux::{MountAttributes, mount_setattr};
use coracle_model::{EmptyDirMedium, Pod, Quantity};
use rustix::fs::{
    AtFlags, CWD, Mode, OFlags, ResolveFlags, StatxAttributes, StatxFlags, fchmod, mkdirat, openat, openat2,
    statx,
};
use rustix::io::Errno;
use rustix::mount::{
    FsMountFlags, FsOpenFlags, MountAttrFlags, MountPropagationFlags, MoveMountFlags, fsconfig_create,
    fsconfig_set_flag, fsconfig_set_string, fsmount, fsopen, move_mount,
};

use crate::VolumeError;

/// The directory's name, which tools know from the kubelet.
pub(crate) const PLUGIN: &str = "kubernetes.io~empty-dir";

/// How large a volume in memory may grow: the smaller of its `sizeLimit` and the memory the pod's
/// containers may use together; `None` where neither is limited, and the kernel's default holds.
pub(crate) fn memory_size(pod: &Pod, size_limit: Option<Quantity>) -> Option<u64> {
    let limits: Option<Vec<u64>> = pod
        .spec
        .containers
        .iter()
        .map(|container| container.resources.limits.memory.map(Quantity::units))
        .collect();
    let pod_limit =
        limits.map(|limits| limits.into_iter().fold(0, u64::saturating_add)).filter(|limit| *limit > 0);
    let volume_limit = size_limit.filter(|limit| !limit.is_zero()).map(Quantity::units);
    match (volume_limit, pod_limit) {
        (Some(volume), Some(pod)) => Some(volume.min(pod)),
        (limit, None) | (None, limit) => limit,
    }
}

/// Makes the volume, unless it is there.
pub(crate) fn ensure(path: &Path, medium: EmptyDirMedium, size: Option<u64>) -> Result<(), VolumeError> {
    let directory = make_directories(path)?;
    let failed = |step| VolumeError::io::<Errno>(step, path);
    match medium {
        // Containers of any user write there.
        EmptyDirMedium::Default => {
            fchmod(&directory, Mode::from_raw_mode(0o777)).map_err(failed("set the mode of"))
        }
        EmptyDirMedium::Memory if is_mount_root(&directory, path)? => Ok(()),
        EmptyDirMedium::Memory => mount_memory(&directory, size).map_err(failed("mount memory on")),
    }
}

/// Opens a volume that was made.
pub(crate) fn open(path: &Path, medium: EmptyDirMedium) -> Result<OwnedFd, VolumeError> {
    let not_ready = |problem| VolumeError::NotReady { path: path.to_owned(), problem };
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let directory = match openat(CWD, path, flags, Mode::empty()) {
        Ok(directory) => directory,
        Err(Errno::NOENT) => return Err(not_ready("it was not made")),
        Err(error) => return Err(VolumeError::io("open", path)(error)),
    };
    // Writing to the disk what was meant for memory would leak it, and evade its limit.
    if medium == EmptyDirMedium::Memory && !is_mount_root(&directory, path)? {
        return Err(not_ready("its memory is not mounted"));
    }
    Ok(directory)
}

fn mount_memory(directory: &OwnedFd, size: Option<u64>) -> Result<(), Errno> {
    let context = fsopen("tmpfs", FsOpenFlags::FSOPEN_CLOEXEC)?;
    fsconfig_set_string(&context, "source", "tmpfs")?;
    fsconfig_set_string(&context, "mode", "0777")?;
    if let Some(size) = size {
        fsconfig_set_string(&context, "size", size.to_string())?;
    }
    // Memory is not to reach a disk. Kernels before 6.3 do not know the option.
    match fsconfig_set_flag(&context, "noswap") {
        Ok(()) | Err(Errno::INVAL) => {}
        Err(error) => return Err(error),
    }
    fsconfig_create(&context)?;
    let memory = fsmount(&context, FsMountFlags::FSMOUNT_CLOEXEC, MountAttrFlags::empty())?;
    let flags = MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH | MoveMountFlags::MOVE_MOUNT_T_EMPTY_PATH;
    move_mount(&memory, "", directory, "", flags)?;
    // On a shared parent the mount became shared with it; what containers mount in it is not the host's.
    let private = MountAttributes { propagation: Some(MountPropagationFlags::PRIVATE), ..Default::default() };
    mount_setattr(&memory, private)
}

/// Whether something is mounted on the directory.
pub(crate) fn is_mount_root(directory: &OwnedFd, path: &Path) -> Result<bool, VolumeError> {
    let stat = statx(directory, "", AtFlags::EMPTY_PATH, StatxFlags::BASIC_STATS)
        .map_err(VolumeError::io("look at", path))?;
    Ok(stat.stx_attributes.contains(StatxAttributes::MOUNT_ROOT))
}

/// Makes the directory and its parents, following no link below the state directory.
fn make_directories(path: &Path) -> Result<OwnedFd, VolumeError> {
    // <state>/pods/<uid>/volumes/<plugin>/<name>: the last five are ours.
    let components: Vec<_> = path.iter().collect();
    let (state, ours) = components.split_at(components.len().saturating_sub(5));
    let mut at_path: std::path::PathBuf = state.iter().collect();
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let mut at = openat(CWD, &at_path, flags, Mode::empty()).map_err(VolumeError::io("open", &at_path))?;
    for name in ours {
        at_path.push(name);
        match mkdirat(&at, *name, Mode::from_raw_mode(0o750)) {
            Ok(()) | Err(Errno::EXIST) => {}
            Err(error) => return Err(VolumeError::io("create", &at_path)(error)),
        }
        // Of what is mounted on the last one, its root is what counts.
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        at = openat2(&at, *name, flags, Mode::empty(), ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS)
            .map_err(VolumeError::io("open", &at_path))?;
    }
    Ok(at)
}

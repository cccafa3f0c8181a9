//! emptyDir: a directory that lives as long as its pod, on disk or in memory.

use std::ffi::OsString;
use std::os::fd::OwnedFd;
use std::path::Path;

use coracle_model::{EmptyDirMedium, Pod, Quantity};
use rustix::fs::{CWD, Gid, Mode, OFlags, RenameFlags, fchmod, fchown, mkdirat, openat, renameat_with};
use rustix::io::Errno;

use crate::VolumeError;
use crate::directory::{self, mode_for};
use crate::memory::{Memory, is_mount_root, mount_memory};

/// The directory's name, which tools know from the kubelet.
pub(crate) const PLUGIN: &str = "kubernetes.io~empty-dir";

/// How large a volume in memory may grow, as in the kubelet: as far as its `sizeLimit`, the memory that the pod's
/// containers may use together, and that which all pods of the node may (`node`) allow. `None` where nothing of it is
/// known, and the kernel's default holds.
pub(crate) fn memory_size(pod: &Pod, size_limit: Option<Quantity>, node: Option<u64>) -> Option<u64> {
    let volume = size_limit.filter(|limit| !limit.is_zero()).map(Quantity::units);
    [volume, pod.spec.memory_limit(), node].into_iter().flatten().min()
}

/// Makes the volume, unless it is there. `group` is the pod's `fsGroup`: as in the kubelet it is set when
/// the volume is made, and what containers make of it afterwards is theirs.
pub(crate) fn ensure(
    path: &Path,
    medium: EmptyDirMedium,
    size: impl FnOnce() -> Option<u64>,
    group: Option<u32>,
) -> Result<(), VolumeError> {
    match medium {
        EmptyDirMedium::Default => make_on_disk(path, group),
        EmptyDirMedium::Memory => {
            let directory = directory::make_all(path, directory::DEPTH)?;
            if is_mount_root(&directory, path)? {
                return Ok(());
            }
            let memory = Memory { size: size(), inodes: None, mode: mode_for(group), group };
            mount_memory(&directory, memory).map(drop).map_err(VolumeError::io("mount memory on", path))
        }
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

/// Under another name first, so that one that is there is complete: no half-made one is mistaken for a
/// volume whose mode a container has changed.
fn make_on_disk(path: &Path, group: Option<u32>) -> Result<(), VolumeError> {
    let failed = |step| VolumeError::io::<Errno>(step, path);
    let (Some(parent), Some(name)) = (path.parent(), path.file_name()) else {
        return Err(failed("create")(Errno::INVAL));
    };
    let parent = directory::make_all(parent, directory::DEPTH - 1)?;
    match directory::enter(&parent, Path::new(name)) {
        Err(Errno::NOENT) => {}
        found => return found.map(drop).map_err(failed("open")),
    }
    // A volume's name has no dot.
    let mut unfinished = OsString::from(".");
    unfinished.push(name);
    match mkdirat(&parent, &unfinished, Mode::from_raw_mode(0o700)) {
        Ok(()) | Err(Errno::EXIST) => {}
        Err(error) => return Err(failed("create")(error)),
    }
    let directory = directory::enter(&parent, Path::new(&unfinished)).map_err(failed("open"))?;
    if let Some(group) = group {
        fchown(&directory, None, Some(Gid::from_raw(group))).map_err(failed("set the group of"))?;
    }
    fchmod(&directory, Mode::from_raw_mode(mode_for(group))).map_err(failed("set the mode of"))?;
    renameat_with(&parent, &unfinished, &parent, name, RenameFlags::NOREPLACE).map_err(failed("create"))
}

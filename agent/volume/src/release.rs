//! Removal of a pod's volumes.

use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::path::Path;

use coracle_linux::remove_tree;
use coracle_model::PodUid;
use rustix::fs::{AtFlags, CWD, Dir, Mode, OFlags, ResolveFlags, openat, openat2, unlinkat};
use rustix::io::Errno;
use rustix::mount::{UnmountFlags, unmount};

use crate::VolumeError;
use crate::mount_table::mounts;

/// The directory of a pod's volumes.
pub(crate) const VOLUMES: &str = "volumes";
/// Mounts may be stacked, each uncovering the next.
const MAX_PASSES: usize = 64;

pub(crate) fn release(pods: &Path, uid: &PodUid) -> Result<(), Vec<VolumeError>> {
    let path = pods.join(uid.as_str());
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let pod = match openat(CWD, &path, flags, Mode::empty()) {
        Ok(pod) => pod,
        Err(Errno::NOENT) => return Ok(()),
        Err(error) => return Err(vec![VolumeError::io("open", &path)(error)]),
    };
    let volumes = path.join(VOLUMES);
    let mut failures = Vec::new();
    if let Err(error) = unmount_below(&volumes) {
        failures.push(error);
    }
    // What is still mounted is not entered.
    if let Err(error) = remove_tree(pod.as_fd(), VOLUMES.as_ref()) {
        failures.push(VolumeError::io("remove", &volumes)(error));
    }
    drop(pod);
    // Containers' directories may still be there; the last to go takes the pod's own.
    match unlinkat(CWD, &path, AtFlags::REMOVEDIR) {
        Ok(()) | Err(Errno::NOENT | Errno::NOTEMPTY | Errno::EXIST) => {}
        Err(error) => failures.push(VolumeError::io("remove", &path)(error)),
    }
    if failures.is_empty() { Ok(()) } else { Err(failures) }
}

pub(crate) fn leftovers(pods: &Path) -> Result<Vec<PodUid>, VolumeError> {
    let failed = |step| VolumeError::io::<Errno>(step, pods);
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let directory = match openat(CWD, pods, flags, Mode::empty()) {
        Ok(directory) => directory,
        Err(Errno::NOENT) => return Ok(Vec::new()),
        Err(error) => return Err(failed("open")(error)),
    };
    let mut uids = Vec::new();
    for entry in Dir::read_from(&directory).map_err(failed("list"))? {
        let entry = entry.map_err(failed("list"))?;
        let Some(uid) = entry.file_name().to_str().ok().and_then(|name| name.parse::<PodUid>().ok()) else {
            continue;
        };
        let volumes = Path::new(uid.as_str()).join(VOLUMES);
        if rustix::fs::statat(&directory, &volumes, AtFlags::SYMLINK_NOFOLLOW).is_ok() {
            uids.push(uid);
        }
    }
    uids.sort();
    Ok(uids)
}

/// Unmounts everything at or below a directory: memory, and what containers with Bidirectional
/// propagation left there.
fn unmount_below(directory: &Path) -> Result<(), VolumeError> {
    // The table shows resolved paths.
    let directory = match directory.canonicalize() {
        Ok(directory) => directory,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(VolumeError::io("resolve", directory)(error)),
    };
    let root = openat(CWD, &directory, OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())
        .map_err(VolumeError::io("open", &directory))?;
    let mut failure = None;
    for _ in 0..MAX_PASSES {
        // Those on top first.
        let below: Vec<_> =
            mounts()?.into_iter().rev().filter(|mount| mount.mount_point.starts_with(&directory)).collect();
        if below.is_empty() {
            return Ok(());
        }
        failure = None;
        for mount in below {
            let Ok(relative) = mount.mount_point.strip_prefix(&directory) else { continue };
            if let Err(error) = unmount_at(&root, relative) {
                failure.get_or_insert(VolumeError::io("unmount", &mount.mount_point)(error));
            }
        }
        if failure.is_some() {
            break;
        }
    }
    failure.map_or(Ok(()), Err)
}

/// Unmounts what is mounted at a path that has no link in it. The container may have named a directory
/// on the way as it liked, so the path is opened beneath `root` and the mount named by descriptor.
fn unmount_at(root: &OwnedFd, relative: &Path) -> Result<(), Errno> {
    let (parent, name) = match (relative.parent(), relative.file_name()) {
        (Some(parent), Some(name)) => (parent, Path::new(name)),
        // A mount on the volumes directory itself is not ours.
        _ => return Err(Errno::BUSY),
    };
    let parent = if parent.as_os_str().is_empty() { Path::new(".") } else { parent };
    let resolve = ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS | ResolveFlags::NO_MAGICLINKS;
    let parent =
        openat2(root, parent, OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty(), resolve)?;
    let path = Path::new("/proc/thread-self/fd").join(parent.as_raw_fd().to_string()).join(name);
    // Detached: a process that still has a file open there must not keep the pod from going.
    match unmount(&path, UnmountFlags::DETACH | UnmountFlags::NOFOLLOW) {
        // Gone with a mount below it.
        Err(Errno::INVAL | Errno::NOENT) => Ok(()),
        done => done,
    }
}

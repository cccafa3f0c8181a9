//! Volumes of images: the read-only root of an image's files, or what lies in it.

use std::os::fd::OwnedFd;
use std::path::Path;

use coracle_linux::{MountAttributes, mount_setattr, open_beneath, unshare_mount_namespace};
use coracle_model::Name;
use rustix::fs::{CWD, FileType, OFlags, ResolveFlags, fstat};
use rustix::io::Errno;
use rustix::mount::{
    MountAttrFlags, MountPropagationFlags, MoveMountFlags, OpenTreeFlags, mount_change, move_mount, open_tree,
};

use crate::{PreparedMount, VolumeError};

pub(crate) const PLUGIN: &str = "kubernetes.io~image";

/// What no container gets of an image volume: nothing can be written, and there is no device.
const ATTRIBUTES: MountAttrFlags = MountAttrFlags::MOUNT_ATTR_RDONLY.union(MountAttrFlags::MOUNT_ATTR_NODEV);

/// Makes a container's mount of an image's files, which are mounted nowhere.
pub(crate) fn prepare(
    root: OwnedFd,
    volume: &Name,
    sub_path: Option<&Path>,
) -> Result<PreparedMount, VolumeError> {
    let fd = match sub_path {
        None => root,
        Some(sub_path) => {
            let failed = |(step, error): (&'static str, Errno)| VolumeError::SubPath {
                volume: volume.to_string(),
                sub_path: sub_path.to_owned(),
                step,
                source: error.into(),
            };
            part(&root, sub_path).map_err(failed)?
        }
    };
    let failed = |step| VolumeError::io::<Errno>(step, Path::new(volume.as_str()));
    let attributes = MountAttributes { set: ATTRIBUTES, ..Default::default() };
    mount_setattr(&fd, attributes).map_err(failed("make read-only the image volume"))?;
    let kind = fstat(&fd).map_err(failed("look at the image volume"))?.st_mode;
    Ok(PreparedMount { fd, is_directory: FileType::from_raw_mode(kind) == FileType::Directory })
}

/// A mount of what lies at a path of the image. Links lead where they would in a container of it, and never out.
///
/// Before Linux 6.15 only what is mounted somewhere can be mounted again in part: it is, in a mount namespace that one
/// thread has for the purpose and takes with it.
fn part(root: &OwnedFd, sub_path: &Path) -> Result<OwnedFd, (&'static str, Errno)> {
    let step = |step: &'static str| move |error: Errno| (step, error);
    std::thread::scope(|scope| {
        let mounter = scope.spawn(|| {
            unshare_mount_namespace().map_err(step("leave the mount namespace for"))?;
            let private = MountPropagationFlags::REC | MountPropagationFlags::PRIVATE;
            mount_change("/", private).map_err(step("make private the mounts for"))?;
            // Any directory serves: nobody else is in this namespace.
            move_mount(root, "", CWD, "/proc", MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH)
                .map_err(step("attach the image of"))?;
            let resolve = ResolveFlags::IN_ROOT | ResolveFlags::NO_MAGICLINKS;
            let found = open_beneath(root, sub_path, OFlags::PATH, resolve).map_err(step("open"))?;
            let flags = OpenTreeFlags::OPEN_TREE_CLONE
                | OpenTreeFlags::OPEN_TREE_CLOEXEC
                | OpenTreeFlags::AT_EMPTY_PATH;
            open_tree(&found, "", flags).map_err(step("clone the mount of"))
        });
        mounter.join().unwrap_or(Err(("mount", Errno::CANCELED)))
    })
}

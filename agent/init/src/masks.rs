//! Masked and read-only paths (OCI runtime specification, Linux).

use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};

use coracle_linux::{MountAttributes, mount_setattr};
use rustix::fs::{FileType, OFlags, fstat};
use rustix::io::Errno;
use rustix::mount::MountAttrFlags;

use crate::failure::{Context, Result, Step};
use crate::mounts::{attach_at, copy, make, set_readonly};
use crate::root::{Links, Root};

/// A mount that is put over several paths.
struct Cover {
    mount: OwnedFd,
    attached: bool,
}

impl Cover {
    fn put(&mut self, target: &OwnedFd) -> std::result::Result<(), Errno> {
        if self.attached {
            // Only a mount that is attached can be copied, before Linux 6.15.
            return attach_at(copy(&self.mount, false)?, target);
        }
        self.attached = true;
        attach_at(&self.mount, target)
    }
}

/// Hides paths: a file behind the null device, a directory behind an empty one. What is not there needs no
/// hiding.
pub(crate) fn mask(root: &Root, paths: &[PathBuf], null: OwnedFd) -> Result<()> {
    let set = MountAttrFlags::MOUNT_ATTR_RDONLY
        | MountAttrFlags::MOUNT_ATTR_NOSUID
        | MountAttrFlags::MOUNT_ATTR_NOEXEC;
    mount_setattr(&null, MountAttributes { set, ..Default::default() })
        .at(Step::MaskedPath, "making the null device read-only")?;
    let mut null = Cover { mount: null, attached: false };
    let mut empty: Option<Cover> = None;
    for path in paths {
        let Some(target) = find(root, path, Step::MaskedPath)? else { continue };
        let stat = fstat(&target).on(Step::MaskedPath, path, "looking at it")?;
        let cover = match FileType::from_raw_mode(stat.st_mode) {
            FileType::Directory if root.is(&stat) => {
                return Err(Step::MaskedPath.refuse(Some(path), "the root itself cannot be masked"));
            }
            FileType::Directory => match &mut empty {
                Some(cover) => cover,
                none => none.insert(Cover { mount: empty_directory(path)?, attached: false }),
            },
            _ => &mut null,
        };
        cover.put(&target).on(Step::MaskedPath, path, "covering it")?;
    }
    Ok(())
}

fn empty_directory(path: &Path) -> Result<OwnedFd> {
    let attributes = MountAttrFlags::MOUNT_ATTR_RDONLY
        | MountAttrFlags::MOUNT_ATTR_NOSUID
        | MountAttrFlags::MOUNT_ATTR_NODEV
        | MountAttrFlags::MOUNT_ATTR_NOEXEC;
    let mode = [("mode".to_owned(), Some("755".to_owned()))];
    make("tmpfs", None, &mode, attributes, path)
}

/// Makes paths, and all mounted below them, read-only.
pub(crate) fn make_readonly(root: &Root, paths: &[PathBuf]) -> Result<()> {
    for path in paths {
        let Some(target) = find(root, path, Step::ReadonlyPath)? else { continue };
        let copied = copy(&target, true).on(Step::ReadonlyPath, path, "copying its mount")?;
        set_readonly(&copied, true).on(Step::ReadonlyPath, path, "making it read-only")?;
        attach_at(&copied, &target).on(Step::ReadonlyPath, path, "attaching")?;
    }
    Ok(())
}

fn find(root: &Root, path: &Path, step: Step) -> Result<Option<OwnedFd>> {
    match root.open(path, OFlags::PATH, Links::Follow) {
        Err(Errno::NOENT | Errno::NOTDIR) => Ok(None),
        result => result.map(Some).on(step, path, "opening"),
    }
}

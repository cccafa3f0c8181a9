//! What files have besides their content: owner, mode, extended attributes, times.

use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::{ffi::OsStr, path::Path};

use rustix::fs::{
    AtFlags, Gid, Mode, Stat, Timespec, Timestamps, Uid, XattrFlags, chownat, fchmod, fchown, fgetxattr,
    flistxattr, fremovexattr, fsetxattr, futimens, lremovexattr, utimensat,
};
use rustix::io::Errno;

use super::entry::{Entry, Fault, Xattrs};

const ACCESS_ACL: &str = "system.posix_acl_access";
const DEFAULT_ACL: &str = "system.posix_acl_default";

/// Owner, mode, extended attributes and time, in the order that keeps them: a change of owner takes
/// away setuid bits and file capabilities.
/// `stat` is what it has: what is right already is left alone.
pub(super) fn dress(file: &OwnedFd, stat: &Stat, entry: &Entry) -> Result<(), Fault> {
    let failed = |step| Fault::write::<Errno>(step, &entry.path);
    let is_owned = (stat.st_uid, stat.st_gid) == (entry.uid, entry.gid);
    if !is_owned {
        fchown(file, Some(Uid::from_raw(entry.uid)), Some(Gid::from_raw(entry.gid)))
            .map_err(failed("set the owner of"))?;
    }
    if !is_owned || stat.st_mode & 0o7777 != entry.mode {
        fchmod(file, Mode::from_raw_mode(entry.mode)).map_err(failed("set the mode of"))?;
    }
    for (name, value) in &entry.xattrs {
        match policy(name) {
            Policy::Keep => match fsetxattr(file, name.as_slice(), value, XattrFlags::empty()) {
                // A file system without them: only capabilities change what a program may do.
                Err(Errno::OPNOTSUPP) if name != b"security.capability" => {}
                result => result.map_err(failed("set an extended attribute of"))?,
            },
            Policy::Ignore => {}
            Policy::Refuse => {
                let name = String::from_utf8_lossy(name);
                return Err(Fault::malformed(
                    &entry.path,
                    &format!("has the attribute {name:?}, which is overlayfs' own"),
                ));
            }
        }
    }
    futimens(file, &times(entry.mtime.0, entry.mtime.1)).map_err(failed("set the time of"))
}

enum Policy {
    Keep,
    Ignore,
    Refuse,
}

/// Which extended attributes a layer may bring. Labels and signatures of the machine an image was built
/// on (`security.selinux`, `security.ima`) mean nothing, or something else, here.
fn policy(name: &[u8]) -> Policy {
    if name.starts_with(b"trusted.overlay.") {
        Policy::Refuse
    } else if name.starts_with(b"user.")
        || name == b"security.capability"
        || [ACCESS_ACL, DEFAULT_ACL].map(str::as_bytes).contains(&name)
    {
        Policy::Keep
    } else {
        Policy::Ignore
    }
}

/// Whether what is made in a directory of this entry inherits from it (acl(5), "OBJECT CREATION AND DEFAULT ACLs").
pub(super) fn bequeaths(entry: &Entry) -> bool {
    entry.xattrs.iter().any(|(name, _)| name == DEFAULT_ACL.as_bytes())
}

/// Takes away what a new directory has inherited from the one it is in.
pub(crate) fn disinherit(directory: &impl AsFd) -> Result<(), Errno> {
    [ACCESS_ACL, DEFAULT_ACL].iter().try_for_each(|name| absent(fremovexattr(directory, *name)))
}

/// As [`disinherit`], of what must not be opened; a symbolic link inherits nothing.
pub(super) fn disinherit_node(parent: BorrowedFd<'_>, name: &[u8]) -> Result<(), Errno> {
    let parent = format!("/proc/self/fd/{}", parent.as_raw_fd());
    absent(lremovexattr(Path::new(&parent).join(OsStr::from_bytes(name)), ACCESS_ACL))
}

fn absent(removed: Result<(), Errno>) -> Result<(), Errno> {
    match removed {
        Err(Errno::NODATA | Errno::OPNOTSUPP) => Ok(()),
        removed => removed,
    }
}

/// Both times of a file, which are one in an archive.
pub(super) fn times(seconds: i64, nanoseconds: u32) -> Timestamps {
    let time = Timespec { tv_sec: seconds, tv_nsec: nanoseconds.into() };
    Timestamps { last_access: time, last_modification: time }
}

/// Gives an entry the owner and time of the one it replaces, without following it.
pub(super) fn copy_owner(parent: &OwnedFd, name: &[u8], stat: &Stat) -> Result<(), Errno> {
    let (uid, gid) = (Uid::from_raw(stat.st_uid), Gid::from_raw(stat.st_gid));
    chownat(parent, name, Some(uid), Some(gid), AtFlags::SYMLINK_NOFOLLOW)?;
    utimensat(parent, name, &times(stat.st_mtime, stat.st_mtime_nsec as u32), AtFlags::SYMLINK_NOFOLLOW)
}

/// Gives a directory what the one below it has; whether what is made in it inherits from it.
pub(super) fn copy_attributes(from: &OwnedFd, to: &OwnedFd, stat: &Stat) -> Result<bool, Errno> {
    fchown(to, Some(Uid::from_raw(stat.st_uid)), Some(Gid::from_raw(stat.st_gid)))?;
    fchmod(to, Mode::from_raw_mode(stat.st_mode & 0o7777))?;
    let mut bequeaths = false;
    for (name, value) in read_xattrs(from)? {
        if matches!(policy(&name), Policy::Keep) {
            fsetxattr(to, name.as_slice(), &value, XattrFlags::empty())?;
            bequeaths |= name == DEFAULT_ACL.as_bytes();
        }
    }
    Ok(bequeaths)
}

/// Every extended attribute of an open file.
pub(crate) fn read_xattrs(file: &OwnedFd) -> Result<Xattrs, Errno> {
    // The kernel's own bounds: 64 KiB for the list of names and for each value.
    let mut names = vec![0; 64 << 10];
    let length = match flistxattr(file, names.as_mut_slice()) {
        Err(Errno::OPNOTSUPP) => 0,
        length => length?,
    };
    if length == 0 {
        return Ok(Vec::new());
    }
    let mut value = vec![0; 64 << 10];
    let mut attributes = Vec::new();
    for name in names[..length].split(|b| *b == 0).filter(|name| !name.is_empty()) {
        match fgetxattr(file, name, value.as_mut_slice()) {
            Ok(size) => attributes.push((name.to_vec(), value[..size].to_vec())),
            Err(Errno::NODATA) => {}
            Err(error) => return Err(error),
        }
    }
    attributes.sort();
    Ok(attributes)
}

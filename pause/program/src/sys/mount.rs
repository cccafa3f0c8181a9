//! Mounts by descriptor.

use core::ffi::CStr;

use super::{AT_FDCWD, O_CLOEXEC, Result, call, close, nr};

const NR_OPEN_TREE: usize = 428;
const NR_MOVE_MOUNT: usize = 429;
const NR_FSOPEN: usize = 430;
const NR_FSCONFIG: usize = 431;
const NR_FSMOUNT: usize = 432;
const NR_MOUNT_SETATTR: usize = 442;

const EMPTY: &CStr = c"";
const ROOT: &CStr = c"/";
const HERE: &CStr = c".";
const AT_RECURSIVE: usize = 0x8000;

/// Attributes of a mount.
pub(crate) const READ_ONLY: usize = 0x1;
pub(crate) const NOSUID: usize = 0x2;
pub(crate) const NODEV: usize = 0x4;
pub(crate) const NOEXEC: usize = 0x8;

/// A detached mount of a new file system without parameters.
pub(crate) fn new_mount(kind: &CStr, attributes: usize) -> Result<i32> {
    const FSOPEN_CLOEXEC: usize = 1;
    const FSCONFIG_CMD_CREATE: usize = 6;
    const FSMOUNT_CLOEXEC: usize = 1;
    // SAFETY: the name is terminated by zero.
    let context = unsafe { call(NR_FSOPEN, [kind.as_ptr() as usize, FSOPEN_CLOEXEC]) }?;
    // SAFETY: this command takes neither key nor value.
    let mount = unsafe { call(NR_FSCONFIG, [context, FSCONFIG_CMD_CREATE, 0, 0, 0]) }.and_then(|_| {
        // SAFETY: takes no pointer.
        unsafe { call(NR_FSMOUNT, [context, FSMOUNT_CLOEXEC, attributes]) }
    });
    close(context as i32);
    mount.map(|fd| fd as i32)
}

/// Attaches a detached mount on top of whatever is mounted on the root directory. The root directory of
/// this process stays what it was, beneath.
pub(crate) fn mount_over_root(mount: i32) -> Result {
    const MOVE_MOUNT_F_EMPTY_PATH: usize = 4;
    let args =
        [mount as usize, EMPTY.as_ptr() as usize, AT_FDCWD, ROOT.as_ptr() as usize, MOVE_MOUNT_F_EMPTY_PATH];
    // SAFETY: both paths are terminated by zero.
    unsafe { call(NR_MOVE_MOUNT, args) }
}

/// Keeps mounts made here from spreading to other namespaces, and theirs from coming here.
pub(crate) fn make_all_private() -> Result {
    const MS_PRIVATE: u64 = 1 << 18;
    // struct mount_attr: set, clear, propagation, user namespace.
    let attributes = [0, 0, MS_PRIVATE, 0];
    let args = [
        AT_FDCWD,
        ROOT.as_ptr() as usize,
        AT_RECURSIVE,
        attributes.as_ptr() as usize,
        size_of_val(&attributes),
    ];
    // SAFETY: the path is terminated by zero; the kernel reads one mount_attr of 32 bytes.
    unsafe { call(NR_MOUNT_SETATTR, args) }
}

/// Makes the mount behind the descriptor, which must be attached, the root directory, and detaches the one
/// before with all that is mounted in it.
pub(crate) fn enter_root(mount: i32) -> Result {
    const MNT_DETACH: usize = 2;
    // SAFETY: takes no pointer.
    unsafe { call(nr::FCHDIR, [mount as usize]) }?;
    // With both the same, the old root is stacked on the new one: no directory has to be made for it.
    // SAFETY: the paths are terminated by zero.
    unsafe { call(nr::PIVOT_ROOT, [HERE.as_ptr() as usize, HERE.as_ptr() as usize]) }?;
    // SAFETY: as above.
    unsafe { call(nr::UMOUNT2, [HERE.as_ptr() as usize, MNT_DETACH]) }?;
    // SAFETY: as above.
    unsafe { call(nr::CHDIR, [ROOT.as_ptr() as usize]) }
}

/// A detached copy of the mount that is the root directory.
pub(crate) fn clone_root() -> Result<i32> {
    const OPEN_TREE_CLONE: usize = 1;
    let args = [AT_FDCWD, ROOT.as_ptr() as usize, OPEN_TREE_CLONE | O_CLOEXEC];
    // SAFETY: the path is terminated by zero.
    unsafe { call(NR_OPEN_TREE, args) }.map(|fd| fd as i32)
}

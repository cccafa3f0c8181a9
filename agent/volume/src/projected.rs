//! Volumes made of configuration: configMap, secret, downwardAPI and projected.
//!
//! All of them lie in memory, because Secrets must not reach a disk, and containers only read them.

use std::os::fd::OwnedFd;
use std::path::Path;

use rustix::fs::{CWD, Mode, OFlags, openat};
use rustix::io::Errno;

use crate::VolumeError;
use crate::atomic_writer::{AtomicWriter, is_written};
use crate::directory::{self, mode_for};
use crate::memory::{Memory, is_mount_root, mount_memory};
use crate::payload::Payload;

/// The directory's name, which tools know from the kubelet.
pub(crate) const PLUGIN: &str = "kubernetes.io~projected";

/// The limits until something is written: the writer sets its own. Zero would be none.
const BYTES: u64 = 1 << 20;
const INODES: u64 = 1 << 10;

/// Makes the volume hold these files.
pub(crate) fn ensure(path: &Path, payload: &Payload, group: Option<u32>) -> Result<(), VolumeError> {
    let directory = directory::make_all(path, directory::DEPTH)?;
    if !is_mount_root(&directory, path)? {
        let memory = Memory { size: Some(BYTES), inodes: Some(INODES), mode: mode_for(group), group };
        mount_memory(&directory, memory).map_err(VolumeError::io("mount memory on", path))?;
    }
    drop(directory);
    let volume = reach(path)?;
    AtomicWriter { volume: &volume, path, group }.write(payload)?;
    Ok(())
}

/// Makes a volume that was made hold these files. Whether it held others.
pub(crate) fn update(path: &Path, payload: &Payload, group: Option<u32>) -> Result<bool, VolumeError> {
    let volume = open(path)?;
    AtomicWriter { volume: &volume, path, group }.write(payload)
}

/// Opens a volume that was made.
pub(crate) fn open(path: &Path) -> Result<OwnedFd, VolumeError> {
    let not_ready = |problem| VolumeError::NotReady { path: path.to_owned(), problem };
    let volume = match reach(path) {
        Err(VolumeError::Io { source, .. }) if source.kind() == std::io::ErrorKind::NotFound => {
            return Err(not_ready("it was not made"));
        }
        reached => reached?,
    };
    if !is_mount_root(&volume, path)? {
        return Err(not_ready("its memory is not mounted"));
    }
    if !is_written(&volume) {
        return Err(not_ready("nothing was written into it"));
    }
    Ok(volume)
}

fn reach(path: &Path) -> Result<OwnedFd, VolumeError> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    openat(CWD, path, flags, Mode::empty()).map_err(VolumeError::io::<Errno>("open", path))
}

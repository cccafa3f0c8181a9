//! hostPath: a path of the host, checked on the descriptor that is then mounted.

use std::fs::{self, DirBuilder, OpenOptions};
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt, PermissionsExt};
use std::path::Path;

use coracle_linux::open_to_mount;
use coracle_model::{HostPathType, Name};
use rustix::fs::{FileType, ResolveFlags, fstat};
use rustix::io::Errno;

use crate::VolumeError;

/// Opens the path, makes it where its type says so, and checks what it is.
pub(crate) fn open(volume: &Name, path: &Path, kind: HostPathType) -> Result<OwnedFd, VolumeError> {
    let not =
        |expected| VolumeError::HostPathType { volume: volume.to_string(), path: path.to_owned(), expected };
    let look = || open_to_mount(path, ResolveFlags::empty());
    let opened = match look() {
        Err(Errno::NOENT) => match kind {
            // Without a type the kubelet checks nothing, and the runtime makes a missing directory.
            HostPathType::DirectoryOrCreate | HostPathType::Unset => {
                make_directory(path).map_err(VolumeError::io("create", path))?;
                look()
            }
            HostPathType::FileOrCreate => {
                make_file(path).map_err(VolumeError::io("create", path))?;
                look()
            }
            _ => return Err(not(expected(kind))),
        },
        opened => opened,
    };
    let file = opened.map_err(VolumeError::io("open", path))?;
    let stat = fstat(&file).map_err(VolumeError::io("look at", path))?;
    let found = FileType::from_raw_mode(stat.st_mode);
    let fits = match kind {
        HostPathType::Unset => true,
        HostPathType::DirectoryOrCreate | HostPathType::Directory => found == FileType::Directory,
        HostPathType::FileOrCreate | HostPathType::File => found == FileType::RegularFile,
        HostPathType::Socket => found == FileType::Socket,
        HostPathType::CharDevice => found == FileType::CharacterDevice,
        HostPathType::BlockDevice => found == FileType::BlockDevice,
    };
    if fits { Ok(file) } else { Err(not(expected(kind))) }
}

/// The kubelet's word for what a type asks for.
fn expected(kind: HostPathType) -> &'static str {
    match kind {
        HostPathType::Unset | HostPathType::DirectoryOrCreate | HostPathType::Directory => "directory",
        HostPathType::FileOrCreate | HostPathType::File => "file",
        HostPathType::Socket => "socket file",
        HostPathType::CharDevice => "character device",
        HostPathType::BlockDevice => "block device",
    }
}

fn make_directory(path: &Path) -> io::Result<()> {
    let existed = path.exists();
    DirBuilder::new().recursive(true).mode(0o755).create(path)?;
    // The mode is the documented one whatever the agent's umask is.
    if existed { Ok(()) } else { fs::set_permissions(path, fs::Permissions::from_mode(0o755)) }
}

fn make_file(path: &Path) -> io::Result<()> {
    match OpenOptions::new().write(true).create_new(true).mode(0o644).open(path) {
        Ok(file) => file.set_permissions(fs::Permissions::from_mode(0o644)),
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(()),
        Err(error) => Err(error),
    }
}

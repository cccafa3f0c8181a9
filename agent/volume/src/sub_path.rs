//! subPath: a path inside a volume, which containers may be changing at this moment.
//!
//! Every step is one `openat2(2)` beneath the volume's root, so a link or a rename can make it fail but
//! not lead out (CVE-2017-1002101, CVE-2021-25741). What is mounted is the descriptor so found, never a
//! path that is looked up again.

use std::os::fd::OwnedFd;
use std::path::{Component, Path, PathBuf};

use coracle_linux::open_beneath;
use coracle_model::Name;
use rustix::fs::{Mode, OFlags, ResolveFlags, fchmod, fstat, mkdirat, openat};
use rustix::io::Errno;

use crate::VolumeError;

/// Opens the path, as a descriptor to mount; a missing one becomes a directory with the mode of the
/// volume, as in the kubelet.
///
/// An absolute link leads where it would on the host: out of the volume, unless that is the path `host` of the host and
/// the link leads beneath it.
pub(crate) fn open(
    volume: &OwnedFd,
    host: Option<&Path>,
    name: &Name,
    sub_path: &Path,
) -> Result<OwnedFd, VolumeError> {
    let failed = |step, error: Errno| match error {
        Errno::XDEV => {
            VolumeError::SubPathEscapes { volume: name.to_string(), sub_path: sub_path.to_owned() }
        }
        error => VolumeError::SubPath {
            volume: name.to_string(),
            sub_path: sub_path.to_owned(),
            step,
            source: error.into(),
        },
    };
    if !sub_path.components().all(|component| matches!(component, Component::Normal(_) | Component::CurDir)) {
        return Err(failed("open", Errno::XDEV));
    }
    match beneath(volume, sub_path, OFlags::PATH) {
        Err(Errno::NOENT) => {}
        Err(Errno::XDEV) if let Some(path) = host.and_then(|host| resolved(host, sub_path)) => {
            let flags = ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS;
            return open_beneath(volume, &path, OFlags::PATH, flags).map_err(|error| failed("open", error));
        }
        opened => return opened.map_err(|error| failed("open", error)),
    }
    // With the bit by which files take on the volume's group (fsGroup).
    let mode = fstat(volume).map_err(|error| failed("look at the volume of", error))?.st_mode & 0o2777;
    let directory = OFlags::PATH | OFlags::DIRECTORY;
    let mut parent = beneath(volume, Path::new("."), directory).map_err(|error| failed("open", error))?;
    let mut prefix = PathBuf::new();
    for component in sub_path.components() {
        let Component::Normal(component) = component else { continue };
        prefix.push(component);
        parent = match beneath(volume, &prefix, directory) {
            Err(Errno::NOENT) => {
                match mkdirat(&parent, component, Mode::from_raw_mode(mode)) {
                    Ok(()) => set_mode(&parent, component.as_ref(), mode),
                    // Another container of the pod made it meanwhile, or it is a dangling link.
                    Err(Errno::EXIST) => Ok(()),
                    Err(error) => Err(error),
                }
                .map_err(|error| failed("create", error))?;
                beneath(volume, &prefix, directory)
            }
            opened => opened,
        }
        .map_err(|error| failed("open", error))?;
    }
    Ok(parent)
}

/// Where the path leads at this moment, from the volume's root and without links, if it stays beneath it.
fn resolved(host: &Path, sub_path: &Path) -> Option<PathBuf> {
    let (root, path) = (host.canonicalize().ok()?, host.join(sub_path).canonicalize().ok()?);
    let beneath = path.strip_prefix(root).ok()?;
    Some(Path::new(".").join(beneath))
}

/// The mode without the umask, on what was just made unless somebody replaced it.
fn set_mode(parent: &OwnedFd, name: &Path, mode: u32) -> Result<(), Errno> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    match openat(parent, name, flags, Mode::empty()) {
        Ok(directory) => fchmod(&directory, Mode::from_raw_mode(mode)),
        Err(Errno::NOENT | Errno::LOOP | Errno::NOTDIR) => Ok(()),
        Err(error) => Err(error),
    }
}

pub(crate) fn beneath(volume: &OwnedFd, path: &Path, flags: OFlags) -> Result<OwnedFd, Errno> {
    open_beneath(volume, path, flags, ResolveFlags::BENEATH | ResolveFlags::NO_MAGICLINKS)
}

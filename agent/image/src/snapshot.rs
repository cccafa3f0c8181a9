//! A container's root file system: an image's layers below a writable one, by overlayfs.
//!
//! The mount is detached: it is held by a descriptor, appears in no mount table, and goes with the last
//! descriptor or mount namespace that has it.

use std::ffi::CString;
use std::fmt::Write as _;
use std::fs::{self, DirBuilder, Permissions};
use std::io;
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::fs::{DirBuilderExt, PermissionsExt};
use std::path::{Path, PathBuf};

use coracle_linux::remove_tree;
use coracle_model::ContainerId;
use rustix::fs::{CWD, Mode, OFlags, fstatfs, openat};
use rustix::io::Errno;
use rustix::mount::{
    FsMountFlags, FsOpenFlags, MountAttrFlags, MountFlags, MountPropagationFlags, OpenTreeFlags,
    fsconfig_create, fsconfig_set_fd, fsconfig_set_flag, fsconfig_set_string, fsmount, fsopen, mount,
    mount_change, open_tree,
};
use std::os::fd::AsFd;

use crate::store::{OVERLAYFS_MAGIC, make_directory, open_directory};
use crate::{Image, ImageError, Store};

/// Features of overlayfs that give `trusted.overlay.*` attributes power over where content comes from.
/// Layers cannot bring such attributes; with these off, not even a stray one has an effect.
const FEATURES_OFF: [(&str, &str); 3] = [("redirect_dir", "nofollow"), ("metacopy", "off"), ("index", "off")];

/// What a container may do to its root file system.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Access {
    /// Changes go to the container's own layer.
    Writable,
    /// Nothing can be written, by nobody: there is no layer to write to.
    ReadOnly,
}

impl Store {
    /// Makes the root file system of a container and takes its lease on the image. `directory` is the
    /// container's own, and is there before the lease is; the writable layer is kept in it, as `upper` and
    /// `work`.
    ///
    /// Idempotent as long as no process has the mount: what was written before is still there.
    ///
    /// # Errors
    ///
    /// [`ImageError::UpperOnOverlay`], [`ImageError::Overlay`] with what the kernel says,
    /// [`ImageError::NotFound`] when the image is gone.
    pub fn snapshot(
        &self,
        image: &Image,
        container: ContainerId,
        directory: &Path,
        access: Access,
    ) -> Result<OwnedFd, ImageError> {
        // Before the lease: whoever is to clean up after a caller that was killed here finds leases by the
        // directories there are.
        make_directory(directory, 0o700)?;
        self.lease(&image.id, container)?;
        let upper = match access {
            Access::Writable => Some(self.writable_layer(image, directory)?),
            Access::ReadOnly => None,
        };
        self.stack(image, upper.as_ref(), directory)
    }

    /// An image's files, read-only and without devices, for a volume. The mount is attached nowhere. The image is to be
    /// leased ([`Store::lease_volume`]) for as long as it is used.
    ///
    /// # Errors
    ///
    /// [`ImageError::Overlay`] with what the kernel says.
    pub fn mount_image(&self, image: &Image) -> Result<OwnedFd, ImageError> {
        self.stack(image, None, &self.image_path(&image.id))
    }

    /// The layers of an image, below a writable one if there is one. `path` is what messages name.
    fn stack(
        &self,
        image: &Image,
        upper: Option<&(PathBuf, PathBuf)>,
        path: &Path,
    ) -> Result<OwnedFd, ImageError> {
        let mut lowers = image.lower_dirs().to_vec();
        // overlayfs wants one lower directory, and two where there is no upper one.
        let fewest = if upper.is_some() { 1 } else { 2 };
        while lowers.len() < fewest {
            lowers.push(self.empty_directory());
        }
        let failed = |(step, source, log)| ImageError::Overlay { step, path: path.to_owned(), source, log };
        match overlay(&lowers, upper) {
            Err(("add a layer to", error, _)) if takes_no_descriptor(&error) => {
                overlay_by_options(&lowers, upper).map_err(failed)
            }
            mounted => mounted.map_err(failed),
        }
    }

    /// Removes a container's writable layer and its lease. The container must have ended; absent is done.
    ///
    /// # Errors
    ///
    /// [`ImageError::Store`]; then nothing is forgotten and it can be tried again.
    pub fn remove_snapshot(&self, container: ContainerId, directory: &Path) -> Result<(), ImageError> {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        match openat(CWD, directory, flags, Mode::empty()) {
            Ok(parent) => {
                for name in ["upper", "work"] {
                    remove_tree(parent.as_fd(), name.as_ref())
                        .map_err(ImageError::store("remove", directory.join(name)))?;
                }
            }
            Err(Errno::NOENT) => {}
            Err(error) => return Err(ImageError::store("open", directory)(error.into())),
        }
        self.release(container)
    }

    fn writable_layer(&self, image: &Image, directory: &Path) -> Result<(PathBuf, PathBuf), ImageError> {
        let held = open_directory(directory)?;
        let stat = fstatfs(&held).map_err(|error| ImageError::store("look at", directory)(error.into()))?;
        if stat.f_type as u64 == OVERLAYFS_MAGIC {
            return Err(ImageError::UpperOnOverlay { path: directory.to_owned() });
        }
        let (upper, work) = (directory.join("upper"), directory.join("work"));
        match DirBuilder::new().mode(0o755).create(&upper) {
            Ok(()) => {
                // The upper directory's mode is that of the container's `/`.
                let mode = match image.lower_dirs().first() {
                    Some(top) => fs::metadata(top).map_err(ImageError::store("look at", top))?.permissions(),
                    None => Permissions::from_mode(0o755),
                };
                fs::set_permissions(&upper, mode).map_err(ImageError::store("set the mode of", &upper))?;
            }
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
            Err(error) => return Err(ImageError::store("create", &upper)(error)),
        }
        make_directory(&work, 0o700)?;
        Ok((upper, work))
    }
}

/// A failed step: what, why, and what the kernel said.
type Failure = (&'static str, io::Error, String);

/// Whether the kernel is one that a layer cannot be given to by descriptor: from 6.5 to 6.12 overlayfs did not know the
/// option, and before it took no descriptors at all (`legacy_fs_context`).
fn takes_no_descriptor(error: &io::Error) -> bool {
    let older = [Errno::INVAL, Errno::OPNOTSUPP].map(Errno::raw_os_error);
    error.raw_os_error().is_some_and(|error| older.contains(&error))
}

/// The overlay through the mount API, layers by descriptor (since Linux 6.13).
fn overlay(lowers: &[PathBuf], upper: Option<&(PathBuf, PathBuf)>) -> Result<OwnedFd, Failure> {
    let context = fsopen("overlay", FsOpenFlags::FSOPEN_CLOEXEC)
        .map_err(|error| ("open", error.into(), String::new()))?;
    let failed = |step| {
        let context = &context;
        move |error: Errno| (step, error.into(), kernel_log(context))
    };
    for lower in lowers {
        let lower = open_layer(lower)?;
        fsconfig_set_fd(&context, "lowerdir+", &lower).map_err(failed("add a layer to"))?;
    }
    if let Some((upper, work)) = upper {
        for (key, path) in [("upperdir", upper), ("workdir", work)] {
            let directory =
                open_directory(path).map_err(|error| ("open", io::Error::other(error), String::new()))?;
            fsconfig_set_fd(&context, key, &directory).map_err(failed("set the writable layer of"))?;
        }
        // Nothing of the writable layer is to survive a power failure, so nobody waits for its disk.
        fsconfig_set_flag(&context, "volatile").map_err(failed("configure"))?;
    }
    // What `df` and the table of mounts call it, in the container too.
    for (key, value) in [("source", "overlay")].into_iter().chain(FEATURES_OFF) {
        fsconfig_set_string(&context, key, value).map_err(failed("configure"))?;
    }
    fsconfig_create(&context).map_err(failed("create"))?;
    fsmount(&context, FsMountFlags::FSMOUNT_CLOEXEC, MountAttrFlags::empty()).map_err(failed("mount"))
}

/// What the kernel logged into a mount context: its text says more than the error's number.
fn kernel_log(context: &OwnedFd) -> String {
    let mut log = String::new();
    let mut buffer = [0; 1024];
    // Every read takes one message; the last one fails.
    while let Ok(length @ 1..) = rustix::io::read(context, &mut buffer) {
        // Each begins with its level: "e ", "w " or "i ".
        let text = String::from_utf8_lossy(&buffer[..length]);
        let text = text.get(2..).unwrap_or("").trim();
        let _ = write!(log, "; {text}");
    }
    log
}

/// The overlay through `mount(2)`, for kernels whose mount API cannot name enough layers.
///
/// That call only mounts somewhere: so it is done in a mount namespace that one thread has for the
/// purpose, and the mount is then taken out of it.
fn overlay_by_options(lowers: &[PathBuf], upper: Option<&(PathBuf, PathBuf)>) -> Result<OwnedFd, Failure> {
    let step = |step| move |error: Errno| (step, io::Error::from(error), String::new());
    std::thread::scope(|scope| {
        let mounter = scope.spawn(|| {
            coracle_linux::unshare_mount_namespace().map_err(step("leave the mount namespace for"))?;
            let flags = MountPropagationFlags::REC | MountPropagationFlags::PRIVATE;
            mount_change("/", flags).map_err(step("make private the mounts for"))?;
            // Layers are opened here, because overlayfs takes none of another mount namespace. Their
            // descriptors are held until they are mounted.
            let (options, _held) = overlay_options(lowers, upper)?;
            // Any directory serves: nobody else is in this namespace.
            mount("overlay", "/proc", "overlay", MountFlags::empty(), options.as_c_str())
                .map_err(step("mount"))?;
            open_tree(CWD, "/proc", OpenTreeFlags::OPEN_TREE_CLONE | OpenTreeFlags::OPEN_TREE_CLOEXEC)
                .map_err(step("detach"))
        });
        mounter.join().unwrap_or_else(|_| {
            Err(("mount", io::Error::other("the mounting thread panicked"), String::new()))
        })
    })
}

/// The option string, which names every directory by descriptor: that is short, as the kernel takes one
/// page, and needs no escapes.
fn overlay_options(
    lowers: &[PathBuf],
    upper: Option<&(PathBuf, PathBuf)>,
) -> Result<(CString, Vec<OwnedFd>), Failure> {
    let mut held = Vec::new();
    let mut name = |path: &Path| -> Result<String, Failure> {
        let directory = open_layer(path)?;
        let name = format!("/proc/self/fd/{}", directory.as_raw_fd());
        held.push(directory);
        Ok(name)
    };
    let names = lowers.iter().map(|path| name(path)).collect::<Result<Vec<_>, _>>()?;
    let mut options = format!("lowerdir={}", names.join(":"));
    if let Some((upper, work)) = upper {
        let _ = write!(options, ",upperdir={},workdir={},volatile", name(upper)?, name(work)?);
    }
    for (key, value) in FEATURES_OFF {
        let _ = write!(options, ",{key}={value}");
    }
    if options.len() >= 4096 {
        let problem = format!("this kernel cannot stack {} layers: Linux 6.13 is needed", lowers.len());
        return Err(("name the layers of", io::Error::other(problem), String::new()));
    }
    let options = CString::new(options).map_err(|error| ("name", io::Error::other(error), String::new()))?;
    Ok((options, held))
}

fn open_layer(path: &Path) -> Result<OwnedFd, Failure> {
    open_directory(path).map_err(|error| ("open a layer of", io::Error::other(error), String::new()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_kernel_that_takes_no_layer_by_descriptor_is_told_from_one_that_fails() {
        for (error, takes_none) in [(Errno::INVAL, true), (Errno::OPNOTSUPP, true), (Errno::NOENT, false)] {
            assert_eq!(takes_no_descriptor(&error.into()), takes_none, "{error}");
        }
    }

    /// The way of kernels before 6.13 gives the same file system on any kernel. Mounting needs root.
    #[test]
    fn both_ways_of_mounting_agree() {
        if !rustix::process::geteuid().is_root() {
            println!("skipped: mounting needs root");
            return;
        }
        let dir = tempfile::tempdir().unwrap();
        let mut lowers = Vec::new();
        for n in 0..60 {
            let lower = dir.path().join(format!("lower,{n}:"));
            fs::create_dir(&lower).unwrap();
            fs::write(lower.join("top"), n.to_string()).unwrap();
            fs::write(lower.join(n.to_string()), "").unwrap();
            lowers.insert(0, lower);
        }
        type Mounter = fn(&[PathBuf], Option<&(PathBuf, PathBuf)>) -> Result<OwnedFd, Failure>;
        for (name, mounter) in [("options", overlay_by_options as Mounter), ("descriptors", overlay)] {
            let upper = (dir.path().join(format!("{name}-upper")), dir.path().join(format!("{name}-work")));
            fs::create_dir(&upper.0).unwrap();
            fs::create_dir(&upper.1).unwrap();
            let start = std::time::Instant::now();
            let mounted = mounter(&lowers, Some(&upper)).unwrap();
            println!("{name}: {:?}", start.elapsed());
            let root = PathBuf::from(format!("/proc/self/fd/{}", mounted.as_raw_fd()));
            assert_eq!(fs::read_to_string(root.join("top")).unwrap(), "59", "{name}");
            assert_eq!(fs::read_dir(&root).unwrap().count(), 61, "{name}");
            fs::write(root.join("top"), "own").unwrap();
            assert_eq!(fs::read_to_string(upper.0.join("top")).unwrap(), "own", "{name}");
        }
        let table = fs::read_to_string("/proc/self/mountinfo").unwrap();
        assert!(!table.contains(dir.path().to_str().unwrap()), "a mount became visible");
    }
}

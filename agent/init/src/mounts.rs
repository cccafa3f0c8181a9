//! The container's mounts: all are made detached, then attached one after the other.

use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};

use coracle_init::protocol::PidNamespace;
use coracle_linux::{MountAttributes, mount_setattr};
use rustix::fs::{CWD, FileType, OFlags, PROC_SUPER_MAGIC, fstat, fstatfs};
use rustix::io::Errno;
use rustix::mount::{
    FsMountFlags, FsOpenFlags, MountAttrFlags, MoveMountFlags, OpenTreeFlags, fsconfig_create,
    fsconfig_set_flag, fsconfig_set_string, fsmount, fsopen, move_mount, open_tree,
};

use crate::descriptors::Descriptors;
use crate::devices::{self, Nodes};
use crate::failure::{Context, Result, Step, describe};
use crate::options::MountOptions;
use crate::plan::{DevicePlan, MountPlan, MountSource};
use crate::root::{Kind, Links, Root};

/// A mount that is ready to be attached.
#[derive(Debug)]
pub(crate) struct Prepared {
    destination: PathBuf,
    mount: OwnedFd,
    kind: Kind,
    links: Links,
    /// Made read-only when all mounts are attached: others may need a mount point in it.
    readonly_later: bool,
    /// What is in it, if it is /dev.
    nodes: Nodes,
}

/// Makes the mounts, attached to nothing yet. Still sees the host's files.
pub(crate) fn prepare(
    plans: &[MountPlan],
    device_plans: &[DevicePlan],
    pid_namespace: Option<&PidNamespace>,
    descriptors: &mut Descriptors,
) -> Result<Vec<Prepared>> {
    plans
        .iter()
        .map(|plan| {
            let mut prepared = match &plan.source {
                MountSource::Detached(passed) => bind(plan, descriptors.take(*passed)?)?,
                MountSource::Filesystem(kind, source) => {
                    let shared_proc = pid_namespace.filter(|_| kind == "proc");
                    filesystem(plan, kind, source.as_deref(), shared_proc, descriptors)?
                }
            };
            if plan.is_dev() {
                prepared.nodes = devices::populate(&prepared.mount, device_plans)?;
            }
            Ok(prepared)
        })
        .collect()
}

fn bind(plan: &MountPlan, mount: OwnedFd) -> Result<Prepared> {
    let path = &plan.destination;
    let stat = fstat(&mount).on(Step::Mount, path, "looking at the volume")?;
    let kind = match FileType::from_raw_mode(stat.st_mode) {
        FileType::Directory => Kind::Directory,
        _ => Kind::File,
    };
    change(&mount, &plan.options, path)?;
    let destination = path.clone();
    Ok(Prepared {
        destination,
        mount,
        kind,
        links: Links::Follow,
        readonly_later: false,
        nodes: Nodes::default(),
    })
}

fn filesystem(
    plan: &MountPlan,
    kind: &str,
    source: Option<&Path>,
    shared_proc: Option<&PidNamespace>,
    descriptors: &mut Descriptors,
) -> Result<Prepared> {
    let path = &plan.destination;
    let mut attributes = plan.options.initial();
    let readonly_later = kind == "tmpfs" && attributes.contains(MountAttrFlags::MOUNT_ATTR_RDONLY);
    if readonly_later {
        attributes.remove(MountAttrFlags::MOUNT_ATTR_RDONLY);
    }
    let mount = match shared_proc {
        Some(namespace) => {
            let shared = descriptors.take(namespace.proc)?;
            let mount = copy_detached(shared).on(Step::Mount, path, "copying the shared procfs")?;
            change(&mount, &plan.options, path)?;
            mount
        }
        None => {
            let mount = make(kind, source, &plan.options.data, attributes, path)?;
            if let Some((propagation, recursive)) = plan.options.propagation {
                let change =
                    MountAttributes { propagation: Some(propagation), recursive, ..Default::default() };
                mount_setattr(&mount, change).on(Step::Mount, path, "setting its propagation")?;
            }
            mount
        }
    };
    if kind == "proc" {
        let found = fstatfs(&mount).on(Step::Mount, path, "looking at its file system")?.f_type;
        if found != PROC_SUPER_MAGIC {
            return Err(Step::Mount.refuse(Some(path), "what was passed as procfs is none"));
        }
    }
    Ok(Prepared {
        destination: path.clone(),
        mount,
        kind: Kind::Directory,
        // The kernel's own file systems belong exactly where they are asked for: masks, limits on /proc
        // and device nodes would else end up where a link of the image points (CVE-2019-19921).
        links: Links::Refuse,
        readonly_later,
        nodes: Nodes::default(),
    })
}

fn change(mount: &OwnedFd, options: &MountOptions, path: &Path) -> Result<()> {
    for change in options.changes() {
        mount_setattr(mount, change).on(Step::Mount, path, "setting its options")?;
    }
    Ok(())
}

/// A new instance of a file system, attached to nothing.
pub(crate) fn make(
    kind: &str,
    source: Option<&Path>,
    data: &[(String, Option<String>)],
    attributes: MountAttrFlags,
    path: &Path,
) -> Result<OwnedFd> {
    let context = fsopen(kind, FsOpenFlags::FSOPEN_CLOEXEC).on(
        Step::Mount,
        path,
        &format!("opening file system type {kind}"),
    )?;
    let explain = |errno, what: &str| explain(&context, errno, what, kind, path);
    if let Some(source) = source {
        fsconfig_set_string(&context, "source", source).map_err(|errno| explain(errno, "option source"))?;
    }
    for (key, value) in data {
        let result = match value {
            Some(value) => fsconfig_set_string(&context, key.as_str(), value.as_str()),
            None => fsconfig_set_flag(&context, key.as_str()),
        };
        result.map_err(|errno| explain(errno, &format!("option {key}")))?;
    }
    fsconfig_create(&context).map_err(|errno| explain(errno, "creating it"))?;
    fsmount(&context, FsMountFlags::FSMOUNT_CLOEXEC, attributes)
        .map_err(|errno| explain(errno, "mounting it"))
}

/// A failure with what the kernel has to say about it: `fsopen(2)`'s log, one message a read.
fn explain(
    context: &OwnedFd,
    errno: Errno,
    what: &str,
    kind: &str,
    path: &Path,
) -> coracle_init::protocol::Failure {
    let mut line = [0; 256];
    let length = rustix::io::read(context, &mut line).unwrap_or(0);
    let said = String::from_utf8_lossy(line.get(..length).unwrap_or_default());
    // A letter for the severity and a space stand before it.
    let said = match said.get(2..) {
        Some(said) if !said.trim().is_empty() => format!(" ({})", said.trim()),
        _ => String::new(),
    };
    let failed: std::result::Result<(), Errno> = Err(errno);
    match failed.on(Step::Mount, path, &format!("file system {kind}, {what}{said}")) {
        Err(failure) => failure,
        Ok(()) => Step::Mount.refuse(Some(path), describe(errno)),
    }
}

/// Attaches the mounts beneath the root, in their order, making missing mount points.
pub(crate) fn attach(root: &Root, mounts: &[Prepared]) -> Result<()> {
    for prepared in mounts {
        let path = &prepared.destination;
        let target = match root.ensure(path, prepared.kind, prepared.links) {
            Err(Errno::LOOP) => {
                let why = match prepared.links {
                    Links::Refuse => "a symbolic link stands in its place in the image",
                    Links::Follow => "its mount point leads through a symbolic link that is not followed",
                };
                return Err(Step::Mount.refuse(Some(path), why));
            }
            result => result.on(Step::Mount, path, "preparing the mount point")?,
        };
        let stat = fstat(&target).on(Step::Mount, path, "looking at the mount point")?;
        if root.is(&stat) {
            return Err(Step::Mount.refuse(Some(path), "the root itself cannot be mounted over"));
        }
        match (prepared.kind, FileType::from_raw_mode(stat.st_mode)) {
            (Kind::Directory, FileType::Directory) => {}
            (Kind::Directory, _) => {
                Err(Errno::NOTDIR).on(Step::Mount, path, "a directory cannot be mounted on a file")?;
            }
            (Kind::File, FileType::Directory) => {
                Err(Errno::ISDIR).on(Step::Mount, path, "a file cannot be mounted on a directory")?;
            }
            (Kind::File, _) => {}
        }
        attach_at(&prepared.mount, &target).on(Step::Mount, path, "attaching")?;
        for substitute in &prepared.nodes.substitutes {
            substitute.attach(root, path)?;
        }
    }
    // When all else is in its place, so that one in a volume is not hidden by it.
    for prepared in mounts {
        devices::attach_elsewhere(root, &prepared.mount, &prepared.nodes.elsewhere)?;
    }
    Ok(())
}

/// The null device of the container's own /dev, if it has one.
pub(crate) fn own_null(mounts: &[Prepared]) -> Option<&OwnedFd> {
    mounts.iter().find_map(|prepared| prepared.nodes.null.as_ref())
}

/// Makes read-only what others needed to be mounted in.
pub(crate) fn finish(mounts: Vec<Prepared>) -> Result<()> {
    for prepared in mounts.iter().filter(|prepared| prepared.readonly_later) {
        let path = &prepared.destination;
        set_readonly(&prepared.mount, false).on(Step::Mount, path, "making it read-only")?;
    }
    Ok(())
}

/// Puts a detached mount on a mount point, both by descriptor.
pub(crate) fn attach_at(mount: impl AsFd, target: impl AsFd) -> std::result::Result<(), Errno> {
    let flags = MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH | MoveMountFlags::MOVE_MOUNT_T_EMPTY_PATH;
    move_mount(mount, "", target, "", flags)
}

/// A detached copy of the mount at a descriptor, from there down.
pub(crate) fn copy(of: impl AsFd, recursive: bool) -> std::result::Result<OwnedFd, Errno> {
    let mut flags =
        OpenTreeFlags::OPEN_TREE_CLONE | OpenTreeFlags::OPEN_TREE_CLOEXEC | OpenTreeFlags::AT_EMPTY_PATH;
    if recursive {
        flags |= OpenTreeFlags::AT_RECURSIVE;
    }
    open_tree(of, "", flags)
}

/// A detached copy of a mount that is attached nowhere, so that others can have it too. Before Linux 6.15
/// there is no such thing: the first who needs it takes it, the next is refused with `EINVAL`.
fn copy_detached(mount: OwnedFd) -> std::result::Result<OwnedFd, Errno> {
    match copy(&mount, false) {
        Err(Errno::INVAL) => Ok(mount),
        result => result,
    }
}

/// A detached copy of a mount of the host.
pub(crate) fn copy_path(path: &Path, recursive: bool) -> std::result::Result<OwnedFd, Errno> {
    let source = rustix::fs::openat(CWD, path, OFlags::PATH | OFlags::CLOEXEC, rustix::fs::Mode::empty())?;
    copy(&source, recursive)
}

pub(crate) fn set_readonly(mount: impl AsFd, recursive: bool) -> std::result::Result<(), Errno> {
    let set = MountAttrFlags::MOUNT_ATTR_RDONLY;
    mount_setattr(mount, MountAttributes { set, recursive, ..Default::default() })
}

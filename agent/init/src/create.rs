//! Making a container.
//!
//! The root is entered before anything is mounted in it: from then on there is no host to be reached, by
//! whatever path. What is needed of the host is opened before, by descriptor.

use std::convert::Infallible;
use std::os::fd::OwnedFd;
use std::path::Path;

use coracle_init::protocol::CreateConfig;
use coracle_linux::{MountAttributes, mount_setattr, unshare_cgroup_namespace, unshare_mount_namespace};
use rustix::fs::{CWD, Mode, OFlags, openat};
use rustix::mount::{MountPropagationFlags, UnmountFlags, unmount};
use rustix::process::{chdir, fchdir, pivot_root, umask};
use rustix::system::uname;
use rustix::thread::{ThreadNameSpaceType, move_into_thread_name_spaces};

use crate::cgroup;
use crate::descriptors::Descriptors;
use crate::devices;
use crate::failure::{Context, Result, Step};
use crate::masks;
use crate::mounts;
use crate::plan::{ContainerPlan, Rootfs};
use crate::process::{self, Birth, Console, Ground};
use crate::procfs::PrivateProc;
use crate::root::Root;
use crate::seccomp;
use crate::spec::Spec;

pub(crate) fn create(
    control: &OwnedFd,
    config: CreateConfig<Spec>,
    mut descriptors: Descriptors,
) -> Result<Infallible> {
    let plan = ContainerPlan::new(config)?;
    cgroup::enter(&plan.cgroup_procs, &mut descriptors)?;
    if plan.new_cgroup_namespace {
        unshare_cgroup_namespace().at(Step::Namespace, "making a cgroup namespace")?;
    }
    unshare_mount_namespace().at(Step::Namespace, "making a mount namespace")?;
    check_hostname(&plan)?;
    let birth = match &plan.pid_namespace {
        None => Birth::Here,
        Some(namespace) => {
            let member = descriptors.take(namespace.member)?;
            move_into_thread_name_spaces(std::os::fd::AsFd::as_fd(&member), ThreadNameSpaceType::PROCESS_ID)
                .at(Step::Namespace, "choosing the pid namespace")?;
            Birth::sibling()?
        }
    };

    // Modes are given in full.
    umask(Mode::empty());
    let host_root = open_directory(Path::new("/")).at(Step::RootFilesystem, "opening the host's root")?;
    let private = MountAttributes {
        propagation: Some(MountPropagationFlags::PRIVATE),
        recursive: true,
        ..Default::default()
    };
    mount_setattr(&host_root, private).at(Step::RootFilesystem, "keeping mounts from the host")?;
    let filter = seccomp::read(plan.process.seccomp, &mut descriptors)?;
    let proc = private_proc(&plan)?;
    if let Some(proc) = &proc {
        for (name, value) in &plan.sysctls {
            proc.set_sysctl(name, value)?;
        }
    }
    let rootfs = match &plan.rootfs {
        Rootfs::Detached(passed) => descriptors.take(*passed)?,
        Rootfs::Path(path) => mounts::copy_path(path, true).on(Step::RootFilesystem, path, "opening")?,
    };
    let mounts = mounts::prepare(&plan.mounts, &plan.devices, plan.pid_namespace.as_ref(), &mut descriptors)?;
    let host_null = match mounts::own_null(&mounts) {
        None if !plan.masked_paths.is_empty() => Some(devices::host_null()?),
        _ => None,
    };

    let root = enter_root(rootfs, &host_root)?;
    drop(host_root);
    mounts::attach(&root, &mounts)?;
    let ground = Ground { control, root: &root, proc, filter, birth };
    process::open_terminal(&plan.process, &ground, Console::Bind)?;
    if !plan.masked_paths.is_empty() {
        masks::mask(&root, &plan.masked_paths, null(host_null, &mounts)?)?;
    }
    mounts::finish(mounts)?;
    masks::make_readonly(&root, &plan.readonly_paths)?;
    process::make_cwd(&plan.process, &root)?;
    finish_root(&plan, &root)?;
    process::launch(plan.process, ground)
}

/// A detached copy of a null device.
fn null(host: Option<OwnedFd>, mounts: &[mounts::Prepared]) -> Result<OwnedFd> {
    match (host, mounts::own_null(mounts)) {
        (Some(host), _) => Ok(host),
        // By its descriptor: whatever was mounted over /dev/null since is not looked at.
        (None, Some(own)) => mounts::copy(own, false).at(Step::MaskedPath, "copying the null device"),
        (None, None) => Err(Step::MaskedPath.refuse(None, "there is no null device to mask with")),
    }
}

/// The name belongs to the pod's uts namespace. A container whose name was not set must not start.
fn check_hostname(plan: &ContainerPlan) -> Result<()> {
    let Some(wanted) = &plan.hostname else { return Ok(()) };
    let host = uname();
    let found = host.nodename().to_string_lossy();
    if found == wanted.as_str() {
        return Ok(());
    }
    Err(Step::Namespace.refuse(None, format_args!("the host name is {found:?}, not {wanted:?}")))
}

fn private_proc(plan: &ContainerPlan) -> Result<Option<PrivateProc>> {
    let needed = !plan.sysctls.is_empty() || plan.process.needs_proc();
    needed.then(PrivateProc::open).transpose()
}

fn open_directory(path: &Path) -> std::result::Result<OwnedFd, rustix::io::Errno> {
    openat(CWD, path, OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())
}

/// Makes a detached mount the root and lets go of the host's.
fn enter_root(rootfs: OwnedFd, host_root: &OwnedFd) -> Result<Root> {
    let step = Step::RootFilesystem;
    // pivot_root(2): nothing of this may be shared, and the new root must be a mount point. On top of the
    // old one is as good a place as any, and needs no directory.
    let private = MountAttributes { propagation: Some(MountPropagationFlags::PRIVATE), ..Default::default() };
    mount_setattr(&rootfs, private).at(step, "keeping its mounts from the host")?;
    mounts::attach_at(&rootfs, host_root).at(step, "attaching")?;
    fchdir(&rootfs).at(step, "entering")?;
    pivot_root(".", ".").at(step, "making it the root (pivot_root)")?;
    // pivot_root(2), "pivot_root(".", ".")": the old root now lies on top of the new one.
    unmount(".", UnmountFlags::DETACH).at(step, "letting go of the host's")?;
    chdir("/").at(step, "entering")?;
    open_directory(Path::new("/")).and_then(Root::new).at(step, "opening")
}

/// Read-only and propagation, when nothing is to be made in it any more. Mounts in it have their own.
fn finish_root(plan: &ContainerPlan, root: &Root) -> Result<()> {
    let step = Step::RootFilesystem;
    if plan.readonly {
        mounts::set_readonly(root, false).at(step, "making it read-only")?;
    }
    if let Some(propagation) = plan.propagation {
        let change = MountAttributes { propagation: Some(propagation), ..Default::default() };
        mount_setattr(root, change).at(step, "setting its propagation")?;
    }
    Ok(())
}

//! Making a container.
//!
//! The root is entered before anything is mounted in it: from then on there is no host to be reached, by
//! whatever path. What is needed of the host is opened before, by descriptor.

use std::convert::Infallible;
use std::os::fd::{AsFd as _, OwnedFd};
use std::path::Path;

use coracle_init::protocol::CreateConfig;
use coracle_linux::{MountAttributes, mount_setattr, unshare_cgroup_namespace, unshare_mount_namespace};
use rustix::fs::{CWD, Mode, OFlags, openat};
use rustix::io::Errno;
use rustix::mount::{MountPropagationFlags, UnmountFlags, unmount};
use rustix::net::netdevice::name_to_index;
use rustix::net::{AddressFamily, SocketFlags, SocketType, socket_with};
use rustix::process::{chdir, fchdir, pivot_root, umask};
use rustix::system::uname;
use rustix::thread::{ThreadNameSpaceType, move_into_thread_name_spaces};

use crate::cgroup;
use crate::descriptors::Descriptors;
use crate::devices;
use crate::failure::{Context, Result, Step};
use crate::hooks;
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
    let mut plan = ContainerPlan::new(config)?;
    cgroup::enter(&plan.cgroup_procs, &mut descriptors)?;
    if plan.new_cgroup_namespace {
        unshare_cgroup_namespace().at(Step::Namespace, "making a cgroup namespace")?;
    }
    unshare_mount_namespace().at(Step::Namespace, "making a mount namespace")?;
    check_hostname(&plan)?;
    check_interfaces(&plan)?;
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

    let hooks = plan.hooks.take();
    let early = hooks.as_ref().filter(|hooks| hooks.before_root());
    if let Some(hooks) = early {
        let root = mount_root(&rootfs, &hooks.mount_point)?;
        mounts::attach(&root, &mounts)?;
        hooks::before_root(hooks, control)?;
    }
    // What hooks have started is not to be born among the pod's processes.
    let birth = birth(&plan, &mut descriptors)?;
    let root = match early {
        Some(_) => pivot(&rootfs)?,
        None => enter_root(&rootfs, &host_root)?,
    };
    drop((host_root, rootfs));
    if early.is_none() {
        mounts::attach(&root, &mounts)?;
    }
    let ground = Ground { control, root: &root, proc, filter, birth, hooks };
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

/// Where the program is executed. To be called while the host's /proc can be seen.
fn birth(plan: &ContainerPlan, descriptors: &mut Descriptors) -> Result<Birth> {
    let Some(namespace) = &plan.pid_namespace else { return Ok(Birth::Here) };
    let member = descriptors.take(namespace.member)?;
    move_into_thread_name_spaces(member.as_fd(), ThreadNameSpaceType::PROCESS_ID)
        .at(Step::Namespace, "choosing the pid namespace")?;
    Birth::sibling()
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

/// They were moved into the pod's network namespace. A container whose interface is not there must not start.
fn check_interfaces(plan: &ContainerPlan) -> Result<()> {
    if plan.interfaces.is_empty() {
        return Ok(());
    }
    let socket = socket_with(AddressFamily::INET, SocketType::DGRAM, SocketFlags::CLOEXEC, None)
        .at(Step::Namespace, "looking for network interfaces")?;
    for name in &plan.interfaces {
        name_to_index(&socket, name)
            .at(Step::Namespace, &format!("looking for the network interface {name}"))?;
    }
    Ok(())
}

fn private_proc(plan: &ContainerPlan) -> Result<Option<PrivateProc>> {
    let needed = !plan.sysctls.is_empty() || plan.process.needs_proc();
    needed.then(PrivateProc::open).transpose()
}

fn open_directory(path: &Path) -> std::result::Result<OwnedFd, Errno> {
    openat(CWD, path, OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())
}

/// Makes a detached mount the root and lets go of the host's.
fn enter_root(rootfs: &OwnedFd, host_root: &OwnedFd) -> Result<Root> {
    let step = Step::RootFilesystem;
    // On top of the old one is as good a place as any, and needs no directory.
    keep_from_host(rootfs)?;
    mounts::attach_at(rootfs, host_root).at(step, "attaching")?;
    pivot(rootfs)
}

/// Mounts the root where hooks look for it, in this mount namespace alone. What is attached in it is, as ever, attached
/// beneath its descriptor.
fn mount_root(rootfs: &OwnedFd, path: &Path) -> Result<Root> {
    let step = Step::RootFilesystem;
    keep_from_host(rootfs)?;
    let place = open_directory(path).on(step, path, "opening, to mount it for hooks,")?;
    mounts::attach_at(rootfs, &place).on(step, path, "attaching")?;
    rootfs.try_clone().map_err(|_| Errno::MFILE).and_then(Root::new).at(step, "opening")
}

/// pivot_root(2): nothing of this may be shared.
fn keep_from_host(rootfs: &OwnedFd) -> Result<()> {
    let private = MountAttributes { propagation: Some(MountPropagationFlags::PRIVATE), ..Default::default() };
    mount_setattr(rootfs, private).at(Step::RootFilesystem, "keeping its mounts from the host")
}

/// Makes a mount that is attached the root.
fn pivot(rootfs: &OwnedFd) -> Result<Root> {
    let step = Step::RootFilesystem;
    fchdir(rootfs).at(step, "entering")?;
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

//! Adding a process to a container that runs.

use std::convert::Infallible;
use std::os::fd::{AsFd, OwnedFd};

use coracle_init::protocol::{ExecConfig, Namespace};
use rustix::fs::{CWD, Mode, OFlags, openat};
use rustix::thread::{ThreadNameSpaceType, move_into_thread_name_spaces};

use crate::cgroup;
use crate::descriptors::Descriptors;
use crate::failure::{Context, Result, Step};
use crate::plan::ProcessPlan;
use crate::process::{self, Birth, Console, Ground};
use crate::procfs::PrivateProc;
use crate::root::Root;
use crate::seccomp;
use crate::spec::Process;

pub(crate) fn join(
    control: &OwnedFd,
    config: ExecConfig<Process>,
    mut descriptors: Descriptors,
) -> Result<Infallible> {
    let plan = ProcessPlan::new(config.process, config.seccomp)?;
    cgroup::enter(&config.cgroup_procs, &mut descriptors)?;
    let container = descriptors.take(config.container)?;
    let filter = seccomp::read(plan.seccomp, &mut descriptors)?;
    let proc = plan.needs_proc().then(PrivateProc::open).transpose()?;

    let namespaces = config.namespaces.iter().fold(ThreadNameSpaceType::empty(), |all, namespace| {
        all | match namespace {
            Namespace::Cgroup => ThreadNameSpaceType::CONTROL_GROUP,
            Namespace::Ipc => ThreadNameSpaceType::INTER_PROCESS_COMMUNICATION,
            Namespace::Mount => ThreadNameSpaceType::MOUNT,
            Namespace::Network => ThreadNameSpaceType::NETWORK,
            Namespace::Pid => ThreadNameSpaceType::PROCESS_ID,
            Namespace::Uts => ThreadNameSpaceType::HOST_NAME_AND_NIS_DOMAIN_NAME,
        }
    });
    if !namespaces.contains(ThreadNameSpaceType::MOUNT) {
        return Err(Step::Namespace.refuse(None, "a process cannot be added without its mount namespace"));
    }
    let birth = match namespaces.contains(ThreadNameSpaceType::PROCESS_ID) {
        true => Birth::sibling()?,
        false => Birth::Here,
    };
    // All or none. Entering a mount namespace moves root and working directory to its root.
    move_into_thread_name_spaces(container.as_fd(), namespaces)
        .at(Step::Namespace, "joining the container")?;
    drop(container);

    let root = openat(CWD, "/", OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())
        .and_then(Root::new)
        .at(Step::RootFilesystem, "opening")?;
    let ground = Ground { control, root: &root, proc, filter, birth, hooks: None };
    process::open_terminal(&plan, &ground, Console::Leave)?;
    process::launch(plan, ground)
}

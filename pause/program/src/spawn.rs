//! Starting a child.

use coracle_pause_wire::{MAX_DESCRIPTORS, NO_ID, Spawn, Step, spawn};

use crate::children::Child;
use crate::descriptors::{Descriptor, Descriptors};
use crate::sandbox::Sandbox;
use crate::startup::At;
use crate::sys::{
    self, Errno,
    process::{self, Side},
    signal,
};

/// Where the control socket is in the child.
const CONTROL: i32 = 3;

/// The descriptors of Spawn before the cgroup's and those to hold.
const FIXED: usize = 5;

/// Starts the child; returns its pid and pidfd.
pub(crate) fn spawn(
    sandbox: &mut Sandbox,
    request: &Spawn,
    mut descriptors: Descriptors<MAX_DESCRIPTORS>,
) -> Result<(u32, Descriptor), (Step, Errno)> {
    let into_cgroup = request.flags & spawn::INTO_CGROUP != 0;
    let before_held = FIXED + usize::from(into_cgroup);
    let &[program, stdin, stdout, stderr, control, ref more @ ..] = descriptors.as_slice() else {
        return Err((Step::PassedDescriptors, sys::EINVAL));
    };
    let cgroup = match (into_cgroup, more.first()) {
        (true, Some(directory)) => Some(*directory),
        (true, None) => return Err((Step::PassedDescriptors, sys::EINVAL)),
        (false, _) => None,
    };
    if sandbox.children.container(&request.id).is_some() {
        return Err((Step::Id, sys::EEXIST));
    }
    if request.id == NO_ID && descriptors.len() > before_held {
        // A helper is forgotten as it ends; nobody could take these back.
        return Err((Step::PassedDescriptors, sys::EINVAL));
    }
    let position = sandbox.children.vacancy().ok_or((Step::Capacity, sys::ENOSPC))?;
    sandbox.shared.clear(position);

    let namespaces = [
        (spawn::NEWPID, process::CLONE_NEWPID),
        (spawn::NEWNS, process::CLONE_NEWNS),
        (spawn::NEWCGROUP, process::CLONE_NEWCGROUP),
    ];
    let flags = namespaces
        .iter()
        .filter(|(flag, _)| request.flags & flag != 0)
        .fold(process::CLONE_PIDFD, |flags, (_, namespace)| flags | namespace);
    match process::clone(flags, signal::SIGCHLD, cgroup).at(Step::Clone)? {
        Side::Child => {
            let (step, errno) = become_program(sandbox, program, [stdin, stdout, stderr, control]);
            sandbox.shared.leave(position, step, errno);
            sys::exit(127)
        }
        Side::Parent { pid, pidfd } => {
            let mut held = Descriptors::NONE;
            held.take_from(&mut descriptors, before_held);
            let child = Child { id: request.id, pid, exit: None, recorded: false, held };
            sandbox.children.fill(position, child);
            Ok((pid, Descriptor::from_raw(pidfd)))
        }
    }
}

/// In the child; returns only on failure. Every descriptor received is above those it is put at, because
/// pause's own are below, and all but those put in place are closed by the execution.
fn become_program(sandbox: &Sandbox, program: i32, places: [i32; 4]) -> (Step, Errno) {
    let prepared = sys::swap_nofile(Some(sandbox.nofile))
        .and_then(|_| signal::set_mask(signal::NONE))
        .at(Step::ChildSignals)
        .and_then(|_| {
            (0..)
                .zip(places)
                .try_for_each(|(to, fd)| sys::dup_to(fd, to).map(drop))
                .at(Step::ChildDescriptors)
        })
        .and_then(|()| sys::cloexec_from(CONTROL + 1).at(Step::ChildDescriptors));
    match prepared {
        Ok(_) => (Step::ChildExec, process::execute(program, c"coracle-init")),
        Err(failed) => failed,
    }
}

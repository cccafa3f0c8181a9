//! Pid 1 of a pid namespace that the pod's containers share.
//!
//! It is visible to every container of the pod, so it must be worth nothing: no capability, no
//! descriptor, an empty root. It reaps what its namespace orphans, and nothing else.
//!
//! The containers need the namespace's /proc, each a mount of its own. Only a process inside the
//! namespace can make one, and before Linux 6.15 a detached mount cannot be cloned. So the reaper attaches
//! it in its own mount namespace before it gives up its privileges: over its root directory, where it does
//! not see it itself, but whoever joins that mount namespace does.

use coracle_pause_wire::Step;

use crate::descriptors::Descriptor;
use crate::shared::{OWN, SharedPage};
use crate::startup::At;
use crate::sys::{
    self, Errno, mount,
    process::{self, Side, Then, Whom},
    signal,
};

/// The parent's view of it.
pub(crate) struct Reaper {
    pid: u32,
    pidfd: Descriptor,
    alive: bool,
}

type Tried<T> = Result<T, (Step, Errno)>;

// === impl Reaper ===

impl Reaper {
    /// Starts it and waits until it has given up its privileges.
    pub(crate) fn start(shared: &SharedPage) -> Tried<Self> {
        let [ready, readying] = sys::pipe().at(Step::ReaperClone)?;
        let ready = Descriptor::from_raw(ready);
        let readying = Descriptor::from_raw(readying);
        shared.clear(OWN);
        let flags = process::CLONE_NEWPID | process::CLONE_NEWNS | process::CLONE_PIDFD;
        match process::clone(flags, signal::SIGCHLD, None).at(Step::ReaperClone)? {
            Side::Child => {
                let Err((step, errno)) = be_the_reaper(readying.raw());
                shared.leave(OWN, step, errno);
                sys::exit(127)
            }
            Side::Parent { pid, pidfd } => {
                let reaper = Self { pid, pidfd: Descriptor::from_raw(pidfd), alive: true };
                drop(readying);
                if sys::read(ready.raw(), &mut [0]) == Ok(1) {
                    return Ok(reaper);
                }
                process::wait_and_reap(pid);
                let (step, errno) = shared.left(OWN).unwrap_or((Step::ReaperDied, sys::ESRCH.0 as u16));
                Err((step, Errno(i32::from(errno))))
            }
        }
    }

    pub(crate) fn pid(&self) -> u32 {
        self.pid
    }

    /// It was reaped.
    pub(crate) fn ended(&mut self) {
        self.alive = false;
    }

    /// Its pidfd, and a fresh detached mount of its namespace's /proc.
    pub(crate) fn share(&self, shared: &SharedPage) -> Tried<(i32, Descriptor)> {
        if !self.alive {
            return Err((Step::ReaperDied, sys::ESRCH));
        }
        // Joining a mount namespace, and finding back, is left to a helper that shares the descriptors
        // and nothing else: pause itself can never be left behind in the wrong one. It never waits for
        // anything of the pod's, so pause may wait for it.
        shared.clear(OWN);
        let flags = process::CLONE_FILES | process::CLONE_VFORK;
        match process::clone(flags, 0, None).at(Step::ReaperProc)? {
            Side::Child => {
                match process::setns(self.pidfd.raw(), process::CLONE_NEWNS).and_then(|_| mount::clone_root())
                {
                    // The descriptor is in the shared table; its number goes the way errors do.
                    Ok(fd) => shared.leave(OWN, Step::Unknown(u16::MAX), Errno(fd)),
                    Err(errno) => shared.leave(OWN, Step::ReaperProc, errno),
                }
                sys::exit(0)
            }
            Side::Parent { pid, .. } => process::wait_and_reap(pid),
        }
        match shared.left(OWN) {
            Some((Step::Unknown(u16::MAX), fd)) => {
                Ok((self.pidfd.raw(), Descriptor::from_raw(i32::from(fd))))
            }
            Some((step, errno)) => Err((step, Errno(i32::from(errno)))),
            None => Err((Step::ReaperProc, sys::ECHILD)),
        }
    }

    /// Ends the namespace and all in it, without waiting: pid 1 is gone only when pause has reaped those
    /// of its own children that were in there.
    pub(crate) fn kill(&self) -> bool {
        self.alive && process::pidfd_send_signal(self.pidfd.raw(), signal::SIGKILL).is_ok()
    }
}

/// In the child. Writes one byte to `ready` when nothing is left to give up.
fn be_the_reaper(ready: i32) -> Tried<core::convert::Infallible> {
    mount::make_all_private().at(Step::ReaperRoot)?;
    let attributes = mount::READ_ONLY | mount::NOSUID | mount::NODEV | mount::NOEXEC;
    let root = mount::new_mount(c"tmpfs", attributes).at(Step::ReaperRoot)?;
    mount::mount_over_root(root).at(Step::ReaperRoot)?;
    mount::enter_root(root).at(Step::ReaperRoot)?;

    let proc =
        mount::new_mount(c"proc", mount::NOSUID | mount::NODEV | mount::NOEXEC).at(Step::ReaperProc)?;
    mount::mount_over_root(proc).at(Step::ReaperProc)?;

    process::give_up_privileges().at(Step::ReaperPrivileges)?;
    process::set_not_dumpable();
    // The namespace must not outlive pause, which alone knows of it.
    process::set_parent_death_signal(signal::SIGKILL).at(Step::ReaperPrivileges)?;
    // EPIPE if pause died before that.
    sys::write(ready, &[1]).at(Step::ReaperPrivileges)?;
    sys::close_from(0).at(Step::ReaperPrivileges)?;

    let child_ended = signal::set_of(signal::SIGCHLD);
    loop {
        while let Ok(Some(_)) = process::ended(Whom::Any, Then::Reap) {}
        let _ = signal::wait(child_ended);
    }
}

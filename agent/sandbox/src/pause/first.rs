//! The process a pod's cgroup begins with where systemd makes it: a scope without a process cannot be.
//!
//! It is container-init that is never told what to become. It waits for that, and ends when it cannot come any more:
//! when the agent has ended, too.

use std::os::fd::{AsFd, OwnedFd};

use coracle_cgroup::FirstProcess;
use coracle_init::protocol;
use rustix::net::{AddressFamily, SocketFlags, SocketType, socketpair};
use rustix::process::{Pid, PidfdFlags, pidfd_open};

use super::PauseError;
use super::launch::end;
use crate::programs::Programs;

/// A process that does nothing; killed and reaped when dropped.
#[derive(Debug)]
pub(crate) struct Placeholder {
    pid: Pid,
    pidfd: Option<OwnedFd>,
    /// What it waits for.
    _control: OwnedFd,
}

// === impl Placeholder ===

impl Placeholder {
    /// Starts it, where this process is.
    pub(crate) fn start(programs: &Programs) -> Result<Self, PauseError> {
        let (ours, theirs) =
            socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, SocketFlags::CLOEXEC, None)
                .map_err(PauseError::at("make a socket pair for the pod's first process"))?;
        let pid = coracle_linux::spawn(&coracle_linux::Spawn {
            program: programs.init(),
            arguments: &[c"coracle-init"],
            first: protocol::CONTROL,
            descriptors: &[theirs.as_fd()],
        })
        .map_err(PauseError::at("start the pod's first process"))?;
        // Our own child, which nobody else waits for: the pid is its.
        let mut started = Self { pid, pidfd: None, _control: ours };
        let pidfd = pidfd_open(pid, PidfdFlags::empty());
        started.pidfd = Some(pidfd.map_err(PauseError::at("open a pidfd of the pod's first process"))?);
        Ok(started)
    }

    /// For the cgroup.
    pub(crate) fn process(&self) -> Option<FirstProcess<'_>> {
        Some(FirstProcess { pid: self.pid, pidfd: self.pidfd.as_ref()?.as_fd() })
    }
}

impl Drop for Placeholder {
    fn drop(&mut self) {
        end(self.pid, self.pidfd.as_ref());
    }
}

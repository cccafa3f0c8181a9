//! The pipes between a container and its log.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::pipe::{PipeFlags, fcntl_getpipe_size, fcntl_setpipe_size};

use super::peek;

/// How many descriptors [`OutputPipes`] are. pause holds them before any other of a container.
pub(crate) const HELD_OUTPUT: usize = 4;

/// The agent's ends of a container's output, in the order in which pause holds them.
#[derive(Debug)]
pub(crate) struct OutputPipes {
    /// Standard output, or what a terminal showed.
    pub(crate) stdout: OwnedFd,
    /// Standard error.
    pub(crate) stderr: OwnedFd,
    /// What is being written to the log: [`super`] says why.
    pub(crate) journal_read: OwnedFd,
    /// The journal's other end.
    pub(crate) journal_write: OwnedFd,
}

/// The container's ends: its standard output and error.
#[derive(Debug)]
pub(crate) struct ContainerEnds {
    pub(crate) stdout: OwnedFd,
    pub(crate) stderr: OwnedFd,
}

// === impl OutputPipes ===

impl OutputPipes {
    /// Fresh pipes, and the container's ends of them.
    pub(crate) fn new() -> io::Result<(Self, ContainerEnds)> {
        let (journal_read, journal_write) = peek::pipe(PipeFlags::NONBLOCK)?;
        let room = fcntl_getpipe_size(&journal_write)?;
        let stream = || {
            let (read, write) = peek::pipe(PipeFlags::empty())?;
            // All that a stream can hold must fit into the journal.
            if fcntl_getpipe_size(&write)? > room {
                fcntl_setpipe_size(&write, room)?;
            }
            // The flag belongs to this end alone: the container's stays blocking, as programs expect.
            rustix::io::ioctl_fionbio(&read, true)?;
            io::Result::Ok((read, write))
        };
        let (stdout, container_stdout) = stream()?;
        let (stderr, container_stderr) = stream()?;
        Ok((
            Self { stdout, stderr, journal_read, journal_write },
            ContainerEnds { stdout: container_stdout, stderr: container_stderr },
        ))
    }

    /// The descriptors that pause is to hold.
    pub(crate) fn held(&self) -> [BorrowedFd<'_>; HELD_OUTPUT] {
        [self.stdout.as_fd(), self.stderr.as_fd(), self.journal_read.as_fd(), self.journal_write.as_fd()]
    }

    /// The pipes again, taken from the front of what pause held.
    pub(crate) fn from_held(held: &mut Vec<OwnedFd>) -> Option<Self> {
        let rest = held.split_off(held.len().min(HELD_OUTPUT));
        let pipes = <[OwnedFd; HELD_OUTPUT]>::try_from(std::mem::replace(held, rest)).ok()?;
        let [stdout, stderr, journal_read, journal_write] = pipes;
        Some(Self { stdout, stderr, journal_read, journal_write })
    }
}

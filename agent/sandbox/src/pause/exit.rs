//! How a child of pause ended.

use coracle_pause_wire::{self as wire, Code, Step};
use jiff::Timestamp;
use rustix::io::Errno;

/// How and when a child ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Exit {
    /// How.
    pub status: ExitStatus,
    /// When pause learned of it.
    pub time: Timestamp,
    /// The step before the execution of its program that failed, and why. The status means nothing then.
    pub failed: Option<(Step, Errno)>,
}

/// What ended a child.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ExitStatus {
    /// It exited, with this code.
    Code(i32),
    /// This signal killed it.
    Signal(i32),
}

impl From<wire::Exit> for Exit {
    fn from(exit: wire::Exit) -> Self {
        let status = match exit.code {
            Code::Exited => ExitStatus::Code(exit.status),
            Code::Killed | Code::Dumped => ExitStatus::Signal(exit.status),
        };
        Self {
            status,
            // Beyond jiff's last year only if the clock is.
            time: Timestamp::from_nanosecond(i128::from(exit.time_ns)).unwrap_or(Timestamp::MAX),
            failed: exit.failed.map(|(step, errno)| (step, Errno::from_raw_os_error(i32::from(errno)))),
        }
    }
}

//! A child and how it ended: the body of List and Exited.

use crate::codec::{Reader, Writer};
use crate::{Id, NO_ID, Step};

/// Bytes of an [`Entry`].
///
/// `[u8; 32]` container, `u32` pid, `u8` flags, `u8` count of held descriptors, `u8` code, `u8` zero,
/// `i32` status, `u64` nanoseconds, `u16` failed step, `u16` its errno, 4 bytes zero.
pub const ENTRY_SIZE: usize = 64;

const EXITED: u8 = 1 << 0;
const UNRECORDED: u8 = 1 << 1;
const REAPER: u8 = 1 << 2;

/// A child of pause.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Entry {
    /// The container it is; zeros when it is none.
    pub id: Id,
    /// Its pid in pause's namespace, which is the host's.
    pub pid: u32,
    /// How many descriptors are held for it.
    pub held: u8,
    /// Its exit could not be written to the ledger (yet).
    pub unrecorded: bool,
    /// It was pid 1 of the shared pid namespace, which ended with it.
    pub reaper: bool,
    /// How it ended, unless it lives.
    pub exit: Option<Exit>,
}

/// How a child ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Exit {
    /// What `status` means.
    pub code: Code,
    /// Exit code or signal number.
    pub status: i32,
    /// When pause learned of it, in nanoseconds of `CLOCK_REALTIME`.
    pub time_ns: u64,
    /// The step before the execution of its program that failed, and its errno.
    pub failed: Option<(Step, u16)>,
}

/// How to read [`Exit::status`]; the numbers are the kernel's `CLD_*`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Code {
    /// It exited; the status is its exit code.
    Exited,
    /// A signal ended it; the status is the signal's number.
    Killed,
    /// As `Killed`, with a core dump.
    Dumped,
}

// === impl Entry ===

impl Entry {
    /// A living child that is no container.
    pub const fn of_child(pid: u32) -> Self {
        Self { id: NO_ID, pid, held: 0, unrecorded: false, reaper: false, exit: None }
    }

    pub(crate) fn write(&self, to: &mut Writer<'_>) {
        let mut flags = 0;
        if self.exit.is_some() {
            flags |= EXITED;
        }
        if self.unrecorded {
            flags |= UNRECORDED;
        }
        if self.reaper {
            flags |= REAPER;
        }
        to.bytes(&self.id).u32(self.pid).u8(flags).u8(self.held);
        match self.exit {
            Some(exit) => {
                to.u8(exit.code.to_wire()).u8(0).i32(exit.status).u64(exit.time_ns);
                write_failed(exit.failed, to);
            }
            None => {
                to.u8(0).u8(0).i32(0).u64(0);
                write_failed(None, to);
            }
        }
        to.u32(0);
    }

    pub(crate) fn read(from: &mut Reader<'_>) -> Option<Self> {
        let id = from.id()?;
        let pid = from.u32()?;
        let flags = from.u8()?;
        let held = from.u8()?;
        let code = from.u8()?;
        from.u8()?;
        let status = from.i32()?;
        let time_ns = from.u64()?;
        let failed = read_failed(from)?;
        from.u32()?;
        let exit = if flags & EXITED != 0 {
            Some(Exit { code: Code::from_wire(code)?, status, time_ns, failed })
        } else {
            None
        };
        Some(Self { id, pid, held, unrecorded: flags & UNRECORDED != 0, reaper: flags & REAPER != 0, exit })
    }
}

pub(crate) fn write_failed(failed: Option<(Step, u16)>, to: &mut Writer<'_>) {
    let (step, errno) = failed.map_or((0, 0), |(step, errno)| (step.to_wire(), errno));
    to.u16(step).u16(errno);
}

pub(crate) fn read_failed(from: &mut Reader<'_>) -> Option<Option<(Step, u16)>> {
    let step = from.u16()?;
    let errno = from.u16()?;
    Some((step != 0).then_some((Step::from_wire(step), errno)))
}

// === impl Code ===

impl Code {
    /// From the kernel's `CLD_*`; `None` for what is not an end.
    pub const fn from_wire(code: u8) -> Option<Self> {
        match code {
            1 => Some(Self::Exited),
            2 => Some(Self::Killed),
            3 => Some(Self::Dumped),
            _ => None,
        }
    }

    /// The kernel's `CLD_*`.
    pub const fn to_wire(self) -> u8 {
        match self {
            Self::Exited => 1,
            Self::Killed => 2,
            Self::Dumped => 3,
        }
    }
}

//! How pause is started, and what it says when it is.

use crate::Step;
use crate::codec::{Reader, Writer};

/// Bytes of a [`StartupStatus`].
///
/// `u16` version, `u16` failed step or 0, `i32` its errno, `i32` errno of the refused oom_score_adj or 0,
/// `u32` pid.
pub const STARTUP_STATUS_SIZE: usize = 16;

/// How pause is started.
///
/// Arguments: `pause <flags> <cgroups> <host name>`: the flags of [`sandbox`](crate::sandbox) in
/// hexadecimal, the number of `cgroup.procs` descriptors in decimal, and the host name, empty to keep it.
/// Descriptors: those below, then from [`CGROUPS`](launch::CGROUPS) on the `cgroup.procs`, which are
/// written to in order and closed. Standard descriptors become `/dev/null`, all others are closed.
pub mod launch {
    /// A `SOCK_SEQPACKET` socket, bound and not yet listening: pause itself calls `listen`, so that
    /// `SO_PEERCRED` and `SO_PEERPIDFD` name pause to whoever connects.
    pub const SOCKET: i32 = 3;
    /// The exit ledger, open for appending.
    pub const LEDGER: i32 = 4;
    /// The writing end of a pipe for one [`StartupStatus`](crate::StartupStatus).
    pub const STATUS: i32 = 5;
    /// The first `cgroup.procs`.
    pub const CGROUPS: i32 = 6;
    /// The most `cgroup.procs`.
    pub const MAX_CGROUPS: usize = 32;
    /// The socket's name in the pod's directory.
    pub const SOCKET_NAME: &str = "pause.sock";
    /// The ledger's name in the pod's directory.
    pub const LEDGER_NAME: &str = "exits";
}

/// What a sandbox holds.
pub mod sandbox {
    /// A network namespace of its own.
    pub const NEWNET: u32 = 1 << 0;
    /// An ipc namespace of its own.
    pub const NEWIPC: u32 = 1 << 1;
    /// A uts namespace of its own.
    pub const NEWUTS: u32 = 1 << 2;
    /// A pid namespace shared by the pod's containers.
    pub const SHARED_PID: u32 = 1 << 3;
    /// All flags known.
    pub const ALL: u32 = NEWNET | NEWIPC | NEWUTS | SHARED_PID;
}

/// Written once, when pause serves or gives up.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct StartupStatus {
    /// The highest version pause speaks.
    pub version: u16,
    /// What failed, and its errno; `None` when pause serves.
    pub failed: Option<(Step, i32)>,
    /// Why its oom_score_adj could not be lowered; 0 when it was.
    pub oom_score_adj_errno: i32,
    /// Its pid, in the host's namespace.
    pub pid: u32,
}

impl StartupStatus {
    /// The record's bytes.
    pub fn encode(&self) -> [u8; STARTUP_STATUS_SIZE] {
        let mut bytes = [0; STARTUP_STATUS_SIZE];
        let (step, errno) = self.failed.map_or((0, 0), |(step, errno)| (step.to_wire(), errno));
        let mut to = Writer::new(&mut bytes);
        to.u16(self.version).u16(step).i32(errno).i32(self.oom_score_adj_errno).u32(self.pid);
        bytes
    }

    /// The record; `None` when the bytes are too few.
    pub fn decode(bytes: &[u8]) -> Option<Self> {
        let mut from = Reader::new(bytes);
        let version = from.u16()?;
        let step = from.u16()?;
        let errno = from.i32()?;
        let oom_score_adj_errno = from.i32()?;
        let pid = from.u32()?;
        let failed = (step != 0).then_some((Step::from_wire(step), errno));
        Some(Self { version, failed, oom_score_adj_errno, pid })
    }
}

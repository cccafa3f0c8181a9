//! The wire format between the agent and pause. This page is its only description.
//!
//! pause outlives the agent that started it, so a new agent meets old pauses: the format is frozen per
//! version, little-endian, of fixed layout, and decoding never panics whatever the bytes are.
//!
//! # Transport
//!
//! `SOCK_SEQPACKET` on `<run>/pods/<uid>/pause.sock`: one message is one packet of at most
//! [`MAX_MESSAGE`] bytes, with at most [`MAX_DESCRIPTORS`] descriptors in one `SCM_RIGHTS` message. pause
//! serves one connection; a new one replaces it. It never waits for its peer: an agent that lets its
//! receive buffer fill up is disconnected, and finds everything again through `List` and the ledger.
//!
//! # Messages
//!
//! Every message begins with a header of 8 bytes: `u16` kind, `u16` zero, `u32` sequence. A reply carries
//! the sequence of its request; an event carries 0.
//!
//! | kind | request | body | descriptors |
//! |---|---|---|---|
//! | 1 | Hello | `u16` lowest, `u16` highest version of the agent | |
//! | 2 | Spawn | `u32` flags ([`spawn`]), `[u8; 32]` container or zeros | program, stdin, stdout, stderr, control, cgroup directory if flagged, then held |
//! | 3 | Register | `u32` pid, `[u8; 32]` container | held |
//! | 4 | Hold | `[u8; 32]` container | held, at least one |
//! | 5 | List | `u16` position to begin at | |
//! | 6 | Take | `[u8; 32]` container | |
//! | 7 | Release | `[u8; 32]` container | |
//! | 8 | Shutdown | | |
//! | 9 | SharedPid | | |
//! | 10 | Unhold | `[u8; 32]` container, `u16` position among its held | |
//!
//! | kind | reply | body | descriptors |
//! |---|---|---|---|
//! | 0x81 | Hello | `u16` version, `u16` capacity, `u32` pid, `u32` flags ([`sandbox`]), `i32` errno of the refused oom_score_adj or 0 | |
//! | 0x82 | Child | `u32` pid (to Spawn and Register) | pidfd |
//! | 0x83 | Page | `u16` position of the next page or 0, `u16` count, then as many [`Entry`] of 64 bytes (to List) | |
//! | 0x84 | Taken | `u8` 1 if a pidfd comes first (the child lives), `u8` count of held | pidfd, held in the order they were given |
//! | 0x85 | SharedPid | | pidfd of the namespace's pid 1, a fresh detached mount of its /proc |
//! | 0x86 | Done (to Hold, Unhold, Release, Shutdown) | | |
//! | 0xff | Error | `u16` [`Step`], `u16` zero, `i32` errno | |
//!
//! | kind | event | body |
//! |---|---|---|
//! | 0x100 | Exited | one [`Entry`]; its container is zeros for a child that is no container |
//!
//! An exec'd program and an orphan are children without a container: they are reported as they end, neither
//! kept nor written to the ledger. A child that failed before its program was executed is reported as
//! exited, with the failed step and errno in its entry. The event may overtake what the agent is told of
//! the same pid by another way.
//!
//! # Compatibility
//!
//! Hello settles the version: the highest both know, or an error with [`Step::Version`]. Within a version
//! bytes after the known fields are ignored; flags not known are refused (`EINVAL`), because they would
//! change what is done; a kind not known is answered with [`Step::Kind`] (`ENOSYS`).
//!
//! # Files
//!
//! The exit ledger is a sequence of [`LedgerRecord`], 64 bytes each with a checksum. The status pipe
//! carries one [`StartupStatus`]. How pause is started is in [`launch`].

#![no_std]

mod codec;
mod entry;
mod ledger;
mod reply;
mod request;
mod startup;
mod step;

pub use entry::{Code, ENTRY_SIZE, Entry, Exit};
pub use ledger::{LEDGER_RECORD_SIZE, LedgerRecord};
pub use reply::{Entries, Hello, Message, PageWriter};
pub use request::{Malformed, Request, Spawn};
pub use startup::{STARTUP_STATUS_SIZE, StartupStatus, launch, sandbox};
pub use step::Step;

/// The version this crate describes.
pub const VERSION: u16 = 1;

/// The most bytes of a message.
pub const MAX_MESSAGE: usize = 4096;

/// The most descriptors pause keeps for a container.
pub const MAX_HELD: usize = 16;

/// The most descriptors of a message: those of Spawn.
pub const MAX_DESCRIPTORS: usize = 6 + MAX_HELD;

/// How many children spawned or registered pause knows at a time, those that ended and were not released
/// included.
pub const CAPACITY: usize = 256;

/// Bytes of a header.
pub const HEADER_SIZE: usize = 8;

/// A container's identifier. Zeros stand for "no container".
pub type Id = [u8; 32];

/// The identifier of what is no container.
pub const NO_ID: Id = [0; 32];

/// Flags of Spawn.
pub mod spawn {
    /// A pid namespace of its own.
    pub const NEWPID: u32 = 1 << 0;
    /// A mount namespace of its own.
    pub const NEWNS: u32 = 1 << 1;
    /// A cgroup namespace of its own, rooted where pause is and not where the child is born.
    pub const NEWCGROUP: u32 = 1 << 2;
    /// Born into the cgroup whose directory comes after the control socket (cgroup v2 only).
    pub const INTO_CGROUP: u32 = 1 << 3;
    /// All flags known.
    pub const ALL: u32 = NEWPID | NEWNS | NEWCGROUP | INTO_CGROUP;
}

//! Requests: the agent encodes, pause decodes.

use crate::codec::{Reader, Writer};
use crate::{Id, Step};

/// What the agent asks of pause. The descriptors that go with it are not part of the message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Request {
    /// Settle the version.
    Hello {
        /// The lowest version the agent speaks.
        lowest: u16,
        /// The highest.
        highest: u16,
    },
    /// Start a child.
    Spawn(Spawn),
    /// Make a child that was born by `CLONE_PARENT` a container.
    Register {
        /// The child.
        pid: u32,
        /// The container it is.
        id: Id,
    },
    /// Keep descriptors for a container.
    Hold {
        /// The container.
        id: Id,
    },
    /// One page of containers.
    List {
        /// 0, or what the page before gave.
        start: u16,
    },
    /// Duplicates of what is held for a container, and a pidfd.
    Take {
        /// The container.
        id: Id,
    },
    /// Forget a container that ended.
    Release {
        /// The container.
        id: Id,
    },
    /// End, when no container is left and no child lives.
    Shutdown,
    /// The shared pid namespace's pid 1 and /proc.
    SharedPid,
    /// Close one of the descriptors kept for a container; those behind it move up.
    Unhold {
        /// The container.
        id: Id,
        /// Its position among those kept.
        position: u16,
    },
}

/// A child to start.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Spawn {
    /// Of [`spawn`](crate::spawn).
    pub flags: u32,
    /// The container it is; zeros for none.
    pub id: Id,
}

/// Why a message is no request, in the terms of the error to answer with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Malformed {
    /// Shorter than its kind's fields.
    Short,
    /// A kind this version does not know.
    Kind,
    /// Flags this version does not know.
    Flags,
}

const HELLO: u16 = 1;
const SPAWN: u16 = 2;
const REGISTER: u16 = 3;
const HOLD: u16 = 4;
const LIST: u16 = 5;
const TAKE: u16 = 6;
const RELEASE: u16 = 7;
const SHUTDOWN: u16 = 8;
const SHARED_PID: u16 = 9;
const UNHOLD: u16 = 10;

// === impl Request ===

impl Request {
    /// Writes the request; returns its length, or `None` when the buffer is too small.
    pub fn encode(&self, sequence: u32, buffer: &mut [u8]) -> Option<usize> {
        let kind = match self {
            Self::Hello { .. } => HELLO,
            Self::Spawn(_) => SPAWN,
            Self::Register { .. } => REGISTER,
            Self::Hold { .. } => HOLD,
            Self::List { .. } => LIST,
            Self::Take { .. } => TAKE,
            Self::Release { .. } => RELEASE,
            Self::Shutdown => SHUTDOWN,
            Self::SharedPid => SHARED_PID,
            Self::Unhold { .. } => UNHOLD,
        };
        let mut to = Writer::new(buffer);
        to.u16(kind).u16(0).u32(sequence);
        match self {
            Self::Hello { lowest, highest } => to.u16(*lowest).u16(*highest),
            Self::Spawn(Spawn { flags, id }) => to.u32(*flags).bytes(id),
            Self::Register { pid, id } => to.u32(*pid).bytes(id),
            Self::Hold { id } | Self::Take { id } | Self::Release { id } => to.bytes(id),
            Self::List { start } => to.u16(*start),
            Self::Shutdown | Self::SharedPid => &mut to,
            Self::Unhold { id, position } => to.bytes(id).u16(*position),
        };
        to.finish()
    }

    /// Reads a request: its sequence (0 when even that is missing) and what it asks.
    pub fn decode(bytes: &[u8]) -> (u32, Result<Self, Malformed>) {
        let mut from = Reader::new(bytes);
        let header = (from.u16(), from.u16(), from.u32());
        let (Some(kind), Some(_), Some(sequence)) = header else {
            return (0, Err(Malformed::Short));
        };
        (sequence, Self::decode_body(kind, &mut from))
    }

    fn decode_body(kind: u16, from: &mut Reader<'_>) -> Result<Self, Malformed> {
        let body = match kind {
            HELLO => from.u16().zip(from.u16()).map(|(lowest, highest)| Self::Hello { lowest, highest }),
            SPAWN => from.u32().zip(from.id()).map(|(flags, id)| Self::Spawn(Spawn { flags, id })),
            REGISTER => from.u32().zip(from.id()).map(|(pid, id)| Self::Register { pid, id }),
            HOLD => from.id().map(|id| Self::Hold { id }),
            LIST => from.u16().map(|start| Self::List { start }),
            TAKE => from.id().map(|id| Self::Take { id }),
            RELEASE => from.id().map(|id| Self::Release { id }),
            SHUTDOWN => Some(Self::Shutdown),
            SHARED_PID => Some(Self::SharedPid),
            UNHOLD => from.id().zip(from.u16()).map(|(id, position)| Self::Unhold { id, position }),
            _ => return Err(Malformed::Kind),
        };
        match body.ok_or(Malformed::Short)? {
            Self::Spawn(Spawn { flags, .. }) if flags & !crate::spawn::ALL != 0 => Err(Malformed::Flags),
            request => Ok(request),
        }
    }
}

// === impl Malformed ===

impl Malformed {
    /// The step of the error to answer with.
    pub const fn step(self) -> Step {
        match self {
            Self::Short => Step::Malformed,
            Self::Kind => Step::Kind,
            Self::Flags => Step::Flags,
        }
    }
}

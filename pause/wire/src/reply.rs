//! Replies and events: pause encodes, the agent decodes.

use crate::codec::{Reader, Writer};
use crate::{ENTRY_SIZE, Entry, HEADER_SIZE, MAX_MESSAGE, Step};

/// What pause says. The descriptors that go with it are not part of the message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Message<'a> {
    /// To Hello.
    Hello(Hello),
    /// To Spawn and Register; a pidfd comes with it.
    Child {
        /// The child.
        pid: u32,
    },
    /// To List.
    Page {
        /// Where the next page begins; 0 when this is the last.
        next: u16,
        /// The containers of this page.
        entries: Entries<'a>,
    },
    /// To Take.
    Taken {
        /// The child lives, and the first descriptor is its pidfd.
        alive: bool,
        /// How many descriptors after it were held.
        held: u8,
    },
    /// To SharedPid; a pidfd and a mount come with it.
    SharedPid,
    /// To Hold, Release and Shutdown.
    Done,
    /// To any request that failed.
    Error {
        /// What was tried.
        step: Step,
        /// Why it failed.
        errno: i32,
    },
    /// A child ended. An event: its sequence is 0.
    Exited(Entry),
}

/// What pause says of itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Hello {
    /// The version to speak on this connection.
    pub version: u16,
    /// How many containers it can keep.
    pub capacity: u16,
    /// Its pid, in the host's namespace.
    pub pid: u32,
    /// What the sandbox holds, of [`sandbox`](crate::sandbox).
    pub flags: u32,
    /// Why its oom_score_adj could not be lowered; 0 when it was.
    pub oom_score_adj_errno: i32,
}

/// The entries of a page, still encoded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Entries<'a> {
    bytes: &'a [u8],
}

/// Writes a [`Message::Page`] entry by entry.
pub struct PageWriter<'a> {
    buffer: &'a mut [u8],
    sequence: u32,
    count: u16,
}

const HELLO: u16 = 0x81;
const CHILD: u16 = 0x82;
const PAGE: u16 = 0x83;
const TAKEN: u16 = 0x84;
const SHARED_PID: u16 = 0x85;
const DONE: u16 = 0x86;
const ERROR: u16 = 0xff;
const EXITED: u16 = 0x100;

const PAGE_HEADER: usize = HEADER_SIZE + 4;

// === impl Message ===

impl<'a> Message<'a> {
    /// Writes the message; returns its length, or `None` when the buffer is too small.
    pub fn encode(&self, sequence: u32, buffer: &mut [u8]) -> Option<usize> {
        let mut to = Writer::new(buffer);
        let mut header = |kind: u16| {
            to.u16(kind).u16(0).u32(sequence);
        };
        match self {
            Self::Hello(hello) => {
                header(HELLO);
                to.u16(hello.version).u16(hello.capacity).u32(hello.pid).u32(hello.flags);
                to.i32(hello.oom_score_adj_errno);
            }
            Self::Child { pid } => {
                header(CHILD);
                to.u32(*pid);
            }
            Self::Page { next, entries } => {
                header(PAGE);
                to.u16(*next).u16(u16::try_from(entries.len()).ok()?).bytes(entries.bytes);
            }
            Self::Taken { alive, held } => {
                header(TAKEN);
                to.u8(u8::from(*alive)).u8(*held);
            }
            Self::SharedPid => header(SHARED_PID),
            Self::Done => header(DONE),
            Self::Error { step, errno } => {
                header(ERROR);
                to.u16(step.to_wire()).u16(0).i32(*errno);
            }
            Self::Exited(entry) => {
                header(EXITED);
                entry.write(&mut to);
            }
        }
        to.finish()
    }

    /// Reads a message and its sequence; `None` when it is malformed or of a kind not known.
    pub fn decode(bytes: &'a [u8]) -> Option<(u32, Self)> {
        let mut from = Reader::new(bytes);
        let kind = from.u16()?;
        from.u16()?;
        let sequence = from.u32()?;
        let message = match kind {
            HELLO => Self::Hello(Hello {
                version: from.u16()?,
                capacity: from.u16()?,
                pid: from.u32()?,
                flags: from.u32()?,
                oom_score_adj_errno: from.i32()?,
            }),
            CHILD => Self::Child { pid: from.u32()? },
            PAGE => {
                let next = from.u16()?;
                let length = usize::from(from.u16()?).checked_mul(ENTRY_SIZE)?;
                Self::Page { next, entries: Entries { bytes: from.rest().get(..length)? } }
            }
            TAKEN => Self::Taken { alive: from.u8()? != 0, held: from.u8()? },
            SHARED_PID => Self::SharedPid,
            DONE => Self::Done,
            ERROR => {
                let step = Step::from_wire(from.u16()?);
                from.u16()?;
                Self::Error { step, errno: from.i32()? }
            }
            EXITED => Self::Exited(Entry::read(&mut from)?),
            _ => return None,
        };
        Some((sequence, message))
    }
}

// === impl Entries ===

impl<'a> Entries<'a> {
    /// How many there are.
    pub fn len(&self) -> usize {
        self.bytes.len() / ENTRY_SIZE
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.bytes.is_empty()
    }

    /// Each of them; `None` for one that is malformed.
    pub fn iter(&self) -> impl Iterator<Item = Option<Entry>> + use<'a> {
        self.bytes.chunks_exact(ENTRY_SIZE).map(|bytes| Entry::read(&mut Reader::new(bytes)))
    }
}

// === impl PageWriter ===

impl<'a> PageWriter<'a> {
    /// A page without entries in a buffer, of which at most [`MAX_MESSAGE`] bytes are used.
    pub fn new(buffer: &'a mut [u8], sequence: u32) -> Self {
        Self { buffer, sequence, count: 0 }
    }

    /// Adds an entry; `false` when the page is full.
    pub fn push(&mut self, entry: &Entry) -> bool {
        let at = PAGE_HEADER + usize::from(self.count) * ENTRY_SIZE;
        if at + ENTRY_SIZE > MAX_MESSAGE {
            return false;
        }
        let Some(place) = self.buffer.get_mut(at..at + ENTRY_SIZE) else { return false };
        let mut to = Writer::new(place);
        entry.write(&mut to);
        self.count += 1;
        true
    }

    /// The length of the whole message; `None` when the buffer is too small even for its header.
    pub fn finish(self, next: u16) -> Option<usize> {
        let mut to = Writer::new(self.buffer);
        to.u16(PAGE).u16(0).u32(self.sequence).u16(next).u16(self.count);
        to.finish().map(|header| header + usize::from(self.count) * ENTRY_SIZE)
    }
}

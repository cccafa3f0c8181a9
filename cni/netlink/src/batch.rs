//! Requests that are sent together.

use std::borrow::Cow;

use netlink_packet_core::{NLM_F_ACK, NLM_F_REQUEST, NetlinkHeader, NetlinkSerializable};

use crate::datagram::{ALIGNMENT, HEADER};

/// Requests that are sent together, in order. The kernel works on each of them, whatever became of those before
/// (but for those of an nftables transaction, which are done together or not at all).
#[derive(Debug, Default)]
pub struct Batch {
    bytes: Vec<u8>,
    requests: Vec<Request>,
}

#[derive(Debug)]
pub(crate) struct Request {
    /// What it is to do, for messages.
    pub(crate) what: Cow<'static, str>,
    /// Whether its success is answered, too.
    pub(crate) acknowledged: bool,
    start: usize,
}

// === impl Batch ===

impl Batch {
    /// Without requests.
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds a request whose success is answered, and tells its place. `what` says for messages what it is to do:
    /// `add address 10.0.0.1/24 to eth0`. `NLM_F_REQUEST` and `NLM_F_ACK` are added to `flags`.
    pub fn push(
        &mut self,
        what: impl Into<Cow<'static, str>>,
        flags: u16,
        message: &impl NetlinkSerializable,
    ) -> usize {
        self.push_unacknowledged(what, flags | NLM_F_ACK, message)
    }

    /// Adds a request of which only a failure is answered, as is usual within a transaction of nftables. A batch has
    /// to end with one that is acknowledged.
    pub fn push_unacknowledged(
        &mut self,
        what: impl Into<Cow<'static, str>>,
        flags: u16,
        message: &impl NetlinkSerializable,
    ) -> usize {
        let flags = flags | NLM_F_REQUEST;
        let start = self.bytes.len();
        let length = HEADER + message.buffer_len();
        self.bytes.resize(start + length.next_multiple_of(ALIGNMENT), 0);
        // `emit` writes the header's fields, of which `NetlinkHeader` cannot be made in one expression.
        let mut header = NetlinkHeader::default();
        header.length = u32::try_from(length).unwrap_or(u32::MAX);
        header.message_type = message.message_type();
        header.flags = flags;
        netlink_packet_core::Emitable::emit(&header, &mut self.bytes[start..start + HEADER]);
        message.serialize(&mut self.bytes[start + HEADER..start + length]);
        self.requests.push(Request { what: what.into(), acknowledged: flags & NLM_F_ACK != 0, start });
        self.requests.len() - 1
    }

    /// How many requests there are.
    pub fn len(&self) -> usize {
        self.requests.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.requests.is_empty()
    }

    pub(crate) fn requests(&self) -> &[Request] {
        &self.requests
    }

    /// The bytes to send: the first request gets the number given, the others those that follow.
    pub(crate) fn numbered(&mut self, first: u32) -> &[u8] {
        let mut number = first;
        for request in &self.requests {
            self.bytes[request.start + 8..request.start + 12].copy_from_slice(&number.to_ne_bytes());
            number = number.wrapping_add(1);
        }
        &self.bytes
    }
}

//! Whether the host passes on what is for others.

use netlink_packet_core::NetlinkSerializable;

use crate::attribute::{find, u32_of};
use crate::{Batch, Error, Socket};

/// `RTM_GETNETCONF`.
const RTM_GETNETCONF: u16 = 82;
/// The length of `struct netconfmsg`, with what aligns it.
const HEADER: usize = 4;
const NETCONFA_IFINDEX: u16 = 1;
const NETCONFA_FORWARDING: u16 = 2;
/// `NETCONFA_IFINDEX_ALL`: of all interfaces together.
const ALL: i32 = -1;

/// A family of addresses.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Family {
    /// `AF_INET`.
    Ipv4,
    /// `AF_INET6`.
    Ipv6,
}

/// Asks what is configured of all interfaces together.
struct OfAll(Family);

// === impl OfAll ===

impl NetlinkSerializable for OfAll {
    fn message_type(&self) -> u16 {
        RTM_GETNETCONF
    }

    fn buffer_len(&self) -> usize {
        HEADER + 8
    }

    fn serialize(&self, buffer: &mut [u8]) {
        buffer[0] = match self.0 {
            Family::Ipv4 => 2,
            Family::Ipv6 => 10,
        };
        buffer[HEADER..HEADER + 2].copy_from_slice(&8_u16.to_ne_bytes());
        buffer[HEADER + 2..HEADER + 4].copy_from_slice(&NETCONFA_IFINDEX.to_ne_bytes());
        buffer[HEADER + 4..HEADER + 8].copy_from_slice(&ALL.to_ne_bytes());
    }
}

// === impl Socket ===

impl Socket {
    /// Whether forwarding is on, for all interfaces together.
    ///
    /// # Errors
    /// As [`Socket::execute`]; `EOPNOTSUPP` where the kernel does not know the family.
    pub fn forwards(&mut self, family: Family) -> Result<bool, Error> {
        let mut batch = Batch::new();
        batch.push(format!("ask whether {family:?} is forwarded"), 0, &OfAll(family));
        let messages = self.execute(batch)?;
        let attributes = messages.first().and_then(|message| message.payload.get(HEADER..));
        let forwarding = attributes.and_then(|attributes| find(attributes, NETCONFA_FORWARDING));
        Ok(forwarding.and_then(u32_of).is_some_and(|value| value != 0))
    }
}

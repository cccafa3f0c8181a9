//! Addresses of links.

use std::net::IpAddr;

use ipnet::IpNet;
use netlink_packet_core::{NLM_F_CREATE, NLM_F_EXCL, NLM_F_REPLACE};
use netlink_packet_route::RouteNetlinkMessage;
use netlink_packet_route::address::{AddressAttribute, AddressFlags, AddressMessage, AddressScope};

use crate::attribute::{address_of, attributes, u32_at, u32_of};
use crate::route::family_of;
use crate::{Batch, Error, Message, Socket};

/// `RTM_NEWADDR`, `RTM_DELADDR`.
const RTM_NEWADDR: u16 = 20;
const RTM_DELADDR: u16 = 21;
/// The length of `struct ifaddrmsg`.
const HEADER: usize = 8;

const IFA_ADDRESS: u16 = 1;
const IFA_LOCAL: u16 = 2;
const IFA_FLAGS: u16 = 8;
/// `RT_SCOPE_UNIVERSE`.
const UNIVERSE: u8 = 0;

/// An address of a link.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Address {
    /// The index of the link.
    pub link: u32,
    /// The address, with the length of its network's prefix.
    pub address: IpNet,
    /// Whether it is of use beyond the link and the host.
    pub global: bool,
    /// Whether it may be used: it is not, or not yet, known to be somebody else's.
    pub usable: bool,
    /// Whether this is about its removal: of a change that was told.
    pub removed: bool,
}

/// How an address is added.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct AddressOptions {
    /// Without a route to its network (`IFA_F_NOPREFIXROUTE`).
    pub no_prefix_route: bool,
    /// IPv6: whether to ask before it is used if somebody else has it. Without it is usable at once (`IFA_F_NODAD`).
    pub detect_duplicates: bool,
    /// Whether to fail when the link has it.
    pub exclusive: bool,
}

// === impl Address ===

impl Address {
    /// Reads what the kernel tells of one, or of a change. `None` when the message is of something else.
    pub fn read(message: &Message) -> Option<Self> {
        Self::read_parts(message.kind, &message.payload)
    }

    /// As [`Address::read`], of what a subscription tells.
    pub fn read_parts(kind: u16, payload: &[u8]) -> Option<Self> {
        if kind != RTM_NEWADDR && kind != RTM_DELADDR {
            return None;
        }
        let &[_, prefix, flags, scope, ..] = payload else { return None };
        let (mut local, mut remote, mut flags) = (None, None, u32::from(flags));
        for (kind, value) in attributes(payload.get(HEADER..)?) {
            match kind {
                IFA_ADDRESS => remote = address_of(value),
                IFA_LOCAL => local = address_of(value),
                IFA_FLAGS => flags = u32_of(value)?,
                _ => {}
            }
        }
        let flags = AddressFlags::from_bits_retain(flags);
        Some(Self {
            link: u32_at(payload, 4)?,
            // That of a point-to-point link's other side stands beside one's own.
            address: IpNet::new(local.or(remote)?, prefix).ok()?,
            global: scope == UNIVERSE,
            usable: !flags.intersects(AddressFlags::Tentative | AddressFlags::Dadfailed),
            removed: kind == RTM_DELADDR,
        })
    }
}

// === impl Batch ===

impl Batch {
    /// Gives a link an address. What it has already stays as it is.
    pub fn add_address(&mut self, link: u32, address: IpNet, options: AddressOptions) -> usize {
        let mut message = about(link, address);
        let mut flags = AddressFlags::empty();
        flags.set(AddressFlags::Noprefixroute, options.no_prefix_route);
        flags.set(AddressFlags::Nodad, address.addr().is_ipv6() && !options.detect_duplicates);
        if !flags.is_empty() {
            message.attributes.push(AddressAttribute::Flags(flags));
        }
        if let IpNet::V4(address) = address
            && address.prefix_len() < 31
        {
            message.attributes.push(AddressAttribute::Broadcast(address.broadcast()));
        }
        let existing = if options.exclusive { NLM_F_EXCL } else { NLM_F_REPLACE };
        self.push(
            format!("add the address {address} to interface {link}"),
            NLM_F_CREATE | existing,
            &RouteNetlinkMessage::NewAddress(message),
        )
    }

    /// Takes an address from a link.
    pub fn delete_address(&mut self, link: u32, address: IpNet) -> usize {
        let what = format!("delete the address {address} of interface {link}");
        self.push(what, 0, &RouteNetlinkMessage::DelAddress(about(link, address)))
    }
}

fn about(link: u32, address: IpNet) -> AddressMessage {
    let mut message = AddressMessage::default();
    message.header.family = family_of(address.addr());
    message.header.prefix_len = address.prefix_len();
    message.header.index = link;
    message.header.scope = scope_of(address.addr());
    message.attributes =
        vec![AddressAttribute::Local(address.addr()), AddressAttribute::Address(address.addr())];
    message
}

fn scope_of(address: IpAddr) -> AddressScope {
    match address {
        IpAddr::V4(address) if address.is_loopback() => AddressScope::Host,
        IpAddr::V4(address) if address.is_link_local() => AddressScope::Link,
        // The kernel finds it out for itself.
        _ => AddressScope::Universe,
    }
}

// === impl Socket ===

impl Socket {
    /// Addresses of one link, or of all. Of one it costs nothing that there are others.
    ///
    /// # Errors
    /// As [`Socket::dump`].
    pub fn addresses(&mut self, link: Option<u32>) -> Result<Vec<Address>, Error> {
        let mut message = AddressMessage::default();
        message.header.index = link.unwrap_or_default();
        let messages = self.dump("list addresses", &RouteNetlinkMessage::GetAddress(message))?;
        Ok(messages.iter().filter_map(Address::read).collect())
    }
}

//! Links: interfaces of any kind.

mod change;
mod create;

use netlink_packet_route::RouteNetlinkMessage;
use netlink_packet_route::link::{LinkAttribute, LinkExtentMask, LinkFlags, LinkMessage};
use rustix::io::Errno;

use crate::attribute::{attributes, find, string_of, u32_at, u32_of};
use crate::{Batch, Error, MacAddress, Message, Socket};

pub use change::LinkChange;
pub use create::{Bridge, Peer, Veth};

/// `RTM_NEWLINK`.
const RTM_NEWLINK: u16 = 16;
/// The length of `struct ifinfomsg`.
const HEADER: usize = 16;

const IFLA_ADDRESS: u16 = 1;
const IFLA_IFNAME: u16 = 3;
const IFLA_MTU: u16 = 4;
const IFLA_LINK: u16 = 5;
const IFLA_MASTER: u16 = 10;
const IFLA_TXQLEN: u16 = 13;
const IFLA_LINKINFO: u16 = 18;
const IFLA_IFALIAS: u16 = 20;
const IFLA_INFO_KIND: u16 = 1;
const IFLA_INFO_DATA: u16 = 2;
const IFLA_INFO_SLAVE_DATA: u16 = 5;
const IFLA_BR_VLAN_FILTERING: u16 = 7;
const IFLA_BRPORT_MODE: u16 = 4;
const IFLA_BRPORT_ISOLATED: u16 = 33;

/// Which link is meant.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LinkId<'a> {
    /// The one of this name.
    Name(&'a str),
    /// The one of this index.
    Index(u32),
}

/// A link, as far as anybody asks.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Link {
    /// Its index in its network namespace.
    pub index: u32,
    /// Its name.
    pub name: String,
    /// `veth`, `bridge`, `ifb`; empty for hardware and for the loopback interface.
    pub kind: String,
    /// Its hardware address, if it is one of Ethernet's form.
    pub mac: Option<MacAddress>,
    /// In bytes.
    pub mtu: u32,
    /// In packets.
    pub transmit_queue_length: u32,
    /// Whether it is up, as configured.
    pub up: bool,
    /// Whether it was made promiscuous by configuration.
    pub promiscuous: bool,
    /// Whether it takes all multicast by configuration.
    pub all_multicast: bool,
    /// The index of the bridge it is a port of.
    pub controller: Option<u32>,
    /// The index of a veth's other end, in that end's network namespace.
    pub peer: Option<u32>,
    /// `ifalias`.
    pub alias: String,
    /// Of a bridge's port: whether what came from it may go back to it.
    pub hairpin: bool,
    /// Of a bridge's port: whether it is kept from other isolated ports.
    pub isolated: bool,
    /// Of a bridge: whether it looks at VLANs.
    pub vlan_filtering: bool,
}

// === impl LinkId ===

impl LinkId<'_> {
    /// A message about the link.
    fn message(self) -> LinkMessage {
        let mut message = LinkMessage::default();
        match self {
            Self::Name(name) => message.attributes.push(LinkAttribute::IfName(name.to_owned())),
            Self::Index(index) => message.header.index = index,
        }
        message
    }
}

impl std::fmt::Display for LinkId<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Name(name) => f.write_str(name),
            Self::Index(index) => write!(f, "interface {index}"),
        }
    }
}

// === impl Link ===

impl Link {
    /// Reads what the kernel tells of one. `None` when the message is of something else.
    pub fn read(message: &Message) -> Option<Self> {
        if message.kind != RTM_NEWLINK {
            return None;
        }
        let flags = LinkFlags::from_bits_retain(u32_at(&message.payload, 8)?);
        let mut link = Self {
            index: u32_at(&message.payload, 4)?,
            up: flags.contains(LinkFlags::Up),
            promiscuous: flags.contains(LinkFlags::Promisc),
            all_multicast: flags.contains(LinkFlags::Allmulti),
            ..Self::default()
        };
        for (kind, value) in attributes(message.payload.get(HEADER..)?) {
            match kind {
                IFLA_ADDRESS => link.mac = value.try_into().ok().map(MacAddress),
                IFLA_IFNAME => link.name = string_of(value),
                IFLA_MTU => link.mtu = u32_of(value)?,
                IFLA_LINK => link.peer = u32_of(value),
                IFLA_MASTER => link.controller = u32_of(value),
                IFLA_TXQLEN => link.transmit_queue_length = u32_of(value)?,
                IFLA_IFALIAS => link.alias = string_of(value),
                IFLA_LINKINFO => link.read_info(value),
                _ => {}
            }
        }
        Some(link)
    }

    fn read_info(&mut self, info: &[u8]) {
        let on = |data: Option<&[u8]>, attribute| {
            data.and_then(|data| find(data, attribute)).is_some_and(|value| value.first() == Some(&1))
        };
        self.kind = find(info, IFLA_INFO_KIND).map(string_of).unwrap_or_default();
        let port = find(info, IFLA_INFO_SLAVE_DATA);
        self.hairpin = on(port, IFLA_BRPORT_MODE);
        self.isolated = on(port, IFLA_BRPORT_ISOLATED);
        if self.kind == "bridge" {
            self.vlan_filtering = on(find(info, IFLA_INFO_DATA), IFLA_BR_VLAN_FILTERING);
        }
    }
}

// === impl Batch ===

impl Batch {
    /// Asks for a link: its answer is a [`Message`] with the place this tells, for [`Link::read`].
    pub fn get_link(&mut self, link: LinkId<'_>) -> usize {
        let mut message = link.message();
        message.attributes.push(LinkAttribute::ExtMask(vec![LinkExtentMask::SkipStats]));
        self.push(format!("get {link}"), 0, &RouteNetlinkMessage::GetLink(message))
    }

    /// Removes a link; of a veth pair both ends. Waits in the kernel for a grace period, some ten milliseconds.
    pub fn delete_link(&mut self, link: LinkId<'_>) -> usize {
        self.push(format!("delete {link}"), 0, &RouteNetlinkMessage::DelLink(link.message()))
    }
}

// === impl Socket ===

impl Socket {
    /// The link of a name or an index; `None` if there is none.
    ///
    /// # Errors
    /// As [`Socket::execute`].
    pub fn link(&mut self, link: LinkId<'_>) -> Result<Option<Link>, Error> {
        let mut batch = Batch::new();
        let asked = batch.get_link(link);
        let outcome = self.attempt(batch)?.tolerate(asked, Errno::NODEV);
        Ok(outcome.into_result()?.iter().find_map(Link::read))
    }

    /// Removes a link, if it is there.
    ///
    /// # Errors
    /// As [`Socket::execute`].
    pub fn remove_link(&mut self, link: LinkId<'_>) -> Result<(), Error> {
        let mut batch = Batch::new();
        let asked = batch.delete_link(link);
        self.attempt(batch)?.tolerate(asked, Errno::NODEV).into_result().map(drop)
    }

    /// All links of the namespace. Costs as much as there are.
    ///
    /// # Errors
    /// As [`Socket::dump`].
    pub fn links(&mut self) -> Result<Vec<Link>, Error> {
        let mut message = LinkMessage::default();
        message.attributes.push(LinkAttribute::ExtMask(vec![LinkExtentMask::SkipStats]));
        let messages = self.dump("list interfaces", &RouteNetlinkMessage::GetLink(message))?;
        Ok(messages.iter().filter_map(Link::read).collect())
    }
}

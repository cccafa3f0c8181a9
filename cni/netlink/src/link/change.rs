//! What changes links.

use std::os::fd::{AsRawFd as _, BorrowedFd};

use netlink_packet_route::RouteNetlinkMessage;
use netlink_packet_route::link::{
    InfoBridge, InfoBridgePort, InfoData, InfoKind, InfoPortData, InfoPortKind, LinkAttribute, LinkFlags,
    LinkInfo,
};

use crate::{Batch, LinkId, MacAddress};

/// What is to be changed of a link: what is absent stays.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct LinkChange<'a> {
    /// Whether it is up.
    pub up: Option<bool>,
    /// Whether it is promiscuous.
    pub promiscuous: Option<bool>,
    /// Whether it takes all multicast.
    pub all_multicast: Option<bool>,
    /// Its hardware address. That it is set is told to the neighbours where `arp_notify` and `ndisc_notify` say so, even
    /// if it is the same.
    pub mac: Option<MacAddress>,
    /// In bytes.
    pub mtu: Option<u32>,
    /// In packets.
    pub transmit_queue_length: Option<u32>,
    /// The bridge it is a port of, by its index; 0 for none.
    pub controller: Option<u32>,
    /// `ifalias`: 255 bytes at most.
    pub alias: Option<&'a str>,
    /// Of a bridge's port: whether what came from it may go back to it.
    pub hairpin: Option<bool>,
    /// Of a bridge's port: whether it is kept from other isolated ports.
    pub isolated: Option<bool>,
    /// Of a bridge: whether it looks at VLANs.
    pub vlan_filtering: Option<bool>,
}

// === impl Batch ===

impl Batch {
    /// Moves a link into another network namespace (an open `/proc/<pid>/ns/net`), where it gets that name. It is down
    /// there, and has no address. Refused with `EEXIST` where another has the name, with `EINVAL` for what cannot be moved.
    pub fn move_link(&mut self, link: LinkId<'_>, name: &str, namespace: BorrowedFd<'_>) -> usize {
        let mut message = link.message();
        message.attributes.push(LinkAttribute::IfName(name.to_owned()));
        message.attributes.push(LinkAttribute::NetNsFd(namespace.as_raw_fd()));
        self.push(
            format!("move {link} into another namespace, as {name}"),
            0,
            &RouteNetlinkMessage::NewLink(message),
        )
    }

    /// Gives a link, which must be down before Linux 6.2, another name.
    pub fn rename_link(&mut self, link: LinkId<'_>, name: &str) -> usize {
        let mut message = link.message();
        message.attributes.push(LinkAttribute::IfName(name.to_owned()));
        self.push(format!("rename {link} to {name}"), 0, &RouteNetlinkMessage::NewLink(message))
    }

    /// Changes a link.
    pub fn change_link(&mut self, link: LinkId<'_>, change: &LinkChange<'_>) -> usize {
        let mut message = link.message();
        let flags = [
            (change.up, LinkFlags::Up),
            (change.promiscuous, LinkFlags::Promisc),
            (change.all_multicast, LinkFlags::Allmulti),
        ];
        for (wanted, flag) in flags {
            let Some(wanted) = wanted else { continue };
            message.header.change_mask |= flag;
            message.header.flags.set(flag, wanted);
        }
        let attributes = [
            change.mac.map(|mac| LinkAttribute::Address(mac.0.to_vec())),
            change.mtu.map(LinkAttribute::Mtu),
            change.transmit_queue_length.map(LinkAttribute::TxQueueLen),
            change.controller.map(LinkAttribute::Controller),
            change.alias.map(|alias| LinkAttribute::IfAlias(alias.to_owned())),
        ];
        message.attributes.extend(attributes.into_iter().flatten());
        let port =
            [change.hairpin.map(InfoBridgePort::HairpinMode), change.isolated.map(InfoBridgePort::Isolated)];
        let port: Vec<_> = port.into_iter().flatten().collect();
        let mut info = Vec::new();
        if let Some(filtering) = change.vlan_filtering {
            info.push(LinkInfo::Kind(InfoKind::Bridge));
            info.push(LinkInfo::Data(InfoData::Bridge(vec![InfoBridge::VlanFiltering(filtering)])));
        }
        if !port.is_empty() {
            info.push(LinkInfo::PortKind(InfoPortKind::Bridge));
            info.push(LinkInfo::PortData(InfoPortData::BridgePort(port)));
        }
        if !info.is_empty() {
            message.attributes.push(LinkAttribute::LinkInfo(info));
        }
        // Unlike RTM_SETLINK it knows of bridges and of ports of them.
        self.push(format!("change {link}"), 0, &RouteNetlinkMessage::NewLink(message))
    }
}

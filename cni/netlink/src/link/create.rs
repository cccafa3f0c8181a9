//! What makes links.

use std::os::fd::{AsRawFd, BorrowedFd};

use netlink_packet_core::{NLM_F_CREATE, NLM_F_EXCL};
use netlink_packet_route::RouteNetlinkMessage;
use netlink_packet_route::link::{
    InfoBridge, InfoData, InfoKind, InfoVeth, LinkAttribute, LinkFlags, LinkInfo, LinkMessage,
};

use crate::{Batch, MacAddress};

/// A pair of interfaces of which each receives what the other one sends.
#[derive(Clone, Copy, Debug)]
pub struct Veth<'a> {
    /// The name of the near end, in the namespace of the socket.
    pub name: &'a str,
    /// The bridge the near end is a port of, by its index.
    pub controller: Option<u32>,
    /// Of both ends, in bytes; the kernel's default where absent.
    pub mtu: Option<u32>,
    /// The far end.
    pub peer: Peer<'a>,
}

/// The far end of a veth pair. It is down: the kernel brings nothing up that has no other end yet.
#[derive(Clone, Copy, Debug)]
pub struct Peer<'a> {
    /// Its name.
    pub name: &'a str,
    /// The network namespace it is made in.
    pub namespace: BorrowedFd<'a>,
    /// Its hardware address; one by chance where absent.
    pub mac: Option<MacAddress>,
}

/// A bridge.
#[derive(Clone, Copy, Debug)]
pub struct Bridge<'a> {
    /// Its name.
    pub name: &'a str,
    /// Its hardware address. A bridge without one of its own takes that of one of its ports, which come and go.
    pub mac: MacAddress,
    /// In bytes; the kernel's default where absent.
    pub mtu: Option<u32>,
    /// Whether it looks at VLANs. Only said where it is to: a kernel without VLANs refuses to hear of it.
    pub vlan_filtering: bool,
}

// === impl Batch ===

impl Batch {
    /// Makes a veth pair, the near end up and a port of its bridge.
    pub fn create_veth(&mut self, veth: &Veth<'_>) -> usize {
        let mut peer = LinkMessage::default();
        peer.attributes = vec![
            LinkAttribute::IfName(veth.peer.name.to_owned()),
            LinkAttribute::NetNsFd(veth.peer.namespace.as_raw_fd()),
        ];
        peer.attributes.extend(veth.peer.mac.map(|mac| LinkAttribute::Address(mac.0.to_vec())));
        peer.attributes.extend(veth.mtu.map(LinkAttribute::Mtu));
        let info = vec![LinkInfo::Kind(InfoKind::Veth), LinkInfo::Data(InfoData::Veth(InfoVeth::Peer(peer)))];
        let mut message = named(veth.name, info);
        set_up(&mut message);
        message.attributes.extend(veth.mtu.map(LinkAttribute::Mtu));
        message.attributes.extend(veth.controller.map(LinkAttribute::Controller));
        let what = format!("create the veth pair of {} and {}", veth.name, veth.peer.name);
        self.push(what, NLM_F_CREATE | NLM_F_EXCL, &RouteNetlinkMessage::NewLink(message))
    }

    /// Makes a bridge, and brings it up.
    pub fn create_bridge(&mut self, bridge: &Bridge<'_>) -> usize {
        let mut info = vec![LinkInfo::Kind(InfoKind::Bridge)];
        if bridge.vlan_filtering {
            info.push(LinkInfo::Data(InfoData::Bridge(vec![InfoBridge::VlanFiltering(true)])));
        }
        let mut message = named(bridge.name, info);
        set_up(&mut message);
        message.attributes.push(LinkAttribute::Address(bridge.mac.0.to_vec()));
        message.attributes.extend(bridge.mtu.map(LinkAttribute::Mtu));
        let what = format!("create the bridge {}", bridge.name);
        self.push(what, NLM_F_CREATE | NLM_F_EXCL, &RouteNetlinkMessage::NewLink(message))
    }

    /// Makes an interface that sends what is redirected to it back to where that came from, and brings it up: so what
    /// comes in can wait in a queue.
    pub fn create_ifb(&mut self, name: &str, mtu: u32) -> usize {
        let mut message = named(name, vec![LinkInfo::Kind(InfoKind::Ifb)]);
        set_up(&mut message);
        message.attributes.push(LinkAttribute::Mtu(mtu));
        let what = format!("create the intermediate functional block {name}");
        self.push(what, NLM_F_CREATE | NLM_F_EXCL, &RouteNetlinkMessage::NewLink(message))
    }
}

fn named(name: &str, info: Vec<LinkInfo>) -> LinkMessage {
    let mut message = LinkMessage::default();
    message.attributes = vec![LinkAttribute::IfName(name.to_owned()), LinkAttribute::LinkInfo(info)];
    message
}

fn set_up(message: &mut LinkMessage) {
    message.header.flags |= LinkFlags::Up;
    message.header.change_mask |= LinkFlags::Up;
}

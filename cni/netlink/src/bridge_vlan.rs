//! VLANs of a bridge's ports.

use std::ops::RangeInclusive;

use netlink_packet_route::link::{
    AfSpecBridge, BridgeVlanInfo, BridgeVlanInfoFlags, LinkAttribute, LinkMessage,
};
use netlink_packet_route::{AddressFamily, RouteNetlinkMessage};

use crate::Batch;

// === impl Batch ===

impl Batch {
    /// Puts a port into a VLAN: what comes in without a tag is of it, and what is of it goes out without one.
    pub fn add_port_vlan(&mut self, port: u32, vlan: u16) -> usize {
        let vlan_info = info(BridgeVlanInfoFlags::Pvid | BridgeVlanInfoFlags::Untagged, vlan);
        let message = RouteNetlinkMessage::SetLink(about(port, vec![vlan_info]));
        self.push(format!("put interface {port} into VLAN {vlan}"), 0, &message)
    }

    /// Lets a port carry VLANs with their tags.
    pub fn add_port_trunk(&mut self, port: u32, vlans: &RangeInclusive<u16>) -> usize {
        let (first, last) = (*vlans.start(), *vlans.end());
        let infos = if first == last {
            vec![info(BridgeVlanInfoFlags::empty(), first)]
        } else {
            vec![info(BridgeVlanInfoFlags::RangeBegin, first), info(BridgeVlanInfoFlags::RangeEnd, last)]
        };
        let message = RouteNetlinkMessage::SetLink(about(port, infos));
        self.push(format!("let interface {port} carry the VLANs {first} to {last}"), 0, &message)
    }

    /// Takes a port out of a VLAN.
    pub fn delete_port_vlan(&mut self, port: u32, vlan: u16) -> usize {
        let infos = vec![info(BridgeVlanInfoFlags::empty(), vlan)];
        let message = RouteNetlinkMessage::DelLink(about(port, infos));
        self.push(format!("take interface {port} out of VLAN {vlan}"), 0, &message)
    }
}

fn info(flags: BridgeVlanInfoFlags, vid: u16) -> AfSpecBridge {
    AfSpecBridge::VlanInfo(BridgeVlanInfo { flags, vid })
}

fn about(port: u32, infos: Vec<AfSpecBridge>) -> LinkMessage {
    let mut message = LinkMessage::default();
    message.header.interface_family = AddressFamily::Bridge;
    message.header.index = port;
    message.attributes.push(LinkAttribute::AfSpecBridge(infos));
    message
}

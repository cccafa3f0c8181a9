//! What a pod's namespace says of an attachment whose file is torn.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::os::fd::AsFd as _;

use coracle_cni::{AddResult, Interface, IpConfig, NetworkNamespace, Route};
use coracle_netlink::{Error, Message, Protocol, Socket};
use ipnet::IpNet;
use netlink_packet_core::ParseableParametrized as _;
use netlink_packet_route::RouteNetlinkMessage;
use netlink_packet_route::address::{AddressAttribute, AddressMessage, AddressScope};
use netlink_packet_route::link::{LinkAttribute, LinkMessage};
use netlink_packet_route::route::{RouteAddress, RouteAttribute, RouteHeader, RouteMessage, RouteType};

use super::attachment::IFNAME;
use super::{Attach, Attached, Network};
use crate::NetworkError;

// === impl Network ===

impl Network {
    /// What a sandbox has that runs already. Where nothing usable is on record of it, its namespace is asked, and what is
    /// found is put on record; without a namespace, or an address in it, the sandbox counts as not attached.
    ///
    /// # Errors
    /// The namespace could not be looked at, or the record not be written.
    pub fn adopt(&self, attach: &Attach<'_>) -> Result<Option<Attached>, NetworkError> {
        let id = attach.id();
        self.in_turn(&id, || {
            let known = self.of(&id);
            // One that names its network was read whole: what it does not say was not there.
            if let Some(known) = known.filter(|known| known.list.is_some()) {
                return Ok(known.attached());
            }
            let netns = NetworkNamespace::new(attach.netns);
            if !netns.path().exists() {
                return Ok(None);
            }
            let Some(result) = found_in(&netns)? else { return Ok(None) };
            // A configuration that cannot be used now is no reason to lose the addresses.
            let list = self.network().or_else(|_| self.default_network())?;
            let mut attachment = self.asked_for(attach, list)?;
            attachment.result = Some(result);
            self.record(&id, &attachment)?;
            tracing::info!(pod = attachment.pod, "read a pod's addresses back from its network namespace");
            Ok(attachment.attached())
        })
    }
}

/// The pod's interface with its addresses and routes, as the result of an ADD.
fn found_in(netns: &NetworkNamespace) -> Result<Option<AddResult>, NetworkError> {
    let namespace = netns.open().map_err(NetworkError::io("open", netns.path()))?;
    let failed = |source| NetworkError::Namespace { path: netns.path().to_owned(), source };
    let mut socket = Socket::open_in(Protocol::Route, namespace.as_fd()).map_err(failed)?;

    let links = dump(&mut socket, "list interfaces", RouteNetlinkMessage::GetLink(LinkMessage::default()))
        .map_err(failed)?;
    let link = links.into_iter().find_map(|message| match message {
        RouteNetlinkMessage::NewLink(link) if name_of(&link) == Some(IFNAME) => Some(link),
        _ => None,
    });
    let Some(link) = link else { return Ok(None) };

    let routes = dump(&mut socket, "list routes", RouteNetlinkMessage::GetRoute(RouteMessage::default()))
        .map_err(failed)?;
    let routes: Vec<Route> =
        routes.iter().filter_map(|message| route_of(message, link.header.index)).collect();

    let addresses =
        dump(&mut socket, "list addresses", RouteNetlinkMessage::GetAddress(AddressMessage::default()))
            .map_err(failed)?;
    let gateway = |address: &IpNet| {
        let way_out = |route: &&Route| {
            route.dst.prefix_len() == 0 && route.dst.addr().is_ipv4() == address.addr().is_ipv4()
        };
        routes.iter().find(way_out)?.gw
    };
    let ips: Vec<IpConfig> = addresses
        .iter()
        .filter_map(|message| address_of(message, link.header.index))
        .map(|address| IpConfig { interface: Some(0), address, gateway: gateway(&address) })
        .collect();
    if ips.is_empty() {
        return Ok(None);
    }
    let interface = Interface {
        name: IFNAME.to_owned(),
        mac: mac_of(&link),
        sandbox: netns.path().display().to_string(),
        ..Interface::default()
    };
    Ok(Some(AddResult { interfaces: vec![interface], ips, routes, ..AddResult::default() }))
}

fn dump(
    socket: &mut Socket,
    what: &'static str,
    message: RouteNetlinkMessage,
) -> Result<Vec<RouteNetlinkMessage>, Error> {
    let parsed =
        |message: Message| RouteNetlinkMessage::parse_with_param(&message.payload, message.kind).ok();
    Ok(socket.dump(what, &message)?.into_iter().filter_map(parsed).collect())
}

fn name_of(link: &LinkMessage) -> Option<&str> {
    link.attributes.iter().find_map(|attribute| match attribute {
        LinkAttribute::IfName(name) => Some(name.as_str()),
        _ => None,
    })
}

fn mac_of(link: &LinkMessage) -> String {
    let mac = link.attributes.iter().find_map(|attribute| match attribute {
        LinkAttribute::Address(mac) => {
            Some(mac.iter().map(|byte| format!("{byte:02x}")).collect::<Vec<_>>().join(":"))
        }
        _ => None,
    });
    mac.unwrap_or_default()
}

/// An address of this interface that others can reach.
fn address_of(message: &RouteNetlinkMessage, index: u32) -> Option<IpNet> {
    let RouteNetlinkMessage::NewAddress(message) = message else { return None };
    if message.header.index != index || message.header.scope != AddressScope::Universe {
        return None;
    }
    let (mut local, mut address) = (None, None);
    for attribute in &message.attributes {
        match attribute {
            AddressAttribute::Local(ip) => local = Some(*ip),
            AddressAttribute::Address(ip) => address = Some(*ip),
            _ => {}
        }
    }
    IpNet::new(local.or(address)?, message.header.prefix_len).ok()
}

/// A route over this interface that has a gateway: the others come with the addresses.
fn route_of(message: &RouteNetlinkMessage, index: u32) -> Option<Route> {
    let RouteNetlinkMessage::NewRoute(message) = message else { return None };
    let RouteMessage { header, attributes, .. } = message;
    if header.kind != RouteType::Unicast || header.table != RouteHeader::RT_TABLE_MAIN {
        return None;
    }
    let ip = |address: &RouteAddress| match address {
        RouteAddress::Inet(ip) => Some(IpAddr::from(*ip)),
        RouteAddress::Inet6(ip) => Some(IpAddr::from(*ip)),
        _ => None,
    };
    let (mut over, mut gw, mut dst) = (None, None, None);
    for attribute in attributes {
        match attribute {
            RouteAttribute::Oif(index) => over = Some(*index),
            RouteAttribute::Gateway(address) => gw = ip(address),
            RouteAttribute::Destination(address) => dst = ip(address),
            _ => {}
        }
    }
    let gw = gw.filter(|_| over == Some(index))?;
    let anywhere =
        if gw.is_ipv4() { IpAddr::from(Ipv4Addr::UNSPECIFIED) } else { Ipv6Addr::UNSPECIFIED.into() };
    let dst = IpNet::new(dst.unwrap_or(anywhere), header.destination_prefix_length).ok()?;
    Some(Route { dst, gw: Some(gw), mtu: None, advmss: None, priority: None, table: None, scope: None })
}

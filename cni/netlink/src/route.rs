//! Routes.

use std::net::IpAddr;

use ipnet::IpNet;
use netlink_packet_core::{NLM_F_CREATE, NLM_F_EXCL, NLM_F_REPLACE};
use netlink_packet_route::route::{
    RouteAddress, RouteAttribute, RouteFlags, RouteHeader, RouteMessage, RouteMetric, RouteProtocol,
    RouteScope, RouteType,
};
use netlink_packet_route::{AddressFamily, RouteNetlinkMessage};
use rustix::io::Errno;

use crate::attribute::{address_of, find, u32_at, u32_of};
use crate::{Batch, Error, Message, Socket};

/// `RTM_NEWROUTE`.
const RTM_NEWROUTE: u16 = 24;
/// The length of `struct rtmsg`.
const HEADER: usize = 12;

const RTA_DST: u16 = 1;
const RTA_OIF: u16 = 4;
const RTA_GATEWAY: u16 = 5;
const RTA_PRIORITY: u16 = 6;
const RTA_PREFSRC: u16 = 7;
const RTA_METRICS: u16 = 8;
const RTA_MULTIPATH: u16 = 9;
const RTA_TABLE: u16 = 15;
const RTAX_MTU: u16 = 2;
const RTAX_ADVMSS: u16 = 8;
/// `RTN_UNICAST`.
const UNICAST: u8 = 1;
/// `RT_TABLE_MAIN`.
const MAIN: u32 = 254;

/// A route.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Route {
    /// Where it leads.
    pub destination: IpNet,
    /// The link it leaves by, as an index; the first one where it has several.
    pub link: Option<u32>,
    /// Over which gateway.
    pub gateway: Option<IpAddr>,
    /// Which address of the link's what leaves by it has, if its sender has not chosen one.
    pub source: Option<IpAddr>,
    /// Whether the gateway is believed to be on the link, although no address of the link says so.
    pub on_link: bool,
    /// In bytes.
    pub mtu: Option<u32>,
    /// The segment size to tell, in bytes.
    pub advmss: Option<u32>,
    /// Lower ones go first.
    pub priority: Option<u32>,
    /// The main table where absent.
    pub table: Option<u32>,
    /// rtnetlink(7)'s scope. Where absent: the link's without a gateway, the universe's with one.
    pub scope: Option<u8>,
}

// === impl Route ===

impl Route {
    /// To a destination, by a link and over a gateway, if one is given.
    pub fn new(destination: IpNet, link: u32, gateway: Option<IpAddr>) -> Self {
        Self {
            destination,
            link: Some(link),
            gateway,
            source: None,
            on_link: false,
            mtu: None,
            advmss: None,
            priority: None,
            table: None,
            scope: None,
        }
    }

    /// Reads what the kernel tells of one. `None` when the message is of something else, or of a route that leads to
    /// this host itself or nowhere.
    pub fn read(message: &Message) -> Option<Self> {
        if message.kind != RTM_NEWROUTE {
            return None;
        }
        let &[family, prefix, _, _, table, _, scope, kind, ..] = message.payload.as_slice() else {
            return None;
        };
        if kind != UNICAST {
            return None;
        }
        let anywhere = match AddressFamily::from(family) {
            AddressFamily::Inet => IpAddr::from([0; 4]),
            AddressFamily::Inet6 => IpAddr::from([0; 16]),
            _ => return None,
        };
        let attached = message.payload.get(HEADER..)?;
        let number = |attribute| find(attached, attribute).and_then(u32_of);
        let metrics = find(attached, RTA_METRICS).unwrap_or_default();
        let address = |attribute| find(attached, attribute).and_then(address_of);
        Some(Self {
            destination: IpNet::new(address(RTA_DST).unwrap_or(anywhere), prefix).ok()?,
            link: number(RTA_OIF).or_else(|| u32_at(find(attached, RTA_MULTIPATH)?, 4)),
            gateway: address(RTA_GATEWAY),
            source: address(RTA_PREFSRC),
            on_link: false,
            mtu: find(metrics, RTAX_MTU).and_then(u32_of),
            advmss: find(metrics, RTAX_ADVMSS).and_then(u32_of),
            priority: number(RTA_PRIORITY),
            table: number(RTA_TABLE).or(Some(table.into())),
            scope: Some(scope),
        })
    }

    /// Whether it leads everywhere.
    pub fn is_default(&self) -> bool {
        self.destination.prefix_len() == 0
    }

    fn message(&self) -> RouteMessage {
        let mut message = RouteMessage::default();
        let table = self.table.unwrap_or(MAIN);
        let on_link = if self.on_link { RouteFlags::Onlink } else { RouteFlags::empty() };
        let scope = match (self.scope, self.gateway) {
            (Some(scope), _) => RouteScope::from(scope),
            // IPv6 has no scopes of routes.
            (None, None) if self.destination.addr().is_ipv4() => RouteScope::Link,
            (None, _) => RouteScope::Universe,
        };
        message.header = RouteHeader {
            address_family: family_of(self.destination.addr()),
            destination_prefix_length: self.destination.prefix_len(),
            table: u8::try_from(table).unwrap_or(RouteHeader::RT_TABLE_UNSPEC),
            // As the reference plugins do, and `ip route`.
            protocol: RouteProtocol::Boot,
            scope,
            kind: RouteType::Unicast,
            flags: on_link,
            ..RouteHeader::default()
        };
        let metrics: Vec<_> = [self.mtu.map(RouteMetric::Mtu), self.advmss.map(RouteMetric::Advmss)]
            .into_iter()
            .flatten()
            .collect();
        let attributes = [
            (!self.is_default()).then(|| RouteAttribute::Destination(self.destination.network().into())),
            self.link.map(RouteAttribute::Oif),
            self.gateway.map(|gateway| RouteAttribute::Gateway(gateway.into())),
            self.source.map(|source| RouteAttribute::PrefSource(source.into())),
            self.priority.map(RouteAttribute::Priority),
            (table > u32::from(u8::MAX)).then_some(RouteAttribute::Table(table)),
            (!metrics.is_empty()).then_some(RouteAttribute::Metrics(metrics)),
        ];
        message.attributes = attributes.into_iter().flatten().collect();
        message
    }
}

/// The family of an address.
pub(crate) fn family_of(address: IpAddr) -> AddressFamily {
    if address.is_ipv4() { AddressFamily::Inet } else { AddressFamily::Inet6 }
}

// === impl Batch ===

impl Batch {
    /// Makes a route; fails with `EEXIST` where there is one to the same destination, of the same priority and table.
    pub fn add_route(&mut self, route: &Route) -> usize {
        self.put_route("add", NLM_F_CREATE | NLM_F_EXCL, route)
    }

    /// Makes a route, instead of one there may be to the same destination, of the same priority and table.
    pub fn replace_route(&mut self, route: &Route) -> usize {
        self.put_route("set", NLM_F_CREATE | NLM_F_REPLACE, route)
    }

    fn put_route(&mut self, verb: &str, flags: u16, route: &Route) -> usize {
        let over = route.gateway.map(|gateway| format!(" over {gateway}")).unwrap_or_default();
        let what = format!("{verb} the route to {}{over}", route.destination);
        self.push(what, flags, &RouteNetlinkMessage::NewRoute(route.message()))
    }

    /// Removes a route.
    pub fn delete_route(&mut self, route: &Route) -> usize {
        let what = format!("delete the route to {}", route.destination);
        self.push(what, 0, &RouteNetlinkMessage::DelRoute(route.message()))
    }

    /// Asks which route leads to an address: the answer is for [`Route::read`]. Costs the same with any number of
    /// routes.
    pub fn get_route(&mut self, to: IpAddr) -> usize {
        let mut message = RouteMessage::default();
        message.header.address_family = family_of(to);
        message.header.destination_prefix_length = IpNet::from(to).prefix_len();
        message.header.flags = RouteFlags::FibMatch;
        message.attributes.push(RouteAttribute::Destination(RouteAddress::from(to)));
        self.push(format!("get the route to {to}"), 0, &RouteNetlinkMessage::GetRoute(message))
    }
}

// === impl Socket ===

impl Socket {
    /// All routes of the main table, of both families. Costs as much as there are.
    ///
    /// # Errors
    /// As [`Socket::dump`].
    pub fn routes(&mut self) -> Result<Vec<Route>, Error> {
        let mut found = Vec::new();
        for family in [AddressFamily::Inet, AddressFamily::Inet6] {
            let mut message = RouteMessage::default();
            message.header.address_family = family;
            message.header.table = RouteHeader::RT_TABLE_MAIN;
            let messages = match self.dump("list routes", &RouteNetlinkMessage::GetRoute(message)) {
                // Nobody has made a route of this family yet, or the kernel does not know it.
                Err(error) if matches!(error.errno(), Some(Errno::NOENT | Errno::OPNOTSUPP)) => continue,
                messages => messages?,
            };
            let routes = messages.iter().filter_map(Route::read);
            // A kernel that knows no such question answers with more.
            found.extend(routes.filter(|route| route.table == Some(MAIN)));
        }
        Ok(found)
    }
}

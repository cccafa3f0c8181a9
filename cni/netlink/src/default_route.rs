//! What the way out of the host can carry.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use rustix::io::Errno;

use crate::{Batch, Error, Link, LinkId, Route, Socket};

/// Addresses for documentation (RFC 5737, RFC 3849), which no network has a route of its own for.
const ELSEWHERE: [IpAddr; 4] = [
    IpAddr::V4(Ipv4Addr::new(192, 0, 2, 1)),
    IpAddr::V4(Ipv4Addr::new(198, 51, 100, 1)),
    IpAddr::V4(Ipv4Addr::new(203, 0, 113, 1)),
    IpAddr::V6(Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 1)),
];

// === impl Socket ===

impl Socket {
    /// In bytes, what the default route can carry: the least of those of IPv4 and IPv6, `None` without any. Costs the
    /// same with any number of routes, where none of them leads to addresses for documentation.
    ///
    /// # Errors
    /// As [`Socket::execute`].
    pub fn default_route_mtu(&mut self) -> Result<Option<u32>, Error> {
        let mut batch = Batch::new();
        for address in ELSEWHERE {
            batch.get_route(address);
        }
        let outcome = self.attempt(batch)?;
        let mut routes: Vec<Route> = outcome.messages.iter().filter_map(Route::read).collect();
        let special = routes.iter().any(|route| !route.is_default())
            || outcome.failures.iter().any(|failure| failure.errno != Errno::NETUNREACH);
        if special {
            routes = self.routes()?;
            // Of several of a family the first one by priority is used.
            routes.sort_by_key(|route| route.priority);
        }
        let mut least: Option<u32> = None;
        for is_ipv4 in [true, false] {
            let mut of_family = routes.iter().filter(|route| route.destination.addr().is_ipv4() == is_ipv4);
            let Some(route) = of_family.find(|route| route.is_default()) else { continue };
            let carries = match (route.mtu, route.link) {
                (Some(mtu), _) => Some(mtu),
                (None, Some(link)) => self.link(LinkId::Index(link))?.map(|link: Link| link.mtu),
                (None, None) => None,
            };
            least = match (least, carries) {
                (Some(one), Some(other)) => Some(one.min(other)),
                (one, other) => one.or(other),
            };
        }
        Ok(least)
    }
}

//! The node's own addresses.

use std::collections::BTreeSet;
use std::convert::Infallible;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, UdpSocket};
use std::os::fd::AsFd;
use std::sync::Arc;

use coracle_linux::ReadinessFd;
use coracle_netlink::{Error, Protocol, Socket, Subscription};
use tokio::io::Interest;
use tokio::sync::watch;

/// Names of hosts nobody has (RFC 5737, RFC 3849): the way to them is the way to everywhere.
const ANYWHERE: [IpAddr; 2] =
    [IpAddr::V4(Ipv4Addr::new(192, 0, 2, 1)), IpAddr::V6(Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 1))];

/// What rtnetlink(7) tells of: links, and addresses and routes of both families (`RTNLGRP_LINK`,
/// `RTNLGRP_IPV4_IFADDR`, `RTNLGRP_IPV4_ROUTE`, `RTNLGRP_IPV6_IFADDR`, `RTNLGRP_IPV6_ROUTE`).
const GROUPS: [u32; 5] = [1, 5, 7, 9, 11];

/// The node's addresses: at most one of each family, the primary family first. Cheap to clone; all clones tell the
/// same.
#[derive(Clone, Debug)]
pub(crate) struct NodeAddresses {
    /// Those the node was told; found out where there are none. An unspecified one stands for the family that comes
    /// first.
    configured: Arc<[IpAddr]>,
    /// The default network's bridge: its addresses are for the pods.
    bridge: Arc<str>,
    now: watch::Sender<Arc<[IpAddr]>>,
}

// === impl NodeAddresses ===

impl NodeAddresses {
    /// Those that are configured, or what the host has now.
    pub(crate) fn new(configured: &[IpAddr], bridge: &str) -> Self {
        let now = watch::Sender::new(Arc::default());
        let addresses = Self { configured: configured.into(), bridge: bridge.into(), now };
        addresses.refresh();
        addresses
    }

    /// What they are. Answers from memory.
    pub(crate) fn now(&self) -> Arc<[IpAddr]> {
        Arc::clone(&self.now.borrow())
    }

    /// Whether IPv4 comes first.
    pub(crate) fn ipv4_first(&self) -> bool {
        self.now.borrow().iter().chain(&*self.configured).next().is_none_or(IpAddr::is_ipv4)
    }

    /// Asks the host again whenever the kernel tells of a change, and calls `changed` when they are others.
    ///
    /// # Errors
    /// Where the kernel cannot be listened to: they stay what they are.
    pub(crate) async fn follow(&self, changed: impl Fn()) -> Result<Infallible, io::Error> {
        let mut told = Subscription::open(Protocol::Route, None, &GROUPS).map_err(io::Error::other)?;
        let readable = ReadinessFd::new(told.as_fd().try_clone_to_owned()?, Interest::READABLE)?;
        loop {
            // First of all, what has changed before anybody listened.
            if self.refresh() {
                tracing::info!(addresses = ?self.now(), "the node's addresses have changed");
                changed();
            }
            readable.readable().await?.clear_ready();
            while told.take().map_err(io::Error::other)?.is_some() {}
        }
    }

    /// Asks the host again. Whether they have changed.
    fn refresh(&self) -> bool {
        let found = self.found();
        self.now.send_if_modified(|before| {
            let changed = *before != found;
            *before = found;
            changed
        })
    }

    fn found(&self) -> Arc<[IpAddr]> {
        let ipv6_first = match &*self.configured {
            [] => false,
            [first] if first.is_unspecified() => first.is_ipv6(),
            _ => return Arc::clone(&self.configured),
        };
        // As for the kubelet: that of the way to everywhere.
        let mut found: Vec<IpAddr> = ANYWHERE.into_iter().filter_map(source_address).collect();
        if found.is_empty() {
            found = self.of_interfaces().unwrap_or_else(|error| {
                tracing::warn!(%error, "the host's addresses cannot be read");
                Vec::new()
            });
        }
        found.sort_by_key(|address| address.is_ipv6() != ipv6_first);
        found.into()
    }

    /// A host without a way to everywhere: one address of each family that others on its networks can reach, of the
    /// first interface that is up and has one. Bridges are passed over: they are for what runs on the host.
    fn of_interfaces(&self) -> Result<Vec<IpAddr>, Error> {
        let mut socket = Socket::open(Protocol::Route)?;
        let links = socket.links()?.into_iter();
        let links = links.filter(|link| link.up && link.kind != "bridge" && *link.name != *self.bridge);
        let links: BTreeSet<u32> = links.map(|link| link.index).collect();
        let mut addresses = socket.addresses(None)?;
        addresses.retain(|address| {
            let loopback = address.address.addr().is_loopback();
            links.contains(&address.link) && address.global && address.usable && !loopback
        });
        addresses.sort_by_key(|address| address.link);
        let first = |ipv4: bool| {
            addresses.iter().map(|address| address.address.addr()).find(|address| address.is_ipv4() == ipv4)
        };
        Ok([true, false].into_iter().filter_map(first).collect())
    }
}

/// The address the host would send from. Connecting a datagram socket asks the routing table and sends
/// nothing.
fn source_address(to: IpAddr) -> Option<IpAddr> {
    let from: IpAddr = if to.is_ipv4() { Ipv4Addr::UNSPECIFIED.into() } else { Ipv6Addr::UNSPECIFIED.into() };
    let socket = UdpSocket::bind((from, 0)).ok()?;
    socket.connect((to, 9)).ok()?;
    let address = socket.local_addr().ok()?.ip();
    (!address.is_unspecified() && !address.is_loopback()).then_some(address)
}

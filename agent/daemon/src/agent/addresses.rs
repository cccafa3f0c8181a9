//! The node's own addresses.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, UdpSocket};
use std::sync::Arc;

use tokio::sync::watch;

/// Names of hosts nobody has (RFC 5737, RFC 3849): the way to them is the way to everywhere.
const ANYWHERE: [IpAddr; 2] =
    [IpAddr::V4(Ipv4Addr::new(192, 0, 2, 1)), IpAddr::V6(Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 1))];

/// The node's addresses: at most one of each family, the primary family first. Cheap to clone; all clones tell the
/// same.
#[derive(Clone, Debug)]
pub(crate) struct NodeAddresses {
    /// Those the node was told; found out where there are none.
    configured: Arc<[IpAddr]>,
    now: watch::Sender<Arc<[IpAddr]>>,
}

// === impl NodeAddresses ===

impl NodeAddresses {
    /// Those that are configured, or what the host has now.
    pub(crate) fn new(configured: &[IpAddr]) -> Self {
        let addresses = Self { configured: configured.into(), now: watch::Sender::new(Arc::default()) };
        addresses.refresh();
        addresses
    }

    /// What they are. Answers from memory.
    pub(crate) fn now(&self) -> Arc<[IpAddr]> {
        Arc::clone(&self.now.borrow())
    }

    /// Asks the host again. Whether they have changed.
    pub(crate) fn refresh(&self) -> bool {
        let found = match self.configured.is_empty() {
            true => ANYWHERE.into_iter().filter_map(source_address).collect(),
            false => Arc::clone(&self.configured),
        };
        self.now.send_if_modified(|before| {
            let changed = *before != found;
            *before = found;
            changed
        })
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

//! The host's interface that leads to a pod.

use std::net::IpAddr;
use std::path::PathBuf;
use std::{fs, io};

use coracle_netlink::{Batch, Error, LinkId, Protocol, Route, Socket};
use rustix::io::Errno;

/// The host's interface that leads to a pod.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct HostSide {
    pub(super) interface: String,
    /// Whether the pod is on its link, and not behind a router.
    pub(super) on_link: bool,
    /// Whether it leads to this pod alone: one end of a veth pair. Others, as a bridge, many pods may share.
    pub(super) of_pod: bool,
}

/// The way the host's routes take to an address. `None` if there is none.
pub(super) fn find(pod: IpAddr) -> Result<Option<HostSide>, Error> {
    let mut socket = Socket::open(Protocol::Route)?;
    let mut batch = Batch::new();
    batch.get_route(pod);
    let mut outcome = socket.attempt(batch)?;
    let unreachable = [Errno::NETUNREACH, Errno::HOSTUNREACH];
    outcome.failures.retain(|failure| !unreachable.contains(&failure.errno));
    let route = outcome.into_result()?.iter().find_map(Route::read);
    let Some((link, gateway)) = route.and_then(|route| Some((route.link?, route.gateway))) else {
        return Ok(None);
    };
    let link = socket.link(LinkId::Index(link))?;
    Ok(link.map(|link| HostSide {
        interface: link.name,
        on_link: gateway.is_none(),
        of_pod: link.kind == "veth",
    }))
}

/// The sysctl that lets what comes from the loopback out by an interface, and answers to it in.
fn route_localnet(interface: &str) -> PathBuf {
    PathBuf::from("/proc/sys/net/ipv4/conf").join(interface).join("route_localnet")
}

/// Whether it is on.
pub(super) fn routes_localnet(interface: &str) -> bool {
    fs::read_to_string(route_localnet(interface)).is_ok_and(|value| value.trim() != "0")
}

/// Turns it on. To be guarded before.
pub(super) fn turn_on_route_localnet(interface: &str) -> io::Result<()> {
    if routes_localnet(interface) {
        return Ok(());
    }
    let path = route_localnet(interface);
    let told =
        |error: io::Error| io::Error::new(error.kind(), format!("write 1 to {}: {error}", path.display()));
    fs::write(&path, "1").map_err(told)
}

//! What a pod's namespace says of an attachment whose file is torn.

use std::os::fd::AsFd as _;

use coracle_cni::{AddResult, Interface, IpConfig, NetworkNamespace, Route};
use coracle_cni_plugins::interface_of;
use coracle_netlink::{Link, LinkId, Protocol, Socket};

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
            // One that names its network was read whole: what it does not say was not there.
            if let Some(known) = self.of(&id).filter(|known| known.list.is_some()) {
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
    let Some(link) = socket.link(LinkId::Name(IFNAME)).map_err(failed)? else { return Ok(None) };

    let routes = socket.routes().map_err(failed)?;
    // Routes without a gateway come with the addresses.
    let routes: Vec<_> = routes
        .into_iter()
        .filter(|route| route.link == Some(link.index) && route.gateway.is_some())
        .collect();
    let addresses = socket.addresses(Some(link.index)).map_err(failed)?;
    let mut ips: Vec<IpConfig> = addresses
        .into_iter()
        .filter(|address| address.global)
        .map(|address| {
            let way_out = routes.iter().find(|route| {
                route.is_default()
                    && route.gateway.is_some_and(|gw| gw.is_ipv4() == address.address.addr().is_ipv4())
            });
            let gateway = way_out.and_then(|route| route.gateway);
            IpConfig { interface: None, address: address.address, gateway }
        })
        .collect();
    if ips.is_empty() {
        return Ok(None);
    }
    let mut interfaces = on_host(&link).map_err(failed)?;
    let own = Some(interfaces.len());
    interfaces.push(Interface { sandbox: netns.path().display().to_string(), ..interface_of(&link) });
    for ip in &mut ips {
        ip.interface = own;
    }
    let route = |route: &coracle_netlink::Route| Route {
        dst: route.destination,
        gw: route.gateway,
        mtu: route.mtu,
        advmss: route.advmss,
        priority: route.priority,
        table: None,
        scope: None,
    };
    let routes = routes.iter().map(route).collect();
    Ok(Some(AddResult { interfaces, ips, routes, ..AddResult::default() }))
}

/// The bridge and the host's end of a pair, in the order plugins tell them.
fn on_host(pod: &Link) -> Result<Vec<Interface>, coracle_netlink::Error> {
    let Some(peer) = pod.peer else { return Ok(Vec::new()) };
    let mut socket = Socket::open(Protocol::Route)?;
    // The number is the host's only for the end of a pair that is there.
    let Some(end) = socket.link(LinkId::Index(peer))?.filter(|end| end.peer == Some(pod.index)) else {
        return Ok(Vec::new());
    };
    let bridge = match end.controller {
        Some(bridge) => socket.link(LinkId::Index(bridge))?,
        None => None,
    };
    Ok(bridge.iter().chain([&end]).map(interface_of).collect())
}

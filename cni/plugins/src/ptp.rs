//! ptp: each pod on a link of its own to the host, which routes between them.
//!
//! Configuration and results are those of the reference plugin of this name. A pod sends everything but what is for its
//! gateway to the gateway, and the host has a route to each of its addresses.

use std::os::fd::{AsFd, BorrowedFd};

use coracle_cni::{AddResult, Call, CniError, Dns, GcCall, IpConfig, Plugin, PluginConfig, StatusCall, code};
use coracle_netlink::{AddressOptions, Batch, Link, LinkChange, LinkId, MacAddress, Protocol, Route, Socket};
use ipnet::IpNet;
use serde::Deserialize;

use crate::interface::check::{
    addresses, has_addresses, host_end_is_as_told, is_up, link, place_of_pod, pod_is_as_told, previous,
};
use crate::interface::failure::{damaged, failure, kernel};
use crate::interface::ipam::Ipam;
use crate::interface::owed::Owed;
use crate::interface::pod::{self, Args, Preparation, link_told, push_routes, wanted_mac};
use crate::interface::told::{interface_in_pod, interface_of};
use crate::interface::{forwarding, masquerade, veth};

/// The plugin.
#[derive(Clone, Copy, Debug)]
pub struct Ptp;

/// Of the result's interfaces: the host's end of the pair, the pod's end.
const POD: usize = 1;

/// What stands in a configuration: the reference plugin's fields.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Config {
    #[serde(default)]
    ip_masq: bool,
    #[serde(default)]
    mtu: u32,
    #[serde(default)]
    ipam: Ipam,
    #[serde(default)]
    dns: Dns,
    #[serde(default)]
    args: Args,
}

impl Plugin for Ptp {
    fn kind(&self) -> &'static str {
        "ptp"
    }

    fn add(&self, call: &Call) -> Result<AddResult, CniError> {
        let config: Config = call.config.parse()?;
        if config.ipam.is_none() {
            return Err(crate::interface::failure::invalid(&call.config, "ipam.type is missing"));
        }
        let mac = wanted_mac(call, &config.args)?;
        let namespace = pod::namespace(call)?;
        let added = Attachment { call, config: &config, namespace: namespace.as_fd(), mac }.add();
        if added.is_err() {
            // Of what is left DEL will tell.
            let _ = Owed::read(&call.config).take_back(call);
        }
        added
    }

    fn del(&self, call: &Call) -> Result<(), CniError> {
        Owed::read(&call.config).take_back(call)
    }

    fn check(&self, call: &Call) -> Result<(), CniError> {
        check(call, &call.config.parse()?)
    }

    fn gc(&self, call: &GcCall) -> Result<(), CniError> {
        Owed::read(&call.config).collect(call)
    }

    fn status(&self, call: &StatusCall) -> Result<(), CniError> {
        call.config.parse::<Config>()?.ipam.status(call)
    }

    fn repair(&self, call: &Call) -> Result<(), CniError> {
        if call.config.parse::<Config>()?.ip_masq { masquerade::repair(call) } else { Ok(()) }
    }
}

/// An ADD on its way.
struct Attachment<'a> {
    call: &'a Call,
    config: &'a Config,
    namespace: BorrowedFd<'a>,
    mac: Option<MacAddress>,
}

impl Attachment<'_> {
    fn add(&self) -> Result<AddResult, CniError> {
        let mut host = Socket::open(Protocol::Route).map_err(kernel(&self.call.config))?;
        let mut result;
        let pair;
        if self.config.ipam.wants_interface() {
            pair = self.create_pair(&mut host, true)?;
            result = self.config.ipam.add(self.call)?;
        } else {
            result = self.config.ipam.add(self.call)?;
            let ipv6 = result.ips.iter().any(|ip| ip.address.addr().is_ipv6());
            pair = self.create_pair(&mut host, ipv6)?;
        }
        for ip in &mut result.ips {
            ip.interface = Some(POD);
        }
        if !self.config.dns.is_empty() {
            result.dns = self.config.dns.clone();
        }
        let has = |ipv4: bool| result.ips.iter().any(|ip| ip.address.addr().is_ipv4() == ipv4);
        forwarding::enable(&self.call.config, &mut host, has(true), has(false))?;
        let inside = self.configure_pod(&pair, &result)?;
        veth::settle(&mut host, self.call, &pair)?;
        self.configure_host(&mut host, &pair, &result.ips)?;
        if self.config.ip_masq {
            masquerade::add(self.call, result.ips.iter().map(|ip| ip.address))?;
        }
        result.interfaces = vec![interface_of(&pair), interface_in_pod(self.call, &inside)];
        Ok(result)
    }

    /// Both ends up.
    fn create_pair(&self, host: &mut Socket, ipv6: bool) -> Result<Link, CniError> {
        let config = &self.call.config;
        pod::prepare(config, self.namespace, Preparation { ipv6, detect_duplicates: false })?;
        let mtu = match self.config.mtu {
            0 => host.default_route_mtu().map_err(kernel(config))?,
            mtu => Some(mtu),
        };
        let wanted = veth::Wanted {
            namespace: self.namespace,
            controller: None,
            mtu,
            mac: self.mac,
            hairpin: None,
            isolated: None,
        };
        let pair = veth::create(host, self.call, &wanted)?;
        let mut batch = Batch::new();
        let up = LinkChange { up: Some(true), ..Default::default() };
        batch.change_link(LinkId::Index(self.other_end(&pair)?), &up);
        pod::socket(config, self.namespace)?.execute(batch).map_err(kernel(config))?;
        Ok(pair)
    }

    fn other_end(&self, pair: &Link) -> Result<u32, CniError> {
        let missing =
            || failure(&self.call.config, code::KERNEL, format_args!("{} has no other end", pair.name));
        pair.peer.ok_or_else(missing)
    }

    /// Tells the pod's end as it is then.
    fn configure_pod(&self, pair: &Link, result: &AddResult) -> Result<Link, CniError> {
        let config = &self.call.config;
        let index = self.other_end(pair)?;
        let mut batch = Batch::new();
        for ip in &result.ips {
            // The route the kernel would make says that the network is on the link, and all that is on it is the gateway.
            let options = AddressOptions { no_prefix_route: true, ..AddressOptions::default() };
            batch.add_address(index, ip.address, options);
            let Some(gateway) = ip.gateway else { continue };
            let source = Some(ip.address.addr());
            batch.replace_route(&Route { source, ..Route::new(gateway.into(), index, None) });
            batch.replace_route(&Route { source, ..Route::new(ip.address.trunc(), index, Some(gateway)) });
        }
        push_routes(&mut batch, index, result);
        batch.get_link(LinkId::Index(index));
        let mut pod = pod::socket(config, self.namespace)?;
        link_told(config, &pod.execute(batch).map_err(kernel(config))?)
    }

    fn configure_host(&self, host: &mut Socket, pair: &Link, ips: &[IpConfig]) -> Result<(), CniError> {
        let mut batch = Batch::new();
        for ip in ips {
            if let Some(gateway) = ip.gateway {
                batch.add_address(pair.index, gateway.into(), AddressOptions::default());
            }
            batch.replace_route(&route_to(ip.address, pair));
        }
        host.execute(batch).map(drop).map_err(kernel(&self.call.config))
    }
}

/// `RT_SCOPE_HOST`, as in the reference plugin.
const HOST_SCOPE: u8 = 254;

/// The host's route to an address of a pod.
fn route_to(address: IpNet, pair: &Link) -> Route {
    Route { scope: Some(HOST_SCOPE), ..Route::new(address.addr().into(), pair.index, None) }
}

fn check(call: &Call, config: &Config) -> Result<(), CniError> {
    let result = previous(&call.config)?;
    config.ipam.check(call)?;
    let mut host = Socket::open(Protocol::Route).map_err(kernel(&call.config))?;
    let pair = link(&call.config, &mut host, &veth::name_of(call))?;
    is_up(&call.config, &pair)?;
    host_end_is_as_told(&call.config, &pair, result)?;
    let of_pod = place_of_pod(call, result);
    let ips = result.ips.iter().filter(|ip| ip.interface == of_pod);
    let gateways = ips.filter_map(|ip| ip.gateway).map(IpNet::from);
    has_addresses(&call.config, &mut host, &pair, gateways)?;
    check_routes_to_pod(&call.config, &mut host, &pair, addresses(call, result))?;

    pod_is_as_told(call, &pair, result, true)?;
    if config.ip_masq { masquerade::check(call, result) } else { Ok(()) }
}

/// Each is asked for by itself: the host has as many routes as pods.
fn check_routes_to_pod(
    config: &PluginConfig,
    host: &mut Socket,
    pair: &Link,
    addresses: impl Iterator<Item = IpNet>,
) -> Result<(), CniError> {
    for address in addresses {
        let mut batch = Batch::new();
        batch.get_route(address.addr());
        let outcome = host.attempt(batch).map_err(kernel(config))?;
        let route = outcome.messages.iter().find_map(Route::read);
        let wanted = route_to(address, pair);
        if !route.is_some_and(|route| route.destination == wanted.destination && route.link == wanted.link) {
            let what = format!("the host has no route to {} by {}", address.addr(), pair.name);
            return Err(damaged(config, what));
        }
    }
    Ok(())
}

//! Whether an interface is as ADD has left it.

use std::os::fd::AsFd;

use coracle_cni::{AddResult, Call, CniError, Interface, PluginConfig};
use coracle_netlink::{Link, LinkId, Route, Socket};
use ipnet::IpNet;

use super::failure::{damaged, kernel};
use super::pod::{self, gateway_of};

/// The result of the ADD that is checked.
///
/// # Errors
/// [`coracle_cni::code::INVALID_CONFIG`] without one.
pub(crate) fn previous(config: &PluginConfig) -> Result<&AddResult, CniError> {
    let missing = || super::failure::invalid(config, "prevResult is missing");
    config.prev_result.as_ref().ok_or_else(missing)
}

/// The place of the pod's interface in a result.
pub(crate) fn place_of_pod(call: &Call, result: &AddResult) -> Option<usize> {
    let is_it = |interface: &Interface| !interface.sandbox.is_empty() && interface.name == call.ifname;
    result.interfaces.iter().position(is_it)
}

/// The addresses of the pod's interface, of which a result tells.
pub(crate) fn addresses<'a>(call: &Call, result: &'a AddResult) -> impl Iterator<Item = IpNet> + use<'a> {
    let place = place_of_pod(call, result);
    let of_pod = result.ips.iter().filter(move |ip| ip.interface.is_none() || ip.interface == place);
    of_pod.map(|ip| ip.address)
}

/// The interface of a name: an error if there is none.
///
/// # Errors
/// [`coracle_cni::code::CHECK_FAILED`], [`coracle_cni::code::KERNEL`].
pub(crate) fn link(config: &PluginConfig, socket: &mut Socket, name: &str) -> Result<Link, CniError> {
    let found = socket.link(LinkId::Name(name)).map_err(kernel(config))?;
    found.ok_or_else(|| damaged(config, format_args!("there is no interface {name}")))
}

/// Whether a link is what the result tells of it.
///
/// # Errors
/// [`coracle_cni::code::CHECK_FAILED`].
pub(crate) fn as_told(config: &PluginConfig, link: &Link, told: &Interface) -> Result<(), CniError> {
    let mac = link.mac.map(|mac| mac.to_string()).unwrap_or_default();
    if !told.mac.is_empty() && !told.mac.eq_ignore_ascii_case(&mac) {
        return Err(damaged(
            config,
            format_args!("interface {} has the hardware address {mac} instead of {}", link.name, told.mac),
        ));
    }
    match told.mtu {
        Some(mtu) if mtu != link.mtu => Err(damaged(
            config,
            format_args!("interface {} has the MTU {} instead of {mtu}", link.name, link.mtu),
        )),
        _ => Ok(()),
    }
}

/// Whether a link is up.
///
/// # Errors
/// [`coracle_cni::code::CHECK_FAILED`].
pub(crate) fn is_up(config: &PluginConfig, link: &Link) -> Result<(), CniError> {
    if link.up { Ok(()) } else { Err(damaged(config, format_args!("interface {} is down", link.name))) }
}

/// Whether a link has addresses.
///
/// # Errors
/// [`coracle_cni::code::CHECK_FAILED`], [`coracle_cni::code::KERNEL`].
pub(crate) fn has_addresses(
    config: &PluginConfig,
    socket: &mut Socket,
    link: &Link,
    mut wanted: impl Iterator<Item = IpNet>,
) -> Result<(), CniError> {
    let found = socket.addresses(Some(link.index)).map_err(kernel(config))?;
    match wanted.find(|wanted| !found.iter().any(|found| found.address == *wanted)) {
        Some(address) => {
            Err(damaged(config, format_args!("interface {} has lost its address {address}", link.name)))
        }
        None => Ok(()),
    }
}

/// Whether the routes of a result are there, as far as they are in the main table.
///
/// # Errors
/// [`coracle_cni::code::CHECK_FAILED`], [`coracle_cni::code::KERNEL`].
pub(crate) fn has_routes(
    config: &PluginConfig,
    socket: &mut Socket,
    link: &Link,
    result: &AddResult,
) -> Result<(), CniError> {
    if result.routes.is_empty() {
        return Ok(());
    }
    let found = socket.routes().map_err(kernel(config))?;
    let main = result.routes.iter().filter(|route| route.table.is_none_or(|table| table == MAIN));
    for route in main {
        let gateway = route.gw.or_else(|| gateway_of(&result.ips, route.dst.addr()));
        let is_it = |found: &&Route| {
            found.link == Some(link.index)
                && found.destination == route.dst.trunc()
                && (found.gateway.is_none() || found.gateway == gateway)
        };
        if !found.iter().any(|found| is_it(&found)) {
            return Err(damaged(config, format_args!("the route to {} is missing", route.dst)));
        }
    }
    Ok(())
}

/// `RT_TABLE_MAIN`.
const MAIN: u32 = 254;

/// Whether the pod's end of a pair is as ADD has left it: up, if it has to be, with the addresses and routes told.
///
/// # Errors
/// [`coracle_cni::code::CHECK_FAILED`], [`coracle_cni::code::KERNEL`].
pub(crate) fn pod_is_as_told(
    call: &Call,
    pair: &Link,
    result: &AddResult,
    has_to_be_up: bool,
) -> Result<(), CniError> {
    let config = &call.config;
    let namespace = pod::namespace(call)?;
    let mut inside = pod::socket(config, namespace.as_fd())?;
    let own = link(config, &mut inside, &call.ifname)?;
    if pair.peer != Some(own.index) {
        let what = format_args!("interface {} is not the other end of {}", own.name, pair.name);
        return Err(damaged(config, what));
    }
    if has_to_be_up {
        is_up(config, &own)?;
    }
    told_as(config, &own, place_of_pod(call, result).and_then(|place| result.interfaces.get(place)))?;
    has_addresses(config, &mut inside, &own, addresses(call, result))?;
    has_routes(config, &mut inside, &own, result)
}

/// Whether the host's end of a pair is what the result tells of it.
///
/// # Errors
/// [`coracle_cni::code::CHECK_FAILED`].
pub(crate) fn host_end_is_as_told(
    config: &PluginConfig,
    pair: &Link,
    result: &AddResult,
) -> Result<(), CniError> {
    told_as(config, pair, on_host(result, &pair.name))
}

/// What a result tells of an interface of the host.
pub(crate) fn on_host<'a>(result: &'a AddResult, name: &str) -> Option<&'a Interface> {
    result.interfaces.iter().find(|interface| interface.sandbox.is_empty() && interface.name == name)
}

fn told_as(config: &PluginConfig, link: &Link, told: Option<&Interface>) -> Result<(), CniError> {
    match told {
        Some(told) => as_told(config, link, told),
        None => Err(damaged(config, format_args!("interface {} is not in prevResult", link.name))),
    }
}

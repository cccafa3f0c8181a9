//! CHECK.

use coracle_cni::{AddResult, Call, CniError, Interface};
use coracle_netlink::{Link, Protocol, Socket};
use ipnet::IpNet;

use super::config::Config;
use crate::interface::check::{
    as_told, has_addresses, host_end_is_as_told, is_up, link, on_host, place_of_pod, pod_is_as_told, previous,
};
use crate::interface::failure::{damaged, kernel};
use crate::interface::{masquerade, veth};

/// Compares everything ADD has made with what is there.
///
/// # Errors
/// [`coracle_cni::code::CHECK_FAILED`], naming what is not as it was.
pub(super) fn check(call: &Call, config: &Config) -> Result<(), CniError> {
    let result = previous(&call.config)?;
    config.ipam.check(call)?;
    let mut host = Socket::open(Protocol::Route).map_err(kernel(&call.config))?;
    let bridge = link(&call.config, &mut host, &config.bridge)?;
    check_bridge(call, config, &mut host, &bridge, result)?;
    let pair = link(&call.config, &mut host, &veth::name_of(call))?;
    check_port(call, config, &bridge, &pair, result)?;
    pod_is_as_told(call, &pair, result, !config.disable_container_interface)?;
    if config.ip_masq { masquerade::check(call, result) } else { Ok(()) }
}

fn check_bridge(
    call: &Call,
    config: &Config,
    host: &mut Socket,
    bridge: &Link,
    result: &AddResult,
) -> Result<(), CniError> {
    if bridge.kind != "bridge" {
        return Err(damaged(&call.config, format_args!("the interface {} is no bridge", bridge.name)));
    }
    is_up(&call.config, bridge)?;
    if config.promiscuous && !bridge.promiscuous {
        return Err(damaged(&call.config, format_args!("the bridge {} is not promiscuous", bridge.name)));
    }
    // Its MTU is that of its ports, which come and go.
    if let Some(told) = on_host(result, &bridge.name) {
        as_told(&call.config, bridge, &Interface { mtu: None, ..told.clone() })?;
    }
    if !config.is_gateway {
        return Ok(());
    }
    let of_pod = place_of_pod(call, result);
    let ips = result.ips.iter().filter(|ip| ip.interface == of_pod);
    let gateways = ips.filter_map(|ip| IpNet::new(ip.gateway?, ip.address.prefix_len()).ok());
    has_addresses(&call.config, host, bridge, gateways)
}

fn check_port(
    call: &Call,
    config: &Config,
    bridge: &Link,
    pair: &Link,
    result: &AddResult,
) -> Result<(), CniError> {
    let wrong = |what: &str| Err(damaged(&call.config, format_args!("interface {} {what}", pair.name)));
    if pair.kind != "veth" {
        return wrong("is no end of a veth pair");
    }
    if pair.controller != Some(bridge.index) {
        return wrong(&format!("is no port of the bridge {}", bridge.name));
    }
    if config.hairpin && !pair.hairpin {
        return wrong("sends nothing back to where it came from");
    }
    if config.isolated && !pair.isolated {
        return wrong("is not isolated");
    }
    is_up(&call.config, pair)?;
    host_end_is_as_told(&call.config, pair, result)
}

//! The bridge as the pods' gateway.

use std::net::IpAddr;

use coracle_cni::{AddResult, Call, CniError, IpConfig, Route};
use coracle_netlink::{AddressOptions, Batch, Link, Socket};
use ipnet::{IpNet, Ipv4Net, Ipv6Net};

use super::config::Config;
use crate::interface::failure::{invalid, kernel};

/// `RT_SCOPE_LINK`.
const LINK_SCOPE: u8 = 253;

/// Says gateways and default routes that the plugin for addresses has not said.
pub(super) fn complete(config: &Config, result: &mut AddResult) {
    let mut seen = [false; 2];
    for ip in &mut result.ips {
        if ip.gateway.is_none() && config.is_gateway {
            ip.gateway = first_of(ip.address);
        }
        let is_ipv6 = ip.address.addr().is_ipv6();
        if !config.is_default_gateway || std::mem::replace(&mut seen[usize::from(is_ipv6)], true) {
            continue;
        }
        let everywhere = if is_ipv6 { IpNet::V6(Ipv6Net::default()) } else { IpNet::V4(Ipv4Net::default()) };
        let said = result.routes.iter().any(|route| route.gw.is_some() && route.dst == everywhere);
        if !said && ip.gateway.is_some() {
            result.routes.push(Route {
                dst: everywhere,
                gw: ip.gateway,
                mtu: None,
                advmss: None,
                priority: None,
                table: None,
                scope: None,
            });
        }
    }
}

/// The first address of a network that a host can have.
fn first_of(address: IpNet) -> Option<IpAddr> {
    match address.network() {
        IpAddr::V4(network) => u32::from(network).checked_add(1).map(|next| IpAddr::V4(next.into())),
        IpAddr::V6(network) => u128::from(network).checked_add(1).map(|next| IpAddr::V6(next.into())),
    }
}

/// Gives the bridge the gateways' addresses, as far as it does not have them.
///
/// # Errors
/// [`coracle_cni::code::INVALID_CONFIG`] when it has others, or the host reaches such addresses elsewhere;
/// [`coracle_cni::code::KERNEL`].
pub(super) fn ensure(
    host: &mut Socket,
    call: &Call,
    config: &Config,
    bridge: &Link,
    ips: &[IpConfig],
) -> Result<(), CniError> {
    let failed = kernel(&call.config);
    let gateways = ips.iter().filter_map(|ip| IpNet::new(ip.gateway?, ip.address.prefix_len()).ok());
    let gateways: Vec<IpNet> = gateways.collect();
    let there = host.addresses(Some(bridge.index)).map_err(&failed)?;
    let there: Vec<IpNet> = there.iter().filter(|one| one.global).map(|one| one.address).collect();
    let missing: Vec<IpNet> = gateways.iter().copied().filter(|gateway| !there.contains(gateway)).collect();
    if missing.is_empty() {
        return Ok(());
    }
    let mut batch = Batch::new();
    for gateway in &missing {
        // Networks of IPv6 can be several beside each other, as in the reference plugin.
        let in_the_way = |one: &&IpNet| {
            let same_family = one.addr().is_ipv4() == gateway.addr().is_ipv4();
            let overlap = one.contains(&gateway.addr()) || gateway.contains(&one.addr());
            same_family && !gateways.contains(one) && (one.addr().is_ipv4() || overlap)
        };
        for other in there.iter().filter(in_the_way) {
            if !config.force_address {
                let what =
                    format!("the bridge {} has the address {other} instead of {gateway}", config.bridge);
                let remedy = "delete the bridge, or set forceAddress or another bridge";
                return Err(invalid(&call.config, format_args!("{what}: {remedy}")));
            }
            batch.delete_address(bridge.index, *other);
        }
        batch.add_address(bridge.index, *gateway, AddressOptions::default());
    }
    refuse_overlap(host, call, config, bridge, &missing)?;
    host.execute(batch).map(drop).map_err(failed)
}

/// Refuses networks that overlap with what the host reaches by other interfaces: within them, or beside them on a link.
/// What leads to a larger network over a gateway may be: that is the way to other nodes' pods, as a rule.
fn refuse_overlap(
    host: &mut Socket,
    call: &Call,
    config: &Config,
    bridge: &Link,
    networks: &[IpNet],
) -> Result<(), CniError> {
    for route in host.routes().map_err(kernel(&call.config))? {
        let there = route.destination;
        if route.link == Some(bridge.index) || route.is_default() || route.scope == Some(LINK_SCOPE + 1) {
            continue;
        }
        let in_the_way = |network: &&IpNet| {
            let network = network.trunc();
            network.contains(&there) || there.contains(&network) && route.gateway.is_none()
        };
        let Some(network) = networks.iter().find(in_the_way) else { continue };
        let by = route.link.map(|link| format!(" by interface {link}")).unwrap_or_default();
        let what =
            format!("the network {} overlaps with {there}, which this host reaches{by}", network.trunc());
        return Err(invalid(
            &call.config,
            format_args!("{what}: configure another range for {}", config.bridge),
        ));
    }
    Ok(())
}

//! The bridge itself, and its ports' VLANs.

use std::collections::hash_map::RandomState;
use std::fs;
use std::hash::{BuildHasher, Hasher};
use std::io;

use coracle_cni::{Call, CniError, code};
use coracle_netlink::{Batch, Bridge, Link, LinkChange, LinkId, MacAddress, Socket};
use rustix::io::Errno;

use super::config::Config;
use crate::interface::failure::{failure, file, invalid, kernel};
use crate::interface::pod;

/// The VLAN a bridge's ports are in if nobody says otherwise.
const DEFAULT_VLAN: u16 = 1;

/// Makes the bridge, if it is not there, and has it be as configured.
///
/// # Errors
/// [`code::INVALID_CONFIG`] when an interface of the name is no bridge, or the kernel knows no VLANs; [`code::KERNEL`].
pub(super) fn ensure(
    host: &mut Socket,
    call: &Call,
    config: &Config,
    mtu: Option<u32>,
) -> Result<Link, CniError> {
    let name = LinkId::Name(&config.bridge);
    let failed = kernel(&call.config);
    let vlan_filtering = config.vlan.is_some() || !config.trunk.is_empty();
    let bridge = match host.link(name).map_err(&failed)? {
        Some(bridge) => bridge,
        None => create(host, call, config, mtu, vlan_filtering)?,
    };
    if bridge.kind != "bridge" {
        return Err(invalid(&call.config, format_args!("the interface {} is no bridge", config.bridge)));
    }
    let mut change = LinkChange::default();
    if !bridge.up {
        change.up = Some(true);
    }
    if config.promiscuous && !bridge.promiscuous {
        change.promiscuous = Some(true);
    }
    if vlan_filtering && !bridge.vlan_filtering {
        change.vlan_filtering = Some(true);
    }
    if change == LinkChange::default() {
        return Ok(bridge);
    }
    let mut batch = Batch::new();
    batch.change_link(name, &change);
    host.execute(batch).map_err(|error| without_vlans(call, vlan_filtering, error))?;
    pod::link(&call.config, host, &config.bridge)
}

fn create(
    host: &mut Socket,
    call: &Call,
    config: &Config,
    mtu: Option<u32>,
    vlan_filtering: bool,
) -> Result<Link, CniError> {
    let mut batch = Batch::new();
    let bridge = Bridge { name: &config.bridge, mac: random_mac(), mtu, vlan_filtering };
    let created = batch.create_bridge(&bridge);
    batch.get_link(LinkId::Name(&config.bridge));
    // Another ADD may have made it meanwhile.
    let outcome = host.attempt(batch).map_err(kernel(&call.config))?.tolerate(created, Errno::EXIST);
    let messages = outcome.into_result().map_err(|error| without_vlans(call, vlan_filtering, error))?;
    // What a router beside the bridge announces is not for the host.
    let path = format!("/proc/sys/net/ipv6/conf/{}/accept_ra", config.bridge);
    match fs::write(&path, "0") {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            return Err(file(&call.config, "write to", path, &error));
        }
        _ => {}
    }
    pod::link_told(&call.config, &messages)
}

/// Says what to do where VLANs are what the kernel does not know.
fn without_vlans(call: &Call, wanted: bool, error: coracle_netlink::Error) -> CniError {
    if wanted && matches!(error.errno(), Some(Errno::OPNOTSUPP | Errno::INVAL)) {
        let what =
            "vlan and vlanTrunk need a kernel that filters VLANs on bridges (CONFIG_BRIDGE_VLAN_FILTERING)";
        return invalid(&call.config, format_args!("{what}: {error}"));
    }
    kernel(&call.config)(error)
}

/// A hardware address for local use. The standard library has no other source of chance than this one.
fn random_mac() -> MacAddress {
    let [_, a, b, c, d, e, ..] = RandomState::new().build_hasher().finish().to_ne_bytes();
    MacAddress([0x02, a, b, c, d, e])
}

/// Puts a port into its VLANs.
///
/// # Errors
/// [`code::KERNEL`].
pub(super) fn set_vlans(
    host: &mut Socket,
    call: &Call,
    config: &Config,
    port: &Link,
) -> Result<(), CniError> {
    if config.vlan.is_none() && config.trunk.is_empty() {
        return Ok(());
    }
    let mut batch = Batch::new();
    let wanted = |id: u16| config.vlan == Some(id) || config.trunk.iter().any(|range| range.contains(&id));
    if !config.preserve_default_vlan && !wanted(DEFAULT_VLAN) {
        batch.delete_port_vlan(port.index, DEFAULT_VLAN);
    }
    if let Some(vlan) = config.vlan {
        batch.add_port_vlan(port.index, vlan);
    }
    for range in &config.trunk {
        batch.add_port_trunk(port.index, range);
    }
    host.execute(batch).map(drop).map_err(|error| {
        failure(&call.config, code::KERNEL, format_args!("put {} into its VLANs: {error}", port.name))
    })
}

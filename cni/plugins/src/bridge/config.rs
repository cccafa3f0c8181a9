//! The configuration.

use std::ops::RangeInclusive;

use coracle_cni::{Call, CniError, Dns, PluginConfig};
use coracle_netlink::MacAddress;
use serde::Deserialize;

use crate::interface::failure::invalid;
use crate::interface::ipam::Ipam;
use crate::interface::pod::{Args, wanted_mac};

/// What stands in a configuration: the reference plugin's fields.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Fields {
    #[serde(default = "default_bridge")]
    bridge: String,
    #[serde(default)]
    is_gateway: bool,
    #[serde(default)]
    is_default_gateway: bool,
    #[serde(default)]
    force_address: bool,
    #[serde(default)]
    ip_masq: bool,
    #[serde(default)]
    mtu: u32,
    #[serde(default)]
    hairpin_mode: bool,
    #[serde(default)]
    promisc_mode: bool,
    #[serde(default)]
    vlan: u16,
    #[serde(default)]
    vlan_trunk: Vec<Trunk>,
    #[serde(default = "yes")]
    preserve_default_vlan: bool,
    #[serde(default)]
    enabledad: bool,
    #[serde(default)]
    macspoofchk: bool,
    #[serde(default)]
    disable_container_interface: bool,
    #[serde(default)]
    port_isolation: bool,
    #[serde(default)]
    pub(super) ipam: Ipam,
    #[serde(default)]
    dns: Dns,
    #[serde(default)]
    args: Args,
}

#[derive(Debug, Deserialize)]
struct Trunk {
    id: Option<u16>,
    #[serde(rename = "minID")]
    min_id: Option<u16>,
    #[serde(rename = "maxID")]
    max_id: Option<u16>,
}

/// A configuration that makes sense.
#[derive(Debug)]
pub(super) struct Config {
    /// The bridge's name.
    pub(super) bridge: String,
    /// Whether the bridge has the gateways' addresses.
    pub(super) is_gateway: bool,
    /// Whether pods get a default route over it.
    pub(super) is_default_gateway: bool,
    /// Whether another address of the bridge gives way.
    pub(super) force_address: bool,
    /// Whether what pods send beyond their network is masqueraded.
    pub(super) ip_masq: bool,
    /// In bytes, if configured.
    pub(super) mtu: Option<u32>,
    /// Whether what came from a pod may go back to it.
    pub(super) hairpin: bool,
    /// Whether the bridge takes every frame.
    pub(super) promiscuous: bool,
    /// The VLAN of pods' untagged frames.
    pub(super) vlan: Option<u16>,
    /// VLANs that pods see with their tags.
    pub(super) trunk: Vec<RangeInclusive<u16>>,
    /// Whether pods of VLANs are of the bridge's default VLAN as well.
    pub(super) preserve_default_vlan: bool,
    /// Whether others are asked before an address of IPv6 is used.
    pub(super) detect_duplicates: bool,
    /// Whether pods' interfaces stay down.
    pub(super) disable_container_interface: bool,
    /// Whether pods are kept from each other.
    pub(super) isolated: bool,
    /// Who gives addresses.
    pub(super) ipam: Ipam,
    /// How pods resolve names, where it is said.
    pub(super) dns: Dns,
    /// The hardware address that is asked for.
    pub(super) mac: Option<MacAddress>,
}

fn default_bridge() -> String {
    "cni0".to_owned()
}

fn yes() -> bool {
    true
}

// === impl Trunk ===

impl Trunk {
    fn ranges(&self, config: &PluginConfig) -> Result<Vec<RangeInclusive<u16>>, CniError> {
        let range = match (self.min_id, self.max_id) {
            (Some(first), Some(last)) if first <= last => Some(first..=last),
            (None, None) => None,
            _ => {
                return Err(invalid(
                    config,
                    "vlanTrunk: minID and maxID must both be given, the lesser one first",
                ));
            }
        };
        let all: Vec<_> = self.id.map(|id| id..=id).into_iter().chain(range).collect();
        match all.is_empty() || all.iter().any(|range| !is_vlan(*range.start()) || !is_vlan(*range.end())) {
            true => Err(invalid(config, "vlanTrunk: an entry has an id, or minID and maxID, from 1 to 4094")),
            false => Ok(all),
        }
    }
}

fn is_vlan(id: u16) -> bool {
    (1..=4094).contains(&id)
}

// === impl Config ===

impl Config {
    /// # Errors
    /// [`coracle_cni::code::INVALID_CONFIG`], naming the field.
    pub(super) fn read(call: &Call) -> Result<Self, CniError> {
        let fields: Fields = call.config.parse()?;
        let refuse = |what: &str| Err(invalid(&call.config, what));
        if fields.macspoofchk {
            return refuse("macspoofchk is not supported: leave it out");
        }
        if fields.vlan != 0 && !is_vlan(fields.vlan) {
            return refuse("vlan must be from 1 to 4094");
        }
        let trunk: Result<Vec<_>, _> =
            fields.vlan_trunk.iter().map(|trunk| trunk.ranges(&call.config)).collect();
        let config = Self {
            bridge: fields.bridge,
            is_gateway: fields.is_gateway || fields.is_default_gateway,
            is_default_gateway: fields.is_default_gateway,
            force_address: fields.force_address,
            ip_masq: fields.ip_masq,
            mtu: (fields.mtu != 0).then_some(fields.mtu),
            hairpin: fields.hairpin_mode,
            promiscuous: fields.promisc_mode,
            vlan: (fields.vlan != 0).then_some(fields.vlan),
            trunk: trunk?.concat(),
            preserve_default_vlan: fields.preserve_default_vlan,
            detect_duplicates: fields.enabledad,
            disable_container_interface: fields.disable_container_interface,
            isolated: fields.port_isolation,
            ipam: fields.ipam,
            dns: fields.dns,
            mac: wanted_mac(call, &fields.args)?,
        };
        if config.hairpin && config.promiscuous {
            return refuse("hairpinMode and promiscMode cannot be used together");
        }
        if config.disable_container_interface && !config.ipam.is_none() {
            return refuse("disableContainerInterface and ipam cannot be used together");
        }
        if config.vlan.is_some() && !config.trunk.is_empty() {
            return refuse("vlan and vlanTrunk cannot be used together");
        }
        if config.is_gateway && (config.vlan.is_some() || !config.trunk.is_empty()) {
            return refuse("isGateway is not supported with vlan and vlanTrunk: leave one of them out");
        }
        coracle_cni::check_ifname(&config.bridge).map_err(|_| {
            invalid(&call.config, format_args!("bridge: {:?} is no interface's name", config.bridge))
        })?;
        Ok(config)
    }
}

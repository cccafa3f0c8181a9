//! What interfaces of the host are called, and whose they are.
//!
//! The name follows from network, container id and interface, so a DEL finds the interface without anything else. The
//! alias (`ip link` shows it) says the three in full, so that GC can tell whose it is.

use coracle_cni::{Call, CniError, PluginConfig};
use coracle_netlink::Link;
use sha2::{Digest, Sha256};

use super::failure::invalid;

/// `IFNAMSIZ`, without the zero at the end.
const LONGEST_NAME: usize = 15;
/// `IFALIASZ`, without the zero at the end.
const LONGEST_ALIAS: usize = 255;
/// Digits of five bits: no capital letters, which some tools take for small ones, and none that look alike.
const DIGITS: &[u8; 32] = b"0123456789abcdefghjkmnpqrstvwxyz";

/// The host's interface of an attachment: `prefix`, and as much of a hash as fits.
pub(crate) fn host_name(prefix: &str, network: &str, container_id: &str, ifname: &str) -> String {
    let hash = Sha256::digest(owner(network, container_id, ifname));
    let digits = hash.iter().map(|byte| char::from(DIGITS[usize::from(byte % 32)]));
    prefix.chars().chain(digits).take(LONGEST_NAME).collect()
}

/// As [`host_name`], of a call.
pub(crate) fn host_name_of(prefix: &str, call: &Call) -> String {
    host_name(prefix, &call.config.name, &call.container_id, &call.ifname)
}

/// The alias of a host's interface of an attachment.
///
/// # Errors
/// [`coracle_cni::code::INVALID_CONFIG`] when it is too long.
pub(crate) fn alias_of(call: &Call) -> Result<String, CniError> {
    let alias = format!("coracle:{}", owner(&call.config.name, &call.container_id, &call.ifname));
    if alias.len() <= LONGEST_ALIAS {
        return Ok(alias);
    }
    let what = "the names of network, container and interface are too long for an interface's alias";
    Err(invalid(&call.config, format_args!("{what}, which has {LONGEST_ALIAS} bytes")))
}

/// Whose interface this is, of the network's: container id and interface.
fn attachment<'a>(config: &PluginConfig, link: &'a Link) -> Option<(&'a str, &'a str)> {
    let owner = link.alias.strip_prefix("coracle:")?.strip_prefix(config.name.as_str())?;
    // No slash is in any of the names.
    owner.strip_prefix('/')?.split_once('/')
}

/// Those of the network's interfaces of one kind that belong to none of the attachments given.
pub(crate) fn abandoned<'a>(
    config: &PluginConfig,
    links: &'a [Link],
    kind: &str,
    valid: &[(String, String)],
) -> Vec<&'a Link> {
    let of_kind = links.iter().filter(|link| link.kind == kind);
    let is_abandoned = |link: &&Link| {
        let valid_one =
            |(id, ifname): (&str, &str)| valid.iter().any(|(a, b)| (a.as_str(), b.as_str()) == (id, ifname));
        attachment(config, link).is_some_and(|attachment| !valid_one(attachment))
    };
    of_kind.filter(is_abandoned).collect()
}

fn owner(network: &str, container_id: &str, ifname: &str) -> String {
    format!("{network}/{container_id}/{ifname}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_fits_and_tells_attachments_apart() {
        let name = host_name("veth", "net", "7c9e6679-7425-40de-944b-e07fc1f90ae7-0", "eth0");
        assert_eq!(name.len(), LONGEST_NAME);
        assert!(name.starts_with("veth"));
        let others = [("net2", "a", "b"), ("net", "2a", "b"), ("net", "a", "eth0"), ("net", "a", "eth1")];
        let names: std::collections::BTreeSet<_> =
            others.iter().map(|(network, id, ifname)| host_name("veth", network, id, ifname)).collect();
        assert_eq!(names.len(), others.len());
    }

    #[test]
    fn only_interfaces_of_the_network_that_nobody_has_are_abandoned() {
        let config = serde_json::json!({"cniVersion": "1.1.0", "name": "net", "type": "bridge"});
        let config = PluginConfig::from_json(config).unwrap();
        let link = |kind: &str, alias: &str| Link {
            kind: kind.to_owned(),
            alias: alias.to_owned(),
            name: alias.to_owned(),
            ..Link::default()
        };
        let links = [
            link("veth", "coracle:net/alive/eth0"),
            link("veth", "coracle:net/gone/eth0"),
            link("veth", "coracle:net/alive/eth1"),
            link("ifb", "coracle:net/gone/eth0"),
            link("veth", "coracle:net2/gone/eth0"),
            link("veth", "coracle:ne/gone/eth0"),
            link("veth", "net/gone/eth0"),
            link("veth", ""),
        ];
        let valid = [("alive".to_owned(), "eth0".to_owned())];
        let found: Vec<_> =
            abandoned(&config, &links, "veth", &valid).iter().map(|link| link.name.as_str()).collect();
        assert_eq!(found, ["coracle:net/gone/eth0", "coracle:net/alive/eth1"]);
    }
}

//! How pods are connected: `podCIDR`, where CNI's configurations and plugins are, and the node's own addresses.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::path::PathBuf;
use std::time::Duration;

use coracle_model::go_duration;
use ipnet::{IpNet, Ipv4Net, Ipv6Net};

use super::problems::{Giver, Problems};
use super::{File, Overrides, directories, directory, flag};

/// In nobody's way: podman has 10.88.0.0/16, CRI-O 10.85.0.0/16, k3s 10.42.0.0/15, kubeadm's services 10.96.0.0/12,
/// Docker 172.16.0.0/12, flannel 10.244.0.0/16.
const IPV4: (Ipv4Addr, u8) = (Ipv4Addr::new(10, 83, 0, 0), 16);
/// Of RFC 4193. Pods leave the host by its own address, so it need not be unique among hosts.
const IPV6: (Ipv6Addr, u8) = (Ipv6Addr::new(0xfd83, 0xc07a, 0xc1e0, 0, 0, 0, 0, 0), 64);
/// A kernel without IPv6, or with it switched off, has no such interface or says 1.
const IPV6_DISABLED: &str = "/proc/sys/net/ipv6/conf/default/disable_ipv6";

const CONF_DIR: &str = "/etc/cni/net.d";
/// Where upstream's packages put plugins, and where Debian's does.
const BIN_DIRS: [&str; 2] = ["/opt/cni/bin", "/usr/lib/cni"];
const NAME: &str = "coracle";
const BRIDGE: &str = "coracle0";
/// As long as the kubelet waits for a runtime.
const TIMEOUT: Duration = Duration::from_secs(120);
/// `IFNAMSIZ` of linux/if.h, less the NUL.
const LONGEST_NAME: usize = 15;

/// How pods are connected.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct NetworkConfig {
    /// The addresses of the default network's pods, at most one range of a family; `None` is what suits the host.
    pod_cidrs: Option<Vec<IpNet>>,
    /// Where configurations of CNI networks are looked for.
    pub(crate) cni_conf_dir: PathBuf,
    /// Where plugins that are not built in are looked for, in order.
    pub(crate) cni_bin_dirs: Vec<PathBuf>,
    /// How long such a plugin may take.
    pub(crate) cni_timeout: Duration,
    /// Others are attached to the same networks by another agent: what is not ours is not collected.
    pub(crate) beside_others: bool,
    /// The default network's name, and its bridge's.
    pub(crate) name: String,
    pub(crate) bridge_name: String,
    /// The node's addresses; found out where there is none. An unspecified one stands for the family that comes first.
    pub(crate) node_ips: Vec<IpAddr>,
}

// === impl NetworkConfig ===

impl NetworkConfig {
    /// What flags, and else the file, say of it.
    pub(super) fn combine(flags: &Overrides, file: &mut File, problems: &mut Problems) -> Self {
        let pod_cidrs = match (&flags.pod_cidr, &file.pod_cidr) {
            (Some(text), _) => Some((text, Giver::Flag("--pod-cidr"))),
            (None, Some(text)) => Some((text, Giver::field("podCIDR"))),
            (None, None) => None,
        };
        let node_ips = match (&flags.node_ip, &file.node_ip) {
            (Some(text), _) => Some((text, Giver::Flag("--node-ip"))),
            (None, Some(text)) => Some((text, Giver::field("nodeIP"))),
            (None, None) => None,
        };
        // As for the kubelet, an empty one is none.
        let (pod_cidrs, node_ips) =
            (pod_cidrs.filter(|(text, _)| !text.is_empty()), node_ips.filter(|(text, _)| !text.is_empty()));
        let bin_dirs: Vec<PathBuf> = match (&flags.cni_bin_dir[..], file.cni_bin_dirs.take()) {
            ([], None) => BIN_DIRS.map(PathBuf::from).into(),
            ([], Some(paths)) => directories(paths, "cniBinDirs", problems),
            (paths, _) => {
                let each = paths.iter();
                each.filter_map(|path| directory(Some((path, "--cni-bin-dir")), None, "cniBinDirs", problems))
                    .collect()
            }
        };
        Self {
            pod_cidrs: pod_cidrs.map(|(text, giver)| networks(text, &giver, problems)),
            cni_conf_dir: directory(
                flag(&flags.cni_conf_dir, "--cni-conf-dir"),
                file.cni_conf_dir.take(),
                "cniConfDir",
                problems,
            )
            .unwrap_or_else(|| CONF_DIR.into()),
            cni_bin_dirs: bin_dirs,
            cni_timeout: timeout(file.cni_timeout.as_deref(), problems),
            beside_others: false,
            name: NAME.to_owned(),
            bridge_name: bridge(file.bridge_name.take(), problems),
            node_ips: node_ips
                .map(|(text, giver)| node_addresses(text, &giver, problems))
                .unwrap_or_default(),
        }
    }

    /// The addresses of the default network's pods. Where none are configured, of both families, as far as the host
    /// has them.
    pub(crate) fn pod_cidrs(&self) -> Vec<IpNet> {
        if let Some(configured) = &self.pod_cidrs {
            return configured.clone();
        }
        let disabled = std::fs::read_to_string(IPV6_DISABLED).map_or(true, |text| text.trim() != "0");
        default_networks()
            .into_iter()
            .filter(|network| matches!(network, IpNet::V4(_)) || !disabled)
            .collect()
    }

    /// The same, but with a default network of its own, for an agent beside another.
    pub(crate) fn apart(&self, name: &str, bridge_name: &str, pod_cidrs: Vec<IpNet>) -> Self {
        let (name, bridge_name) = (name.to_owned(), bridge_name.to_owned());
        Self { name, bridge_name, pod_cidrs: Some(pod_cidrs), beside_others: true, ..self.clone() }
    }
}

fn default_networks() -> Vec<IpNet> {
    // Lengths that are constants and no longer than the addresses.
    let ipv4 = Ipv4Net::new(IPV4.0, IPV4.1).ok().map(IpNet::V4);
    let ipv6 = Ipv6Net::new(IPV6.0, IPV6.1).ok().map(IpNet::V6);
    ipv4.into_iter().chain(ipv6).collect()
}

fn timeout(text: Option<&str>, problems: &mut Problems) -> Duration {
    let Some(text) = text else { return TIMEOUT };
    go_duration(text).filter(|timeout| *timeout >= Duration::from_secs(1)).unwrap_or_else(|| {
        problems.invalid(&Giver::field("cniTimeout"), text, "must be a duration of 1s or more, such as 2m");
        TIMEOUT
    })
}

fn bridge(name: Option<String>, problems: &mut Problems) -> String {
    let name = name.unwrap_or_else(|| BRIDGE.to_owned());
    if !is_interface(&name) {
        let message = "must be the name of an interface: 1 to 15 characters, without '/', ':' and space";
        problems.invalid(&Giver::field("bridgeName"), &name, message);
    }
    name
}

/// One network, or one of each family, with a comma between.
fn networks(text: &str, giver: &Giver, problems: &mut Problems) -> Vec<IpNet> {
    parse_networks(text).unwrap_or_else(|message| {
        problems.invalid(giver, text, message);
        Vec::new()
    })
}

fn parse_networks(text: &str) -> Result<Vec<IpNet>, String> {
    let wrong = |message: &str| Err(message.to_owned());
    let mut networks: Vec<IpNet> = Vec::new();
    for part in text.split(',') {
        let Ok(network) = part.trim().parse::<IpNet>() else {
            return wrong(
                "must be a network, or one of each IP family with a comma between, such as 10.83.0.0/16",
            );
        };
        if network.trunc() != network {
            return wrong(&format!("must be networks: {network} is an address in {}", network.trunc()));
        }
        let address = network.addr();
        if address.is_loopback() || address.is_multicast() || address.is_unspecified() {
            return wrong("must be networks whose addresses hosts can have");
        }
        if network.max_prefix_len() - network.prefix_len() < 2 {
            return wrong("must have room for pods beside the bridge: at most /30, or /126 of IPv6");
        }
        if networks.iter().any(|other| matches!(other, IpNet::V4(_)) == matches!(network, IpNet::V4(_))) {
            return wrong("must not have two networks of one IP family");
        }
        networks.push(network);
    }
    Ok(networks)
}

/// One address, or one of each family, with a comma between; or `0.0.0.0` or `::` alone.
fn node_addresses(text: &str, giver: &Giver, problems: &mut Problems) -> Vec<IpAddr> {
    parse_addresses(text).unwrap_or_else(|message| {
        problems.invalid(giver, text, message);
        Vec::new()
    })
}

fn parse_addresses(text: &str) -> Result<Vec<IpAddr>, &'static str> {
    let mut addresses: Vec<IpAddr> = Vec::new();
    for part in text.split(',') {
        let Ok(address) = part.trim().parse::<IpAddr>() else {
            return Err("must be an IP address, or one of each family with a comma between");
        };
        if address.is_loopback() || address.is_multicast() {
            return Err("must be addresses by which others reach the node");
        }
        if addresses.iter().any(|other| other.is_ipv4() == address.is_ipv4()) {
            return Err("must not have two addresses of one family");
        }
        addresses.push(address);
    }
    if addresses.len() > 1 && addresses.iter().any(IpAddr::is_unspecified) {
        return Err("0.0.0.0 and :: stand alone: for the family that comes first");
    }
    Ok(addresses)
}

fn is_interface(name: &str) -> bool {
    let allowed = |one: char| one.is_ascii_graphic() && !matches!(one, '/' | ':');
    !matches!(name, "" | "." | "..") && name.len() <= LONGEST_NAME && name.chars().all(allowed)
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::super::tests::load;
    use super::*;

    fn network(text: &str) -> NetworkConfig {
        load(text, &Overrides::default()).unwrap().network
    }

    #[test]
    fn defaults_are_in_nobodys_way() {
        let network = network("");
        assert_eq!(network.cni_conf_dir, Path::new("/etc/cni/net.d"));
        assert_eq!(network.cni_bin_dirs, [Path::new("/opt/cni/bin"), Path::new("/usr/lib/cni")]);
        assert_eq!(
            (network.bridge_name.as_str(), network.cni_timeout),
            ("coracle0", Duration::from_secs(120))
        );
        assert!(network.node_ips.is_empty() && network.pod_cidrs.is_none());
        let ranges: Vec<_> = default_networks().iter().map(ToString::to_string).collect();
        assert_eq!(ranges, ["10.83.0.0/16", "fd83:c07a:c1e0::/64"]);
        assert_eq!(network.pod_cidrs()[0].to_string(), "10.83.0.0/16");
        for others in ["10.88.0.0/16", "10.85.0.0/16", "10.42.0.0/15", "10.96.0.0/12", "172.16.0.0/12"] {
            let others: IpNet = others.parse().unwrap();
            let ours = default_networks()[0];
            assert!(!others.contains(&ours) && !ours.contains(&others), "{others}");
        }
    }

    #[test]
    fn the_file_and_the_flags_say_otherwise() {
        let text = "podCIDR: 10.1.0.0/24,fd00:1::/64\ncniConfDir: /c\ncniBinDirs: [/a, /b]\nbridgeName: br1\n\
                    cniTimeout: 30s\nnodeIP: 192.0.2.1\n";
        let config = network(text);
        let ranges: Vec<_> = config.pod_cidrs().iter().map(ToString::to_string).collect();
        assert_eq!(ranges, ["10.1.0.0/24", "fd00:1::/64"]);
        assert_eq!(config.cni_bin_dirs, [Path::new("/a"), Path::new("/b")]);
        assert_eq!((config.bridge_name.as_str(), config.cni_timeout), ("br1", Duration::from_secs(30)));
        assert_eq!(config.node_ips, ["192.0.2.1".parse::<IpAddr>().unwrap()]);
        let flags = Overrides {
            pod_cidr: Some("fd00:2::/112".into()),
            node_ip: Some("::".into()),
            cni_conf_dir: Some("/d".into()),
            cni_bin_dir: vec!["/e".into()],
            ..Overrides::default()
        };
        let config = load(text, &flags).unwrap().network;
        assert_eq!(config.pod_cidrs()[0].to_string(), "fd00:2::/112");
        assert_eq!(config.node_ips, ["::".parse::<IpAddr>().unwrap()]);
        assert_eq!(config.cni_conf_dir, Path::new("/d"));
        assert_eq!(config.cni_bin_dirs, [Path::new("/e")]);
    }

    #[test]
    fn what_cannot_be_is_refused() {
        for (text, message) in [
            ("podCIDR: pods", "podCIDR: Invalid value: \"pods\": must be a network, or one of each"),
            ("podCIDR: 10.83.0.7/16", "must be networks: 10.83.0.7/16 is an address in 10.83.0.0/16"),
            ("podCIDR: 10.1.0.0/24,10.2.0.0/24", "must not have two networks of one IP family"),
            ("podCIDR: 10.1.0.0/31", "must have room for pods beside the bridge"),
            ("podCIDR: 224.0.0.0/8", "whose addresses hosts can have"),
            ("bridgeName: a/b", "bridgeName: Invalid value: \"a/b\": must be the name of an interface"),
            ("bridgeName: a-name-too-long-", "must be the name of an interface"),
            ("cniTimeout: soon", "cniTimeout: Invalid value: \"soon\": must be a duration of 1s or more"),
            ("cniTimeout: 10ms", "must be a duration of 1s or more"),
            ("cniConfDir: net.d", "cniConfDir: Invalid value: \"net.d\": must be an absolute path"),
            ("cniBinDirs: [bin]", "cniBinDirs[0]: Invalid value: \"bin\": must be an absolute path"),
            ("nodeIP: node", "nodeIP: Invalid value: \"node\": must be an IP address"),
            ("nodeIP: 127.0.0.1", "by which others reach the node"),
            ("nodeIP: '::,192.0.2.1'", "0.0.0.0 and :: stand alone"),
        ] {
            let error = load(text, &Overrides::default()).unwrap_err();
            assert!(error.contains(message), "{text:?} gave {error:?}, not {message:?}");
        }
    }
}

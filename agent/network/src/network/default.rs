//! The network of a node that has no configuration of CNI.

use std::path::PathBuf;

use coracle_cni::{CniError, ConfigList};
use ipnet::IpNet;
use serde_json::{Value, json};

/// What it is made of.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DefaultNetwork {
    /// The network's name.
    pub name: String,
    /// The bridge's.
    pub bridge: String,
    /// Where pods' addresses are from: a pod gets one of each family there is, IPv4 and IPv6 in the order they are first
    /// named here.
    pub pod_cidrs: Vec<IpNet>,
    /// Where addresses that are given are kept.
    pub data_dir: PathBuf,
}

// === impl DefaultNetwork ===

impl DefaultNetwork {
    /// As a list, like one from a file.
    ///
    /// # Errors
    /// The name is none.
    pub fn list(&self) -> Result<ConfigList, CniError> {
        let routes: Vec<Value> = self
            .families()
            .into_iter()
            .map(|family| match family.first() {
                Some(IpNet::V6(_)) => json!({"dst": "::/0"}),
                _ => json!({"dst": "0.0.0.0/0"}),
            })
            .collect();
        let list = json!({
            "cniVersion": "1.1.0",
            "name": self.name,
            "plugins": [
                {
                    "type": "bridge",
                    "bridge": self.bridge,
                    "isGateway": true,
                    "ipMasq": true,
                    "hairpinMode": true,
                    "capabilities": {"mac": true, "ips": true},
                    "ipam": {
                        "type": "host-local",
                        "dataDir": self.data_dir,
                        "ranges": self.ranges(),
                        "routes": routes,
                    },
                },
                {"type": "portmap", "snat": true, "capabilities": {"portMappings": true}},
                {"type": "bandwidth", "capabilities": {"bandwidth": true}},
            ],
        });
        ConfigList::parse(list.to_string().as_bytes())
    }

    /// As host-local and the capability `ipRanges` have it: a set of ranges for each address a pod gets.
    pub(super) fn ranges(&self) -> Value {
        let set =
            |family: Vec<IpNet>| family.iter().map(|subnet| json!({"subnet": subnet})).collect::<Value>();
        self.families().into_iter().map(set).collect()
    }

    fn families(&self) -> Vec<Vec<IpNet>> {
        let (v4, v6): (Vec<IpNet>, Vec<IpNet>) =
            self.pod_cidrs.iter().map(IpNet::trunc).partition(|cidr| matches!(cidr, IpNet::V4(_)));
        let v6_first = matches!(self.pod_cidrs.first(), Some(IpNet::V6(_)));
        let families = if v6_first { [v6, v4] } else { [v4, v6] };
        families.into_iter().filter(|family| !family.is_empty()).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn network(pod_cidrs: &[&str]) -> Value {
        let pod_cidrs = pod_cidrs.iter().map(|cidr| cidr.parse().unwrap()).collect();
        let (name, bridge) = ("coracle".to_owned(), "coracle0".to_owned());
        DefaultNetwork { name, bridge, pod_cidrs, data_dir: "/run/x".into() }.list().unwrap().to_json()
    }

    #[test]
    fn a_pod_gets_an_address_and_a_default_route_of_each_family() {
        let json = network(&["10.83.0.9/24", "fd83::/64", "10.84.0.0/24"]);
        let ipam = &json["plugins"][0]["ipam"];
        let ranges =
            json!([[{"subnet": "10.83.0.0/24"}, {"subnet": "10.84.0.0/24"}], [{"subnet": "fd83::/64"}]]);
        assert_eq!(ipam["ranges"], ranges);
        assert_eq!(ipam["routes"], json!([{"dst": "0.0.0.0/0"}, {"dst": "::/0"}]));
        let ipam = network(&["fd83::/64"])["plugins"][0]["ipam"].clone();
        assert_eq!(ipam["ranges"], json!([[{"subnet": "fd83::/64"}]]));
        assert_eq!(ipam["routes"], json!([{"dst": "::/0"}]));
        assert_eq!(network(&["fd83::/64", "10.0.0.0/8"])["plugins"][0]["ipam"]["routes"][0]["dst"], "::/0");
    }
}

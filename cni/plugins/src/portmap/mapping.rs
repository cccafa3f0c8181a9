//! What the capability `portMappings` asks for.

use std::fmt;
use std::net::IpAddr;

use coracle_cni::{CniError, PluginConfig};
use coracle_nftables::{PortMap, Protocol};
use serde::Deserialize;

use super::invalid;

/// One of `portMappings`, as it is written.
#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Fields {
    host_port: i64,
    container_port: i64,
    #[serde(default)]
    protocol: String,
    #[serde(default, rename = "hostIP")]
    host_ip: String,
}

/// A port of the host that leads to one of the container.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Mapping {
    /// Its place in the list.
    index: usize,
    pub(super) protocol: Protocol,
    pub(super) host: Host,
    pub(super) host_port: u16,
    pub(super) container_port: u16,
}

/// At which addresses of the host.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Host {
    /// At all of every family the container has.
    Any,
    /// At all of one family: `0.0.0.0` or `::`.
    AnyOf(IpAddr),
    /// At one.
    One(IpAddr),
}

/// What is asked for.
pub(super) fn read(config: &PluginConfig) -> Result<Vec<Mapping>, CniError> {
    let all: Option<Vec<Fields>> = config.capability("portMappings")?;
    let all = all.unwrap_or_default();
    let all = all.into_iter().enumerate().map(|(index, fields)| Mapping::new(config, index, &fields));
    let all: Vec<Mapping> = all.collect::<Result<_, _>>()?;
    for (place, one) in all.iter().enumerate() {
        if let Some(other) = all[..place].iter().find(|other| other.clashes(one)) {
            return Err(invalid(
                config,
                &format!("{one} leads elsewhere by portMappings[{}] already", other.index),
            ));
        }
    }
    Ok(all)
}

// === impl Mapping ===

impl Mapping {
    fn new(config: &PluginConfig, index: usize, fields: &Fields) -> Result<Self, CniError> {
        let wrong = |what: &str, value: &dyn fmt::Display| {
            invalid(config, &format!("portMappings[{index}].{what}: {value}"))
        };
        let port = |name: &str, number: i64| match u16::try_from(number) {
            Ok(port) if port > 0 => Ok(port),
            _ => Err(wrong(name, &format!("{number} is no port: it must be between 1 and 65535"))),
        };
        let protocol = match fields.protocol.to_ascii_lowercase().as_str() {
            "" | "tcp" => Protocol::Tcp,
            "udp" => Protocol::Udp,
            "sctp" => Protocol::Sctp,
            _ => return Err(wrong("protocol", &format!("{:?} is none of tcp, udp, sctp", fields.protocol))),
        };
        let host = match fields.host_ip.as_str() {
            "" => Host::Any,
            text => match text.parse::<IpAddr>() {
                Ok(address) if address.is_unspecified() => Host::AnyOf(address),
                Ok(IpAddr::V6(address)) if address.is_loopback() => {
                    let why = "::1 cannot be led elsewhere: IPv6 has no route_localnet. Use 127.0.0.1";
                    return Err(wrong("hostIP", &why));
                }
                Ok(address) => Host::One(address),
                Err(_) => return Err(wrong("hostIP", &format!("{text:?} is no address"))),
            },
        };
        Ok(Self {
            index,
            protocol,
            host,
            host_port: port("hostPort", fields.host_port)?,
            container_port: port("containerPort", fields.container_port)?,
        })
    }

    /// Whether both want the same port of the host, for different ports of the container.
    fn clashes(&self, other: &Self) -> bool {
        let meet = match (self.host, other.host) {
            (Host::One(one), Host::One(other)) => one == other,
            // One address goes before any.
            (Host::One(_), _) | (_, Host::One(_)) => false,
            (Host::AnyOf(one), Host::AnyOf(other)) => one == other,
            (Host::Any, _) | (_, Host::Any) => true,
        };
        meet && (self.protocol, self.host_port) == (other.protocol, other.host_port)
            && self.container_port != other.container_port
    }

    /// To an address of the container, if that is of a family it is for.
    pub(super) fn to(&self, pod: IpAddr) -> Option<PortMap> {
        let host = match self.host {
            Host::Any => None,
            Host::AnyOf(family) if family.is_ipv4() == pod.is_ipv4() => None,
            Host::One(host) if host.is_ipv4() == pod.is_ipv4() => Some(host),
            Host::AnyOf(_) | Host::One(_) => return None,
        };
        Some(PortMap {
            protocol: self.protocol,
            host,
            host_port: self.host_port,
            pod,
            pod_port: self.container_port,
        })
    }
}

/// As messages name it.
impl fmt::Display for Mapping {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "portMappings[{}]: host port ", self.index)?;
        match self.host {
            Host::Any => write!(f, "{}/{}", self.host_port, self.protocol),
            Host::AnyOf(host) | Host::One(host) => {
                write!(f, "{}/{}", std::net::SocketAddr::new(host, self.host_port), self.protocol)
            }
        }
    }
}

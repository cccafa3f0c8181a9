//! What pods add to the table.

use std::fmt;
use std::net::IpAddr;

use ipnet::IpNet;

use crate::Error;
use crate::element::Element;
use crate::schema::{Family, Set};

/// What a pod adds to the table.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Entry {
    /// What the pod with this address sends out is masqueraded, unless it is for its own subnet, which the length of
    /// the prefix tells.
    Masquerade(IpNet),
    /// A port of this host leads to a port of the pod.
    Port(PortMap),
    /// Clients that reach the pod by ports of this host are masqueraded where the pod's answers would pass this host
    /// by, or could not leave it: those behind the interface that leads to the pod, the pod itself among them, and
    /// this host's loopback.
    Hairpin {
        /// The pod's address.
        pod: IpAddr,
        /// The interface of this host that leads to the pod.
        interface: String,
    },
    /// All clients that reach this port of the pod by ports of this host are masqueraded.
    MasqueradeClients {
        /// The protocol.
        protocol: Protocol,
        /// The pod's address.
        pod: IpAddr,
        /// The pod's port.
        port: u16,
    },
    /// What comes in by this interface of this host, and says it is from the loopback or for it, is dropped. To be
    /// made before `route_localnet` is turned on there.
    GuardLoopback {
        /// The interface.
        interface: String,
        /// Whether it goes with the pod. If not it belongs to nobody and stays until the interface is gone.
        of_pod: bool,
    },
}

/// A port of this host that leads to a port of a pod.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PortMap {
    /// The protocol.
    pub protocol: Protocol,
    /// Which address of this host; any of the pod's family where absent.
    pub host: Option<IpAddr>,
    /// The host's port.
    pub host_port: u16,
    /// The pod's address.
    pub pod: IpAddr,
    /// The pod's port.
    pub pod_port: u16,
}

/// A protocol that has ports.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Protocol {
    /// TCP.
    Tcp,
    /// UDP.
    Udp,
    /// SCTP.
    Sctp,
}

/// Kinds of entries that are made, listed and taken back together.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Part {
    /// [`Entry::Masquerade`].
    Masquerade,
    /// All the others.
    Ports,
}

// === impl Entry ===

impl Entry {
    /// What it is in the table.
    pub(crate) fn elements(&self) -> Result<Vec<Element>, Error> {
        Ok(match self {
            Self::Masquerade(address) => {
                let pod = address.addr();
                let own = Element::new(Set::Masquerade(family(pod)), bytes(pod));
                // A pod that is alone in its subnet sends nothing out that is for it.
                let subnet =
                    (address.prefix_len() < address.max_prefix_len()).then(|| Element::subnet(address));
                std::iter::once(own).chain(subnet).collect()
            }
            Self::Port(map) => {
                let data = fields(&[&bytes(map.pod), &map.pod_port.to_be_bytes()]);
                let (protocol, port) = ([map.protocol.number()], map.host_port.to_be_bytes());
                let family = family(map.pod);
                let element = match map.host {
                    Some(host) => {
                        Element::new(Set::HostPorts(family), fields(&[&bytes(host), &protocol, &port]))
                    }
                    None => Element::new(Set::Ports(family), fields(&[&protocol, &port])),
                };
                vec![element.with_data(data)]
            }
            Self::Hairpin { pod, interface } => {
                let key = fields(&[&bytes(*pod), &name(interface)?]);
                vec![Element::new(Set::Hairpin(family(*pod)), key)]
            }
            Self::MasqueradeClients { protocol, pod, port } => {
                let key = fields(&[&bytes(*pod), &[protocol.number()], &port.to_be_bytes()]);
                vec![Element::new(Set::MasqAll(family(*pod)), key)]
            }
            Self::GuardLoopback { interface, of_pod } => {
                let element = Element::new(Set::Localnet, name(interface)?.to_vec());
                vec![if *of_pod { element } else { element.shared() }]
            }
        })
    }
}

impl fmt::Display for Entry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Masquerade(address) => write!(f, "masquerading of {}", address.addr()),
            Self::Port(map) => write!(f, "host port {map}"),
            Self::Hairpin { pod, interface } => {
                write!(f, "masquerading of clients of {pod} behind {interface}")
            }
            Self::MasqueradeClients { protocol, pod, port } => {
                write!(f, "masquerading of clients of {}/{protocol}", std::net::SocketAddr::new(*pod, *port))
            }
            Self::GuardLoopback { interface, .. } => write!(f, "the guard of the loopback on {interface}"),
        }
    }
}

// === impl PortMap ===

/// The host's port.
impl fmt::Display for PortMap {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.host {
            Some(host) => write!(f, "{}/{}", std::net::SocketAddr::new(host, self.host_port), self.protocol),
            None => write!(f, "{}/{}", self.host_port, self.protocol),
        }
    }
}

// === impl Protocol ===

impl Protocol {
    /// `IPPROTO_*`.
    pub(crate) fn number(self) -> u8 {
        match self {
            Self::Tcp => 6,
            Self::Udp => 17,
            Self::Sctp => 132,
        }
    }
}

impl fmt::Display for Protocol {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Tcp => "TCP",
            Self::Udp => "UDP",
            Self::Sctp => "SCTP",
        })
    }
}

// === impl Part ===

impl Part {
    pub(crate) fn sets(self) -> impl Iterator<Item = Set> {
        Set::ALL.into_iter().filter(move |set| match set {
            Set::Subnets(_) => false,
            Set::Masquerade(_) => self == Self::Masquerade,
            _ => self == Self::Ports,
        })
    }
}

// === Bytes ===

pub(crate) fn family(address: IpAddr) -> Family {
    if address.is_ipv4() { Family::V4 } else { Family::V6 }
}

pub(crate) fn bytes(address: IpAddr) -> Vec<u8> {
    match address {
        IpAddr::V4(address) => address.octets().to_vec(),
        IpAddr::V6(address) => address.octets().to_vec(),
    }
}

/// Parts of a key one behind the other, each filled up to whole registers of 32 bits.
pub(crate) fn fields(parts: &[&[u8]]) -> Vec<u8> {
    let mut all = Vec::new();
    for part in parts {
        all.extend_from_slice(part);
        all.resize(all.len().next_multiple_of(4), 0);
    }
    all
}

/// An interface's name as the kernel compares it: `IFNAMSIZ` bytes.
fn name(interface: &str) -> Result<[u8; 16], Error> {
    let mut name = [0; 16];
    match name.get_mut(..interface.len()) {
        Some(room) if !interface.is_empty() && interface.len() < 16 => {
            room.copy_from_slice(interface.as_bytes())
        }
        _ => return Err(Error::InterfaceName { name: interface.to_owned() }),
    }
    Ok(name)
}

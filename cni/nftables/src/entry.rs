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
    /// Clients that reach the pod by this port of the host are masqueraded where its answers would pass the host by,
    /// or could not leave it: those of its subnet (on its bridge, that is), itself, and this host's loopback.
    Hairpin {
        /// The pod's address.
        pod: IpNet,
        /// The protocol.
        protocol: Protocol,
        /// The host's port.
        host_port: u16,
    },
    /// All clients that reach the pod by this port of the host are masqueraded.
    MasqueradeClients {
        /// The pod's address.
        pod: IpAddr,
        /// The protocol.
        protocol: Protocol,
        /// The host's port.
        host_port: u16,
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
            Self::Hairpin { pod, protocol, host_port } => {
                let address = pod.addr();
                let within = match pod.prefix_len() == pod.max_prefix_len() {
                    true => {
                        Element::new(Set::Own(family(address)), fields(&[&bytes(address), &bytes(address)]))
                    }
                    false => Element::subnet(pod),
                };
                let key = client_key(address, *protocol, *host_port);
                vec![Element::new(Set::Hairpin(family(address)), key), within]
            }
            Self::MasqueradeClients { pod, protocol, host_port } => {
                let key = client_key(*pod, *protocol, *host_port);
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
            Self::Hairpin { pod, protocol, host_port } => {
                write!(f, "masquerading of neighbours of {} on host port {host_port}/{protocol}", pod.addr())
            }
            Self::MasqueradeClients { pod, protocol, host_port } => {
                write!(f, "masquerading of clients of {pod} on host port {host_port}/{protocol}")
            }
            Self::GuardLoopback { interface, .. } => write!(f, "the guard of the loopback on {interface}"),
        }
    }
}

// === impl PortMap ===

impl PortMap {
    /// The one that an element is of, if it is.
    pub(crate) fn of(element: &Element) -> Option<Self> {
        let (family, of_host) = match element.set {
            Set::Ports(family) => (family, false),
            Set::HostPorts(family) => (family, true),
            _ => return None,
        };
        let length = family.length() as usize;
        let (host, service) = element.key.split_at_checked(if of_host { length } else { 0 })?;
        let (pod, pod_port) = element.data.as_ref()?.split_at_checked(length)?;
        let port = |bytes: &[u8]| bytes.first_chunk().copied().map(u16::from_be_bytes);
        Some(Self {
            protocol: Protocol::of(*service.first()?)?,
            host: if of_host { Some(address(host)?) } else { None },
            host_port: port(service.get(4..)?)?,
            pod: address(pod)?,
            pod_port: port(pod_port)?,
        })
    }
}

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
    fn of(number: u8) -> Option<Self> {
        [Self::Tcp, Self::Udp, Self::Sctp].into_iter().find(|protocol| protocol.number() == number)
    }

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

fn client_key(pod: IpAddr, protocol: Protocol, host_port: u16) -> Vec<u8> {
    fields(&[&bytes(pod), &[protocol.number()], &host_port.to_be_bytes()])
}

pub(crate) fn family(address: IpAddr) -> Family {
    if address.is_ipv4() { Family::V4 } else { Family::V6 }
}

pub(crate) fn bytes(address: IpAddr) -> Vec<u8> {
    match address {
        IpAddr::V4(address) => address.octets().to_vec(),
        IpAddr::V6(address) => address.octets().to_vec(),
    }
}

fn address(bytes: &[u8]) -> Option<IpAddr> {
    match bytes.len() {
        4 => <[u8; 4]>::try_from(bytes).ok().map(IpAddr::from),
        _ => <[u8; 16]>::try_from(bytes).ok().map(IpAddr::from),
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

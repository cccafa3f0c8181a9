//! Ports of the host that pods have, and which of them exclude each other.

use std::fmt;
use std::net::IpAddr;

use crate::{Container, Pod, Protocol, RestartPolicy};

/// A port of the host that a container has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct HostPort<'a> {
    /// Whose it is.
    pub container: &'a str,
    /// `hostPort`.
    pub port: u16,
    /// `protocol`.
    pub protocol: Protocol,
    /// `hostIP`: the host's address at which it is; all of them when absent.
    pub address: Option<IpAddr>,
    /// `containerPort`.
    pub container_port: u16,
}

/// Two pods that cannot both have their ports: what is in the way of the one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PortConflict<'a> {
    /// What it asks for.
    pub wanted: HostPort<'a>,
    /// What the other has.
    pub held: HostPort<'a>,
}

// === impl Pod ===

impl Pod {
    /// The ports of the host that the pod has as long as it runs. As for the scheduler: those of its containers and of
    /// the init containers that run beside them. In the host's network every declared port is one.
    pub fn host_ports(&self) -> impl Iterator<Item = HostPort<'_>> {
        let sidecar = |container: &&Container| container.restart_policy == Some(RestartPolicy::Always);
        let containers = self.spec.init_containers.iter().filter(sidecar).chain(&self.spec.containers);
        containers.flat_map(|container| {
            container.ports.iter().filter_map(|port| {
                Some(HostPort {
                    container: &container.name,
                    port: port.host_port?,
                    protocol: port.protocol,
                    address: port.host_ip,
                    container_port: port.container_port,
                })
            })
        })
    }

    /// The first port of the host that this pod and another cannot both have.
    pub fn port_conflict<'a>(&'a self, other: &'a Self) -> Option<PortConflict<'a>> {
        let conflict = |wanted: HostPort<'a>| {
            let held = other.host_ports().find(|held| held.overlaps(&wanted))?;
            Some(PortConflict { wanted, held })
        };
        self.host_ports().find_map(conflict)
    }
}

// === impl HostPort ===

impl HostPort<'_> {
    /// Whether the two cannot be there at once: same number and protocol, at an address that both have.
    pub fn overlaps(&self, other: &HostPort<'_>) -> bool {
        self.port == other.port
            && self.protocol == other.protocol
            && addresses_overlap(self.address, other.address)
    }
}

impl fmt::Display for HostPort<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let protocol = self.protocol.as_str();
        match self.address.filter(|address| !address.is_unspecified()) {
            Some(IpAddr::V6(address)) => write!(f, "[{address}]:{}/{protocol}", self.port),
            Some(address) => write!(f, "{address}:{}/{protocol}", self.port),
            None => write!(f, "{}/{protocol}", self.port),
        }
    }
}

/// Whether some address of the host is meant by both. `0.0.0.0` and `::` mean all of their family, none means all of
/// both.
fn addresses_overlap(one: Option<IpAddr>, other: Option<IpAddr>) -> bool {
    let (Some(one), Some(other)) = (one, other) else { return true };
    // ::ffff:192.0.2.1 is 192.0.2.1.
    let (one, other) = (one.to_canonical(), other.to_canonical());
    one == other || one.is_ipv4() == other.is_ipv4() && (one.is_unspecified() || other.is_unspecified())
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::prelude::*;

    use super::*;
    use crate::{ContainerPort, Name, PodKey, PodSpec};

    /// All the addresses of a small host.
    const HOST: [&str; 4] = ["192.0.2.1", "198.51.100.9", "2001:db8::1", "2001:db8::2"];

    fn parse(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    /// The addresses of that host at which a port is.
    fn meant(address: Option<IpAddr>) -> BTreeSet<IpAddr> {
        let all = HOST.map(parse).into_iter();
        match address.map(|address| address.to_canonical()) {
            None => all.collect(),
            Some(any) if any.is_unspecified() => all.filter(|one| one.is_ipv4() == any.is_ipv4()).collect(),
            Some(one) => [one].into(),
        }
    }

    fn address() -> impl Strategy<Value = Option<IpAddr>> {
        let words = [HOST.as_slice(), &["0.0.0.0", "::", "::ffff:192.0.2.1"]].concat();
        proptest::option::of(proptest::sample::select(words).prop_map(parse))
    }

    fn protocol() -> impl Strategy<Value = Protocol> {
        proptest::sample::select(vec![Protocol::Tcp, Protocol::Udp, Protocol::Sctp])
    }

    fn port() -> impl Strategy<Value = HostPort<'static>> {
        (79_u16..82, protocol(), address()).prop_map(|(port, protocol, address)| HostPort {
            container: "c",
            port,
            protocol,
            address,
            container_port: 8080,
        })
    }

    proptest! {
        #[test]
        fn ports_overlap_where_a_packet_could_be_meant_for_both(one in port(), other in port()) {
            let common = !meant(one.address).is_disjoint(&meant(other.address));
            let expected = common && one.port == other.port && one.protocol == other.protocol;
            prop_assert_eq!(one.overlaps(&other), expected);
            prop_assert_eq!(other.overlaps(&one), expected);
            prop_assert!(one.overlaps(&one));
        }
    }

    fn pod(name: &str, init: Option<RestartPolicy>, ports: &[(&str, u16)]) -> Pod {
        let container = |name: &str| Container::new(Name::label(name).unwrap(), "x");
        let mut pod = Pod {
            uid: name.parse().unwrap(),
            key: PodKey { namespace: Name::label("default").unwrap(), name: Name::label(name).unwrap() },
            labels: Default::default(),
            annotations: Default::default(),
            spec: PodSpec::new(vec![container("app")]),
            object: String::new(),
        };
        pod.spec.init_containers = vec![container("init")];
        pod.spec.init_containers[0].restart_policy = init;
        for (of, number) in ports {
            let port = ContainerPort {
                name: None,
                container_port: 8080,
                host_port: Some(*number).filter(|number| *number != 0),
                host_ip: None,
                protocol: Protocol::Tcp,
            };
            let containers = pod.spec.init_containers.iter_mut().chain(&mut pod.spec.containers);
            containers.filter(|container| &*container.name == *of).for_each(|it| it.ports.push(port.clone()));
        }
        pod
    }

    #[test]
    fn a_pods_ports_are_those_of_what_runs_beside_each_other() {
        let always = Some(RestartPolicy::Always);
        let app = pod("a", None, &[("app", 80), ("app", 0)]);
        assert_eq!(app.host_ports().count(), 1);
        for (other, conflicts) in [
            (pod("b", None, &[("app", 80)]), true),
            (pod("b", None, &[("app", 81)]), false),
            (pod("b", None, &[("app", 0)]), false),
            (pod("b", None, &[("init", 80)]), false),
            (pod("b", always, &[("init", 80)]), true),
        ] {
            assert_eq!(app.port_conflict(&other).is_some(), conflicts, "{other:?}");
        }
        let other = pod("b", always, &[("init", 80)]);
        let PortConflict { wanted, held } = app.port_conflict(&other).unwrap();
        assert_eq!((wanted.container, held.container), ("app", "init"));
    }

    #[test]
    fn ports_are_shown_with_their_address_and_protocol() {
        let port = |address: Option<&str>| HostPort {
            container: "c",
            port: 53,
            protocol: Protocol::Udp,
            address: address.map(parse),
            container_port: 53,
        };
        assert_eq!(port(None).to_string(), "53/UDP");
        assert_eq!(port(Some("0.0.0.0")).to_string(), "53/UDP");
        assert_eq!(port(Some("192.0.2.1")).to_string(), "192.0.2.1:53/UDP");
        assert_eq!(port(Some("2001:db8::1")).to_string(), "[2001:db8::1]:53/UDP");
    }
}

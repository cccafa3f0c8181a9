//! The table: its sets, its chains and their rules, which never change. What pods add are elements.

use netlink_packet_netfilter::nftables::{Expressions, InetHookNumber, MetaKey, Register};

use crate::expression::{
    End, address, address_part, destination_port, dnat, drop_it, equals, from_map, in_set, is_dnat,
    is_family, is_to_this_host, jump, leave_chain, mask, masquerade, meta, not_in_set, original_port,
};

/// The name of the table. Its family is inet.
pub const TABLE: &str = "coracle";
/// What the table's comment says before its version.
pub(crate) const TABLE_COMMENT: &str = "made by coracle, version ";
/// Raised by every change of sets, chains or rules. A newer version keeps what the sets of an older one mean.
pub(crate) const VERSION: u32 = 1;

/// Of addresses.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) enum Family {
    V4,
    V6,
}

/// What a part of a key, or of the data of a map, is: nft(8)'s type.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Field {
    Ipv4Addr,
    Ipv6Addr,
    InetProto,
    InetService,
    Ifname,
}

/// A set or map of the table.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) enum Set {
    /// Addresses of pods whose traffic out is masqueraded.
    Masquerade(Family),
    /// Subnets within which it is not: source and destination.
    Subnets(Family),
    /// Protocol and port of the host, to the pod's address and port.
    Ports(Family),
    /// The same for one address of the host.
    HostPorts(Family),
    /// Pods' addresses with protocols and ports of the host that lead to them: clients within their subnet, and on
    /// the host's loopback, are masqueraded.
    Hairpin(Family),
    /// Pods with such ports that are alone in their subnet: twice the address.
    Own(Family),
    /// As [`Self::Hairpin`]: all clients are masqueraded.
    MasqAll(Family),
    /// Interfaces with `route_localnet`.
    Localnet,
}

/// A chain: its name, and hook and priority of one that is no target of jumps.
pub(crate) struct Chain {
    pub(crate) name: &'static str,
    pub(crate) base: Option<(&'static str, InetHookNumber, i32)>,
}

/// A rule of a chain. What it is for is its comment.
pub(crate) struct Rule {
    pub(crate) chain: &'static str,
    pub(crate) comment: &'static str,
    pub(crate) expressions: Vec<Expressions>,
}

// === impl Family ===

impl Family {
    pub(crate) const BOTH: [Self; 2] = [Self::V4, Self::V6];

    /// `NFPROTO_IPV4` or `NFPROTO_IPV6`, which are `AF_INET` and `AF_INET6`.
    pub(crate) fn number(self) -> u8 {
        match self {
            Self::V4 => 2,
            Self::V6 => 10,
        }
    }

    /// Of an address, in bytes.
    pub(crate) fn length(self) -> u32 {
        match self {
            Self::V4 => 4,
            Self::V6 => 16,
        }
    }

    fn field(self) -> Field {
        match self {
            Self::V4 => Field::Ipv4Addr,
            Self::V6 => Field::Ipv6Addr,
        }
    }
}

// === impl Field ===

impl Field {
    /// In bytes, without what fills it up to a register.
    pub(crate) fn length(self) -> u32 {
        match self {
            Self::Ipv4Addr => 4,
            Self::Ipv6Addr | Self::Ifname => 16,
            Self::InetProto => 1,
            Self::InetService => 2,
        }
    }

    /// The number nft(8) has for the type. The kernel keeps it and makes nothing of it.
    pub(crate) fn number(self) -> u32 {
        match self {
            Self::Ipv4Addr => 7,
            Self::Ipv6Addr => 8,
            Self::InetProto => 12,
            Self::InetService => 13,
            Self::Ifname => 41,
        }
    }
}

// === impl Set ===

impl Set {
    pub(crate) const ALL: [Self; 15] = [
        Self::Masquerade(Family::V4),
        Self::Masquerade(Family::V6),
        Self::Subnets(Family::V4),
        Self::Subnets(Family::V6),
        Self::Ports(Family::V4),
        Self::Ports(Family::V6),
        Self::HostPorts(Family::V4),
        Self::HostPorts(Family::V6),
        Self::Hairpin(Family::V4),
        Self::Hairpin(Family::V6),
        Self::Own(Family::V4),
        Self::Own(Family::V6),
        Self::MasqAll(Family::V4),
        Self::MasqAll(Family::V6),
        Self::Localnet,
    ];

    pub(crate) fn by_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|set| set.name() == name)
    }

    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Masquerade(Family::V4) => "masquerade4",
            Self::Masquerade(Family::V6) => "masquerade6",
            Self::Subnets(Family::V4) => "subnets4",
            Self::Subnets(Family::V6) => "subnets6",
            Self::Ports(Family::V4) => "ports4",
            Self::Ports(Family::V6) => "ports6",
            Self::HostPorts(Family::V4) => "hostports4",
            Self::HostPorts(Family::V6) => "hostports6",
            Self::Hairpin(Family::V4) => "hairpin4",
            Self::Hairpin(Family::V6) => "hairpin6",
            Self::Own(Family::V4) => "own4",
            Self::Own(Family::V6) => "own6",
            Self::MasqAll(Family::V4) => "masqall4",
            Self::MasqAll(Family::V6) => "masqall6",
            Self::Localnet => "localnet",
        }
    }

    pub(crate) fn key(self) -> Vec<Field> {
        match self {
            Self::Masquerade(family) => vec![family.field()],
            Self::Subnets(family) | Self::Own(family) => vec![family.field(), family.field()],
            Self::Ports(_) => vec![Field::InetProto, Field::InetService],
            Self::HostPorts(family) | Self::Hairpin(family) | Self::MasqAll(family) => {
                vec![family.field(), Field::InetProto, Field::InetService]
            }
            Self::Localnet => vec![Field::Ifname],
        }
    }

    /// What a map has for a key.
    pub(crate) fn data(self) -> Option<Vec<Field>> {
        match self {
            Self::Ports(family) | Self::HostPorts(family) => Some(vec![family.field(), Field::InetService]),
            _ => None,
        }
    }

    /// Whether the parts of a key are from one value to another. Only for what there is one of a network and not of
    /// a pod: a change of such a set costs the more the larger it is.
    pub(crate) fn is_interval(self) -> bool {
        matches!(self, Self::Subnets(_))
    }
}

// === Chains ===

const GUARD: &str = "guard";
const PREROUTING: &str = "prerouting";
const OUTPUT: &str = "output";
const POSTROUTING: &str = "postrouting";
const PORTS: &str = "ports";
const PORT_SOURCES: &str = "portsources";

/// Priorities of linux/netfilter_ipv4.h: `NF_IP_PRI_RAW`, `NF_IP_PRI_NAT_DST`, `NF_IP_PRI_NAT_SRC`.
const RAW: i32 = -300;
const NAT_DESTINATION: i32 = -100;
const NAT_SOURCE: i32 = 100;

/// 127.0.0.0/8.
const LOOPBACK: &[u8] = &[127];

/// All chains, before those that jump to them.
pub(crate) const CHAINS: &[Chain] = &[
    Chain { name: PORTS, base: None },
    Chain { name: PORT_SOURCES, base: None },
    Chain { name: GUARD, base: Some(("filter", InetHookNumber::PreRouting, RAW)) },
    Chain { name: PREROUTING, base: Some(("nat", InetHookNumber::PreRouting, NAT_DESTINATION)) },
    Chain { name: OUTPUT, base: Some(("nat", InetHookNumber::LocalOut, NAT_DESTINATION)) },
    Chain { name: POSTROUTING, base: Some(("nat", InetHookNumber::PostRouting, NAT_SOURCE)) },
];

/// Where the second part of a key goes whose first part is an address in the first register.
fn behind_address(family: Family) -> Register {
    match family {
        Family::V4 => Register::Reg32_01,
        Family::V6 => Register::Reg2,
    }
}

/// Where the part behind one goes that fills a 32-bit register.
fn next(register: Register) -> Register {
    let number = u32::from(register);
    match register {
        Register::Reg1 | Register::Reg2 => Register::from(8 + (number - 1) * 4 + 1),
        _ => Register::from(number + 1),
    }
}

/// `meta l4proto . th dport`.
fn service(to: Register) -> [Expressions; 2] {
    [meta(MetaKey::L4Proto, to), destination_port(next(to))]
}

/// All rules, in order.
pub(crate) fn rules() -> Vec<Rule> {
    let mut rules = Vec::new();
    let mut rule = |chain, comment, parts: Vec<Vec<Expressions>>| {
        rules.push(Rule { chain, comment, expressions: parts.concat() });
    };
    let of = |family: Family| is_family(family).to_vec();
    let iifname = |to| meta(MetaKey::Iifname, to);
    let set = |set: Set| in_set(set.name());

    for (end, comment) in [
        (End::Destination, "nobody outside reaches the host's loopback"),
        (End::Source, "nobody outside is the host's loopback"),
    ] {
        let loopback =
            vec![address_part(Family::V4, end, 1, Register::Reg1), equals(Register::Reg1, LOOPBACK)];
        let localnet = vec![iifname(Register::Reg1), set(Set::Localnet)];
        rule(GUARD, comment, vec![localnet, of(Family::V4), loopback, vec![drop_it()]]);
    }

    for chain in [PREROUTING, OUTPUT] {
        rule(chain, "ports of this host", vec![is_to_this_host().to_vec(), vec![jump(PORTS)]]);
    }
    for family in Family::BOTH {
        let mut key = vec![address(family, End::Destination, Register::Reg1)];
        key.extend(service(behind_address(family)));
        let to = vec![from_map(Set::HostPorts(family).name()), dnat(family)];
        rule(PORTS, "of one address", vec![of(family), key, to]);
    }
    for family in Family::BOTH {
        let to = vec![from_map(Set::Ports(family).name()), dnat(family)];
        rule(PORTS, "of any address", vec![of(family), service(Register::Reg1).to_vec(), to]);
    }

    rule(POSTROUTING, "who comes by a port of this host", vec![is_dnat().to_vec(), vec![jump(PORT_SOURCES)]]);
    let multicast = vec![
        address_part(Family::V4, End::Destination, 4, Register::Reg1),
        mask(Register::Reg1, [0xf0, 0, 0, 0]),
        equals(Register::Reg1, &[0xe0, 0, 0, 0]),
    ];
    rule(POSTROUTING, "multicast stays", vec![of(Family::V4), multicast, vec![leave_chain()]]);
    let multicast =
        vec![address_part(Family::V6, End::Destination, 1, Register::Reg1), equals(Register::Reg1, &[0xff])];
    rule(POSTROUTING, "multicast stays", vec![of(Family::V6), multicast, vec![leave_chain()]]);
    for family in Family::BOTH {
        let pod = vec![address(family, End::Source, Register::Reg1), set(Set::Masquerade(family))];
        let out = vec![
            address(family, End::Source, Register::Reg1),
            address(family, End::Destination, behind_address(family)),
            not_in_set(Set::Subnets(family).name()),
        ];
        rule(POSTROUTING, "pods, out of their subnet", vec![of(family), pod, out, vec![masquerade()]]);
    }

    let port = |family, set: Set| {
        let behind = behind_address(family);
        vec![
            address(family, End::Destination, Register::Reg1),
            meta(MetaKey::L4Proto, behind),
            original_port(next(behind)),
            in_set(set.name()),
            masquerade(),
        ]
    };
    let ends = |family, set: Set| {
        vec![
            address(family, End::Source, Register::Reg1),
            address(family, End::Destination, behind_address(family)),
            in_set(set.name()),
        ]
    };
    for family in Family::BOTH {
        let subnet = ends(family, Set::Subnets(family));
        let comment = "whose answers would pass the host by";
        rule(PORT_SOURCES, comment, vec![of(family), subnet, port(family, Set::Hairpin(family))]);
        let own = ends(family, Set::Own(family));
        rule(PORT_SOURCES, "the pod itself", vec![of(family), own, vec![masquerade()]]);
    }
    let loopback =
        vec![address_part(Family::V4, End::Source, 1, Register::Reg1), equals(Register::Reg1, LOOPBACK)];
    let hairpin = port(Family::V4, Set::Hairpin(Family::V4));
    rule(PORT_SOURCES, "the host's loopback", vec![of(Family::V4), loopback, hairpin]);
    for family in Family::BOTH {
        rule(PORT_SOURCES, "all clients", vec![of(family), port(family, Set::MasqAll(family))]);
    }
    rules
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_of_a_key_lie_one_register_behind_the_other() {
        assert_eq!(next(Register::Reg1), Register::Reg32_01);
        assert_eq!(next(Register::Reg2), Register::Reg32_05);
        assert_eq!(next(Register::Reg32_01), Register::Reg32_02);
    }

    #[test]
    fn a_set_is_found_by_its_name() {
        for set in Set::ALL {
            assert_eq!(Set::by_name(set.name()), Some(set));
        }
        assert_eq!(Set::by_name("others"), None);
    }
}

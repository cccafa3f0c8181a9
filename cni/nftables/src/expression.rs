//! What rules are made of: the kernel's expressions, in the order nft(8) puts them in, so that it shows them as rules.

use netlink_packet_core::DefaultNla;
use netlink_packet_netfilter::nftables::{
    Bitwise, Cmp, DataAttribute, Expressions, Immediate, Lookup, Meta, MetaKey, Operator, Payload, Register,
    Verdict, VerdictAttribute,
};

use crate::schema::Family;

/// `NFT_PAYLOAD_NETWORK_HEADER` and `NFT_PAYLOAD_TRANSPORT_HEADER`.
const NETWORK_HEADER: u32 = 1;
const TRANSPORT_HEADER: u32 = 2;
/// `NFT_LOOKUP_F_INV`.
const LOOKUP_INVERTED: u32 = 1;
/// `NF_DROP`, of linux/netfilter.h.
const DROP: u32 = 0;
/// `IPS_DST_NAT`, of linux/netfilter/nf_conntrack_common.h.
const STATUS_DNAT: u32 = 1 << 5;
/// `RTN_LOCAL`, of linux/rtnetlink.h.
const ROUTE_LOCAL: u32 = 2;
/// `NF_NAT_RANGE_PROTO_RANDOM_FULLY`, of linux/netfilter/nf_nat.h.
const RANDOM_FULLY: u32 = 1 << 4;

fn attribute(kind: u16, value: &[u8]) -> DefaultNla {
    DefaultNla::new(kind, value.to_vec())
}

fn other(name: &str, attributes: Vec<DefaultNla>) -> Expressions {
    Expressions::Other { expression_type: name.to_owned(), attributes }
}

fn number(register: Register) -> [u8; 4] {
    u32::from(register).to_be_bytes()
}

/// Which end of a packet's way.
#[derive(Clone, Copy)]
pub(crate) enum End {
    Source,
    Destination,
}

pub(crate) fn meta(key: MetaKey, to: Register) -> Expressions {
    Expressions::Meta(vec![Meta::Key(key), Meta::DestinationRegister(to)])
}

fn payload(base: u32, offset: u32, length: u32, to: Register) -> Expressions {
    Expressions::Payload(vec![
        Payload::DestinationRegister(to),
        Payload::Base(base),
        Payload::Offset(offset),
        Payload::Len(length),
    ])
}

/// The first bytes of an address.
pub(crate) fn address_part(family: Family, end: End, length: u32, to: Register) -> Expressions {
    let offset = match (family, end) {
        (Family::V4, End::Source) => 12,
        (Family::V4, End::Destination) => 16,
        (Family::V6, End::Source) => 8,
        (Family::V6, End::Destination) => 24,
    };
    payload(NETWORK_HEADER, offset, length, to)
}

pub(crate) fn address(family: Family, end: End, to: Register) -> Expressions {
    address_part(family, end, family.length(), to)
}

/// The destination port, which TCP, UDP and SCTP have in the same place.
pub(crate) fn destination_port(to: Register) -> Expressions {
    payload(TRANSPORT_HEADER, 2, 2, to)
}

fn compare(operator: Operator, register: Register, value: &[u8]) -> Expressions {
    Expressions::Cmp(vec![
        Cmp::SourceRegister(register),
        Cmp::Op(operator),
        Cmp::Data(DataAttribute::Value(value.to_vec())),
    ])
}

pub(crate) fn equals(register: Register, value: &[u8]) -> Expressions {
    compare(Operator::Equal, register, value)
}

/// Goes on only with packets of one family.
pub(crate) fn is_family(family: Family) -> [Expressions; 2] {
    [meta(MetaKey::Nfproto, Register::Reg1), equals(Register::Reg1, &[family.number()])]
}

pub(crate) fn mask(register: Register, mask: [u8; 4]) -> Expressions {
    Expressions::Bitwise(vec![
        Bitwise::SourceRegister(register),
        Bitwise::DestinationRegister(register),
        Bitwise::Length(4),
        Bitwise::Mask(DataAttribute::Value(mask.to_vec())),
        Bitwise::Xor(DataAttribute::Value(vec![0; 4])),
    ])
}

/// Goes on only if the set has what is in the first register.
pub(crate) fn in_set(set: &str) -> Expressions {
    Expressions::Lookup(vec![Lookup::Set(set.to_owned()), Lookup::SourceRegister(Register::Reg1)])
}

/// Goes on only if the set lacks what is in the first register.
pub(crate) fn not_in_set(set: &str) -> Expressions {
    Expressions::Lookup(vec![
        Lookup::Set(set.to_owned()),
        Lookup::SourceRegister(Register::Reg1),
        Lookup::Flags(LOOKUP_INVERTED),
    ])
}

/// Goes on only if the map has what is in the first register, and puts what it has for it there.
pub(crate) fn from_map(map: &str) -> Expressions {
    Expressions::Lookup(vec![
        Lookup::Set(map.to_owned()),
        Lookup::SourceRegister(Register::Reg1),
        Lookup::DestinationRegister(Register::Reg1),
    ])
}

/// Goes on only with packets of connections whose destination was changed.
pub(crate) fn is_dnat() -> [Expressions; 3] {
    // NFTA_CT_DREG; NFTA_CT_KEY: NFT_CT_STATUS.
    let status = vec![attribute(1, &number(Register::Reg1)), attribute(2, &2_u32.to_be_bytes())];
    [
        other("ct", status),
        mask(Register::Reg1, STATUS_DNAT.to_ne_bytes()),
        compare(Operator::NotEqual, Register::Reg1, &[0; 4]),
    ]
}

/// `ct original proto-dst`: the port a connection was made to, before it was led elsewhere.
pub(crate) fn original_port(to: Register) -> Expressions {
    // NFTA_CT_DREG; NFTA_CT_KEY: NFT_CT_PROTO_DST; NFTA_CT_DIRECTION: IP_CT_DIR_ORIGINAL.
    let key = vec![attribute(1, &number(to)), attribute(2, &12_u32.to_be_bytes()), attribute(3, &[0])];
    other("ct", key)
}

/// Goes on only with packets to an address of this host's own.
pub(crate) fn is_to_this_host() -> [Expressions; 2] {
    // NFTA_FIB_DREG; NFTA_FIB_RESULT: NFT_FIB_RESULT_ADDRTYPE; NFTA_FIB_FLAGS: NFTA_FIB_F_DADDR.
    let result = vec![
        attribute(1, &number(Register::Reg1)),
        attribute(2, &3_u32.to_be_bytes()),
        attribute(3, &2_u32.to_be_bytes()),
    ];
    [other("fib", result), equals(Register::Reg1, &ROUTE_LOCAL.to_ne_bytes())]
}

fn verdict(code: Verdict, chain: Option<&str>) -> Expressions {
    let mut attributes = vec![VerdictAttribute::Code(code)];
    attributes.extend(chain.map(|chain| VerdictAttribute::Chain(chain.to_owned())));
    Expressions::Immediate(vec![
        Immediate::DestinationRegister(Register::Verdict),
        Immediate::Data(DataAttribute::Verdict(attributes)),
    ])
}

pub(crate) fn drop_it() -> Expressions {
    verdict(Verdict::Other(DROP), None)
}

pub(crate) fn leave_chain() -> Expressions {
    verdict(Verdict::Return, None)
}

pub(crate) fn jump(chain: &str) -> Expressions {
    verdict(Verdict::Jump, Some(chain))
}

pub(crate) fn masquerade() -> Expressions {
    // NFTA_MASQ_FLAGS.
    other("masq", vec![attribute(1, &RANDOM_FULLY.to_be_bytes())])
}

/// Changes the destination to the address in the first register and the port in the one behind it.
pub(crate) fn dnat(family: Family) -> Expressions {
    let port = match family {
        Family::V4 => Register::Reg32_01,
        Family::V6 => Register::Reg2,
    };
    // NFTA_NAT_TYPE: NFT_NAT_DNAT; NFTA_NAT_FAMILY; NFTA_NAT_REG_ADDR_MIN; NFTA_NAT_REG_PROTO_MIN.
    let attributes = vec![
        attribute(1, &1_u32.to_be_bytes()),
        attribute(2, &u32::from(family.number()).to_be_bytes()),
        attribute(3, &number(Register::Reg1)),
        attribute(5, &number(port)),
    ];
    other("nat", attributes)
}

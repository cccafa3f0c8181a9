//! Connections the kernel remembers: a flow of UDP goes where its first packet went, for as long as it is not silent.

use std::net::{IpAddr, UdpSocket};
use std::os::fd::BorrowedFd;

use coracle_netlink::Batch;
use netlink_packet_core::{DefaultNla, NLA_F_NESTED, Nla, ParseableParametrized};
use netlink_packet_netfilter::conntrack::{
    ConntrackAttribute, ConntrackMessage, IPTuple, ProtoTuple, Protocol as ConntrackProtocol, Tuple,
};
use netlink_packet_netfilter::{
    NetfilterHeader, NetfilterMessage, NetfilterMessageInner, NetfilterProtoFamily, NetfilterSubsystem,
};
use rustix::io::Errno;

use crate::entry::family;
use crate::schema::Family;
use crate::socket::Kept;
use crate::{Error, PortMap, Protocol};

/// `IPCTNL_MSG_CT_GET`.
const GET: u8 = 1;
/// `CTA_FILTER`, and in it `CTA_FILTER_ORIG_FLAGS`: which parts of the tuple count. Linux before 5.8 knows neither,
/// and tells all connections.
const FILTER: u16 = 25;
const FILTER_ORIGINAL: u16 = 1;
/// `CTA_PROTO_NUM` and `CTA_PROTO_DST_PORT` among the flags.
const FILTER_PROTOCOL: u32 = 1 << 3;
const FILTER_DESTINATION_PORT: u32 = 1 << 5;

/// The connections that a network namespace's kernel remembers.
#[derive(Debug)]
pub struct Conntrack {
    socket: Kept,
}

/// A flow, seen from where it began.
#[derive(Clone, Debug)]
struct Flow {
    original: Vec<Tuple>,
    destination: IpAddr,
    /// Where its answers come from: the pod, if it is led there.
    answers: (IpAddr, u16),
}

// === impl Conntrack ===

impl Conntrack {
    /// That of the network namespace the calling thread is in.
    ///
    /// # Errors
    /// [`Error::Netlink`].
    pub fn open() -> Result<Self, Error> {
        Ok(Self { socket: Kept::take()? })
    }

    /// That of another network namespace: an open `/proc/<pid>/ns/net`, or a pidfd.
    ///
    /// # Errors
    /// [`Error::Netlink`].
    pub fn open_in(namespace: BorrowedFd<'_>) -> Result<Self, Error> {
        Ok(Self { socket: Kept::open_in(namespace)? })
    }

    /// Has flows of UDP that came before their port was mapped, or were led elsewhere, begin anew: those to the
    /// port on this host that do not lead to the pod. To be called, in the host's network namespace, once the port
    /// is mapped; other protocols' ports are passed over. Tells how many flows that was.
    ///
    /// # Errors
    /// [`Error::Netlink`].
    pub fn forget_before(&mut self, maps: &[PortMap]) -> Result<usize, Error> {
        self.forget(maps, |map, flow| {
            flow.answers != (map.pod, map.pod_port)
                && match map.host {
                    Some(host) => host == flow.destination,
                    None => is_of_this_host(flow.destination),
                }
        })
    }

    /// Has flows of UDP end that lead to the pod by one of its ports. To be called once the port is mapped no more.
    /// Tells how many flows that was.
    ///
    /// # Errors
    /// [`Error::Netlink`].
    pub fn forget_led(&mut self, maps: &[PortMap]) -> Result<usize, Error> {
        self.forget(maps, |map, flow| {
            flow.answers == (map.pod, map.pod_port) && map.host.is_none_or(|host| host == flow.destination)
        })
    }

    fn forget(&mut self, maps: &[PortMap], ends: impl Fn(&PortMap, &Flow) -> bool) -> Result<usize, Error> {
        let mut forgotten = 0;
        for map in maps.iter().filter(|map| map.protocol == Protocol::Udp) {
            let family = family(map.pod);
            let flows = self.flows(family, map.host_port)?;
            let mut batch = Batch::new();
            for flow in flows.into_iter().filter(|flow| ends(map, flow)) {
                let original = vec![ConntrackAttribute::CtaTupleOrig(flow.original)];
                let message = message(family, ConntrackMessage::Delete(original));
                batch.push(format!("forget a flow to port {map}"), 0, &message);
            }
            forgotten += batch.len();
            let mut outcome = self.socket.attempt(batch)?;
            // It may have ended by itself.
            outcome.failures.retain(|failure| failure.errno != Errno::NOENT);
            outcome.into_result()?;
        }
        Ok(forgotten)
    }

    /// Flows of UDP to a port.
    fn flows(&mut self, family: Family, port: u16) -> Result<Vec<Flow>, Error> {
        let what = format!("list flows of UDP to port {port}");
        let tuple = ConntrackAttribute::CtaTupleOrig(vec![Tuple::Proto(vec![
            ProtoTuple::Protocol(ConntrackProtocol::Udp),
            ProtoTuple::DestinationPort(port),
        ])]);
        let mut value = vec![0; tuple.value_len()];
        tuple.emit_value(&mut value);
        let flags = FILTER_PROTOCOL | FILTER_DESTINATION_PORT;
        let flags = [&8_u16.to_ne_bytes()[..], &FILTER_ORIGINAL.to_ne_bytes(), &flags.to_ne_bytes()].concat();
        // Raw, because a `ConntrackAttribute::Other` is never marked as nested, as the filter must be.
        let request = NetfilterMessageInner::Other {
            subsys: NetfilterSubsystem::Conntrack,
            message_type: GET,
            attributes: vec![
                DefaultNla::new(tuple.kind() | NLA_F_NESTED, value),
                DefaultNla::new(FILTER | NLA_F_NESTED, flags),
            ],
        };
        let mut flows = Vec::new();
        for message in self.socket.dump(what.clone(), &message(family, request))? {
            let parsed = NetfilterMessage::parse_with_param(&message.payload, message.kind)
                .map_err(|source| Error::Malformed { what: what.clone().into(), source })?;
            let NetfilterMessageInner::Conntrack(ConntrackMessage::New(attributes)) = parsed.inner else {
                continue;
            };
            flows.extend(Flow::of(attributes, port));
        }
        Ok(flows)
    }
}

fn message(family: Family, message: impl Into<NetfilterMessageInner>) -> NetfilterMessage {
    let family = match family {
        Family::V4 => NetfilterProtoFamily::IPv4,
        Family::V6 => NetfilterProtoFamily::IPv6,
    };
    NetfilterMessage::new(NetfilterHeader::new(family, 0, 0), message)
}

/// Only to such an address can a socket be bound.
fn is_of_this_host(address: IpAddr) -> bool {
    UdpSocket::bind((address, 0)).is_ok()
}

// === impl Flow ===

impl Flow {
    /// If it is one of UDP to a port.
    fn of(attributes: Vec<ConntrackAttribute>, port: u16) -> Option<Self> {
        let (mut original, mut reply) = (None, None);
        for attribute in attributes {
            match attribute {
                ConntrackAttribute::CtaTupleOrig(tuple) => original = Some(tuple),
                ConntrackAttribute::CtaTupleReply(tuple) => reply = Some(tuple),
                _ => {}
            }
        }
        let (original, reply) = original.zip(reply)?;
        let is_udp = protocols(&original).any(|part| *part == ProtoTuple::Protocol(ConntrackProtocol::Udp));
        let to_port = protocols(&original).any(|part| *part == ProtoTuple::DestinationPort(port));
        if !is_udp || !to_port {
            return None;
        }
        let destination = addresses(&original).find_map(|part| match part {
            IPTuple::DestinationAddress(address) => Some(*address),
            _ => None,
        })?;
        let source = addresses(&reply).find_map(|part| match part {
            IPTuple::SourceAddress(address) => Some(*address),
            _ => None,
        })?;
        let source_port = protocols(&reply).find_map(|part| match part {
            ProtoTuple::SourcePort(port) => Some(*port),
            _ => None,
        })?;
        Some(Self { original, destination, answers: (source, source_port) })
    }
}

fn addresses(tuple: &[Tuple]) -> impl Iterator<Item = &IPTuple> {
    tuple.iter().filter_map(|part| if let Tuple::Ip(parts) = part { Some(parts) } else { None }).flatten()
}

fn protocols(tuple: &[Tuple]) -> impl Iterator<Item = &ProtoTuple> {
    tuple.iter().filter_map(|part| if let Tuple::Proto(parts) = part { Some(parts) } else { None }).flatten()
}

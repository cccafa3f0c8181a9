//! Neighbours learn at once that an address is another pod's now.
//!
//! Whoever has spoken with the pod that had an address before knows its hardware address, and would go on to use that
//! for some seconds. A pod's hardware address therefore follows from its address, and stays right. Where that cannot
//! be (one is asked for, or there is a second address) it is told: a broadcast, which every pod on the bridge receives,
//! so it costs the more the more there are.

use std::net::{IpAddr, Ipv6Addr, SocketAddrV6};
use std::os::fd::BorrowedFd;
use std::{fs, io};

use coracle_cni::{CniError, IpConfig, PluginConfig, code};
use coracle_linux::in_network_namespace;
use coracle_netlink::{Batch, Link, LinkChange, LinkId, MacAddress, Socket};
use rustix::net::{
    AddressFamily, SendFlags, SocketFlags, SocketType, bind, ipproto, sendto, socket_with, sockopt,
};
use sha2::{Digest, Sha256};

use super::failure::{failure, file, kernel};

/// `ff02::1`.
const ALL_NODES: Ipv6Addr = Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, 1);
/// What RFC 4861 has for everything it describes, so that nobody from beyond the link can say it.
const HOP_LIMIT: u32 = 255;

/// The hardware address of a pod with these addresses: of IPv4 the first one decides, then of IPv6.
pub(crate) fn mac_of(ips: &[IpConfig]) -> Option<MacAddress> {
    decisive(ips).map(|address| match address {
        IpAddr::V4(address) => {
            let [a, b, c, d] = address.octets();
            MacAddress([0x0a, 0x58, a, b, c, d])
        }
        IpAddr::V6(address) => {
            let hash = Sha256::digest(address.octets());
            MacAddress([0x0e, hash[0], hash[1], hash[2], hash[3], hash[4]])
        }
    })
}

fn decisive(ips: &[IpConfig]) -> Option<IpAddr> {
    let addresses = || ips.iter().map(|ip| ip.address.addr());
    addresses().find(IpAddr::is_ipv4).or_else(|| addresses().next())
}

/// Tells the addresses of a pod's interface, as far as nobody can know. What is said before both ends work nobody hears:
/// see [`super::veth::settle`]. Of addresses of IPv6 that are `tentative` nothing can be told yet.
///
/// # Errors
/// [`code::KERNEL`].
pub(crate) fn announce(
    config: &PluginConfig,
    pod: (&mut Socket, BorrowedFd<'_>),
    inside: &Link,
    ips: &[IpConfig],
    tentative: bool,
) -> Result<(), CniError> {
    let Some(mac) = inside.mac else { return Ok(()) };
    let follows = decisive(ips).filter(|_| mac_of(ips) == Some(mac));
    let unknown = || ips.iter().map(|ip| ip.address.addr()).filter(|address| Some(*address) != follows);
    if unknown().next().is_none() {
        return Ok(());
    }
    let (socket, namespace) = pod;
    if unknown().any(|address| address.is_ipv4()) {
        let path = "/proc/sys/net/ipv4/conf/all/arp_notify";
        in_network_namespace(namespace, || fs::write(path, "1"))
            .and_then(|written| written)
            .map_err(|error| file(config, "write to", path, &error))?;
        // With that the kernel tells it when the hardware address is set, be it the same.
        let mut batch = Batch::new();
        batch.change_link(LinkId::Index(inside.index), &LinkChange { mac: Some(mac), ..Default::default() });
        socket.execute(batch).map_err(kernel(config))?;
    }
    for address in unknown().filter(|_| !tentative) {
        let IpAddr::V6(address) = address else { continue };
        advertise(namespace, inside.index, mac, address).map_err(|error| {
            failure(config, code::KERNEL, format_args!("advertise {address} to its neighbours: {error}"))
        })?;
    }
    Ok(())
}

/// Sends an unsolicited neighbour advertisement (RFC 4861, section 7.2.6).
fn advertise(namespace: BorrowedFd<'_>, link: u32, mac: MacAddress, address: Ipv6Addr) -> io::Result<()> {
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    let make = || socket_with(AddressFamily::INET6, SocketType::RAW, flags, Some(ipproto::ICMPV6));
    let socket = in_network_namespace(namespace, make)??;
    sockopt::set_ipv6_multicast_hops(&socket, HOP_LIMIT)?;
    bind(&socket, &SocketAddrV6::new(address, 0, 0, 0))?;
    sendto(
        &socket,
        &advertisement(mac, address),
        SendFlags::empty(),
        &SocketAddrV6::new(ALL_NODES, 0, 0, link),
    )?;
    Ok(())
}

/// Its checksum is the kernel's to fill in.
fn advertisement(mac: MacAddress, address: Ipv6Addr) -> Vec<u8> {
    // Type 136, code 0; the flag that overrides what is known; option 2, of eight bytes: the hardware address.
    [&[136, 0, 0, 0, 0x20, 0, 0, 0][..], &address.octets(), &[2, 1], &mac.0].concat()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ips(addresses: &[&str]) -> Vec<IpConfig> {
        let ip =
            |address: &&str| IpConfig { interface: None, address: address.parse().unwrap(), gateway: None };
        addresses.iter().map(ip).collect()
    }

    #[test]
    fn a_hardware_address_follows_from_the_address() {
        let four = mac_of(&ips(&["10.1.2.3/24"])).unwrap();
        assert_eq!(four.to_string(), "0a:58:0a:01:02:03");
        assert_eq!(mac_of(&ips(&["fd00::1/64", "10.1.2.3/24"])), Some(four));
        let six = mac_of(&ips(&["fd00::1/64"])).unwrap();
        assert!(six.is_assignable() && six.0[0] & 2 == 2, "{six}");
        assert_ne!(mac_of(&ips(&["fd00::2/64"])), Some(six));
        assert_eq!(mac_of(&[]), None);
    }
}

//! What pods' networks need of the kernel, found by using it in a network namespace that is thrown away, and of the
//! host, whose own network is only looked at.

use std::fs;
use std::fs::File;
use std::os::fd::AsFd;
use std::thread;

use anyhow::{Context, anyhow};
use coracle_cni::first_network;
use coracle_linux::unshare_network_namespace;
use coracle_netlink::{Batch, Bridge, LinkId, MacAddress, Peer, Protocol, Socket, Veth};
use coracle_nftables::{Entry, Nftables, Owner, PortMap, Protocol as Transport};
use ipnet::{IpNet, Ipv4Net};

use super::Finding;
use crate::config::{Config, NetworkConfig};
use crate::words::whole;

const OWN: &str = "pods that are not in the host's network cannot start, unless a CNI network is configured that can do \
                   without";

pub(super) fn check(config: &Config) -> Vec<Finding> {
    let tried = thread::scope(|scope| scope.spawn(tried).join());
    let mut findings = tried.unwrap_or_else(|_| {
        vec![Finding::weaker("pods' network", "the check itself failed", OWN, "run it again, and report it")]
    });
    findings.push(configured(&config.network));
    findings.extend(overlaps(&config.network));
    findings.extend(dropped_by_others(&config.network));
    findings
}

/// What a thread finds in a network namespace of its own.
fn tried() -> Vec<Finding> {
    if let Err(errno) = unshare_network_namespace() {
        let remedy = "run as root with CAP_SYS_ADMIN";
        return vec![Finding::weaker("pods' network", errno.to_string(), OWN, remedy)];
    }
    let links = "boot a kernel that has them, or load the modules bridge and veth";
    let rules = "boot a kernel of 5.10 or newer with CONFIG_NF_TABLES, NFT_NAT, NFT_MASQ, NFT_CT and NFT_FIB_INET, or \
                 load their modules";
    let sysctl = "mount /proc/sys for writing";
    [
        ("bridge and veth", make_links(), "pods can be connected", links),
        ("nftables", make_rules(), "ports can be mapped, and pods reach the world", rules),
        ("forwarding", turn_on_forwarding(), "can be turned on", sysctl),
    ]
    .map(|(name, tried, found, remedy)| match tried {
        Ok(()) => Finding::ok(name, found),
        Err(error) => Finding::weaker(name, whole(&error), OWN, remedy),
    })
    .into()
}

fn make_links() -> anyhow::Result<()> {
    let mut socket = Socket::open(Protocol::Route)?;
    let mut batch = Batch::new();
    batch.create_bridge(&Bridge {
        name: "bridge",
        mac: MacAddress([2, 0, 0, 0, 0, 1]),
        mtu: None,
        vlan_filtering: false,
    });
    socket.execute(batch)?;
    let bridge = socket.link(LinkId::Name("bridge"))?.ok_or_else(|| anyhow!("the bridge is gone"))?;
    let own = File::open("/proc/thread-self/ns/net").context("cannot open /proc/thread-self/ns/net")?;
    let peer = Peer { name: "pod", namespace: own.as_fd(), mac: None };
    let mut batch = Batch::new();
    batch.create_veth(&Veth { name: "host", controller: Some(bridge.index), mtu: None, peer });
    socket.execute(batch)?;
    Ok(())
}

fn make_rules() -> anyhow::Result<()> {
    let owner = Owner::new("coracle-check", "check", "eth0")?;
    let pod = Ipv4Net::new([10, 83, 0, 2].into(), 16)?;
    let port =
        PortMap { protocol: Transport::Tcp, host: None, host_port: 80, pod: pod.addr().into(), pod_port: 80 };
    Nftables::open()?.add(&owner, &[Entry::Masquerade(IpNet::V4(pod)), Entry::Port(port)])?;
    Ok(())
}

fn turn_on_forwarding() -> anyhow::Result<()> {
    let path = "/proc/sys/net/ipv4/ip_forward";
    fs::write(path, "1").with_context(|| format!("cannot write {path}"))
}

/// Which network pods get.
fn configured(network: &NetworkConfig) -> Finding {
    let name = "CNI network";
    match first_network(&network.cni_conf_dir) {
        Ok(Some((path, list))) => Finding::ok(name, format!("{} of {}", list.name, path.display())),
        Ok(None) => {
            let ranges: Vec<String> = network.pod_cidrs().iter().map(ToString::to_string).collect();
            let ranges = ranges.join(" and ");
            Finding::ok(name, format!("the default one: {ranges} on bridge {}", network.bridge_name))
        }
        Err(error) => Finding::weaker(
            name,
            error.to_string(),
            "pods that are not in the host's network stay Pending",
            "mend the file, or take it away for the default network",
        ),
    }
}

/// Ways that the host has to others by addresses which pods would have.
fn overlaps(network: &NetworkConfig) -> Vec<Finding> {
    let name = "pods' addresses";
    if matches!(first_network(&network.cni_conf_dir), Ok(Some(_)) | Err(_)) {
        return Vec::new();
    }
    let found = (|| {
        let mut socket = Socket::open(Protocol::Route)?;
        let mut found = Vec::new();
        for route in socket.routes()?.into_iter().filter(|route| !route.is_default()) {
            let link = route.link.map(|link| socket.link(LinkId::Index(link))).transpose()?.flatten();
            let link = link.map(|link| link.name).unwrap_or_default();
            if link != network.bridge_name {
                found.push((route.destination, link));
            }
        }
        Ok::<_, coracle_netlink::Error>(found)
    })();
    let routes = match found {
        Ok(routes) => routes,
        Err(error) => {
            return vec![Finding::weaker(name, error.to_string(), "overlaps are not seen", "run as root")];
        }
    };
    let ranges = network.pod_cidrs();
    let overlap = |(destination, link): (IpNet, String)| {
        let range =
            ranges.iter().find(|range| range.contains(&destination) || destination.contains(*range))?;
        Some(Finding::weaker(
            name,
            format!("{range} overlaps the host's route to {destination} by {link}"),
            "pods do not reach what is there, and this host may not either",
            "set podCIDR to addresses that nobody else has",
        ))
    };
    routes.into_iter().filter_map(overlap).collect()
}

/// Whether somebody's firewall drops what this host forwards to and from pods of the default network. Nothing in the
/// agent's own table could help that.
pub(crate) fn dropped_by_others(network: &NetworkConfig) -> Option<Finding> {
    if !matches!(first_network(&network.cni_conf_dir), Ok(None)) {
        return None;
    }
    let bridge = &network.bridge_name;
    let name = "others' firewalls";
    let drops = match Nftables::open().and_then(|mut table| table.forward_drops(bridge)) {
        Ok(drops) if drops.is_empty() => return None,
        Ok(drops) => drops,
        Err(error) => {
            return Some(Finding::weaker(name, error.to_string(), "they are not seen", "run as root"));
        }
    };
    Some(Finding::weaker(
        name,
        format!("{} drops what is forwarded, and no rule is about {bridge}", drops.join(", and ")),
        "pods reach nobody beyond this host, and nobody beyond it reaches them",
        &format!(
            "have it accept what comes from {bridge} and goes to it: beside Docker by `iptables -I DOCKER-USER -i \
             {bridge} -j ACCEPT` and the same with -o; for others see docs/limits.md"
        ),
    ))
}

//! bridge: pods of a network on a bridge of the host.
//!
//! Configuration and results are those of the reference plugin of this name. Beyond it: a veth pair that is left of an
//! ADD that did not come to its end is replaced; without `mtu` pods get that of the host's default route; a range of
//! addresses that the host reaches elsewhere is refused; the pod's hardware address follows from its address; GC collects
//! pairs whose pods are gone.
//!
//! The pair is made in the bridge and in the pod at once; what follows is one batch for the pod's namespace. What an ADD
//! costs does not depend on how many pods there are.

mod check;
mod config;
mod device;
mod gateway;

use std::os::fd::{AsFd, BorrowedFd};

use coracle_cni::{AddResult, Call, CniError, GcCall, Plugin, StatusCall, code};
use coracle_netlink::{AddressOptions, Batch, Link, LinkChange, LinkId, MacAddress, Protocol, Socket};

use self::config::Config;
use crate::interface::announce::{announce, mac_of};
use crate::interface::failure::{failure, kernel};
use crate::interface::owed::Owed;
use crate::interface::pod::{self, Preparation, link_told, push_routes};
use crate::interface::told::{interface_in_pod, interface_of};
use crate::interface::{forwarding, masquerade, veth};

/// The plugin.
#[derive(Clone, Copy, Debug)]
pub struct Bridge;

/// Of the result's interfaces: the bridge, the host's end of the pair, the pod's end.
const POD: usize = 2;

impl Plugin for Bridge {
    fn kind(&self) -> &'static str {
        "bridge"
    }

    fn add(&self, call: &Call) -> Result<AddResult, CniError> {
        let config = Config::read(call)?;
        let namespace = pod::namespace(call)?;
        let mut host = Socket::open(Protocol::Route).map_err(kernel(&call.config))?;
        let mtu = match config.mtu {
            Some(mtu) => Some(mtu),
            None => host.default_route_mtu().map_err(kernel(&call.config))?,
        };
        let bridge = device::ensure(&mut host, call, &config, mtu)?;
        let added =
            Attachment { call, config: &config, namespace: namespace.as_fd(), bridge, mtu }.add(&mut host);
        if added.is_err() {
            // Of what is left DEL will tell.
            let _ = Owed::read(&call.config).take_back(call);
        }
        added
    }

    fn del(&self, call: &Call) -> Result<(), CniError> {
        Owed::read(&call.config).take_back(call)
    }

    fn check(&self, call: &Call) -> Result<(), CniError> {
        check::check(call, &Config::read(call)?)
    }

    fn gc(&self, call: &GcCall) -> Result<(), CniError> {
        Owed::read(&call.config).collect(call)
    }

    fn status(&self, call: &StatusCall) -> Result<(), CniError> {
        let config: config::Fields = call.config.parse()?;
        config.ipam.status(call)
    }

    fn repair(&self, call: &Call) -> Result<(), CniError> {
        if Config::read(call)?.ip_masq { masquerade::repair(call) } else { Ok(()) }
    }
}

/// An ADD on its way.
struct Attachment<'a> {
    call: &'a Call,
    config: &'a Config,
    namespace: BorrowedFd<'a>,
    bridge: Link,
    mtu: Option<u32>,
}

impl Attachment<'_> {
    fn add(&self, host: &mut Socket) -> Result<AddResult, CniError> {
        let ipam = &self.config.ipam;
        let (mut result, pair) = if ipam.wants_interface() {
            let pair = self.create_pair(host, true, None)?;
            let mut batch = Batch::new();
            let up = LinkChange { up: Some(true), ..Default::default() };
            batch.change_link(LinkId::Name(&self.call.ifname), &up);
            let mut pod = pod::socket(&self.call.config, self.namespace)?;
            pod.execute(batch).map_err(kernel(&self.call.config))?;
            (ipam.add(self.call)?, pair)
        } else {
            let result = if ipam.is_none() { AddResult::default() } else { ipam.add(self.call)? };
            let ipv6 = result.ips.iter().any(|ip| ip.address.addr().is_ipv6());
            let pair = self.create_pair(host, ipv6, mac_of(&result.ips))?;
            (result, pair)
        };
        gateway::complete(self.config, &mut result);
        for ip in &mut result.ips {
            ip.interface = Some(POD);
        }
        if !self.config.dns.is_empty() {
            result.dns = self.config.dns.clone();
        }

        if self.config.is_gateway {
            gateway::ensure(host, self.call, self.config, &self.bridge, &result.ips)?;
            let has = |ipv4: bool| result.ips.iter().any(|ip| ip.address.addr().is_ipv4() == ipv4);
            forwarding::enable(&self.call.config, host, has(true), has(false))?;
        }
        let inside = self.configure_pod(host, &pair, &result)?;
        if self.config.ip_masq {
            masquerade::add(self.call, result.ips.iter().map(|ip| ip.address))?;
        }
        result.interfaces =
            vec![interface_of(&self.bridge), interface_of(&pair), interface_in_pod(self.call, &inside)];
        Ok(result)
    }

    fn create_pair(&self, host: &mut Socket, ipv6: bool, mac: Option<MacAddress>) -> Result<Link, CniError> {
        let preparation = Preparation { ipv6, detect_duplicates: self.config.detect_duplicates };
        pod::prepare(&self.call.config, self.namespace, preparation)?;
        let wanted = veth::Wanted {
            namespace: self.namespace,
            controller: Some(self.bridge.index),
            mtu: self.mtu,
            mac: self.config.mac.or(mac),
            hairpin: self.config.hairpin.then_some(true),
            isolated: self.config.isolated.then_some(true),
        };
        let pair = veth::create(host, self.call, &wanted)?;
        device::set_vlans(host, self.call, self.config, &pair)?;
        Ok(pair)
    }

    /// Tells the pod's end as it is then.
    fn configure_pod(&self, host: &mut Socket, pair: &Link, result: &AddResult) -> Result<Link, CniError> {
        let failed = kernel(&self.call.config);
        let Some(index) = pair.peer else {
            return Err(failure(
                &self.call.config,
                code::KERNEL,
                format_args!("{} has no other end", pair.name),
            ));
        };
        let mut pod = pod::socket(&self.call.config, self.namespace)?;
        let mut batch = Batch::new();
        if !self.config.disable_container_interface {
            batch.change_link(LinkId::Index(index), &LinkChange { up: Some(true), ..Default::default() });
        }
        let options =
            AddressOptions { detect_duplicates: self.config.detect_duplicates, ..Default::default() };
        for ip in &result.ips {
            batch.add_address(index, ip.address, options);
        }
        push_routes(&mut batch, index, result);
        batch.get_link(LinkId::Index(index));
        let inside = link_told(&self.call.config, &pod.execute(batch).map_err(&failed)?)?;

        veth::settle(host, self.call, pair)?;
        let tentative = self.config.detect_duplicates;
        announce(&self.call.config, (&mut pod, self.namespace), &inside, &result.ips, tentative)?;
        Ok(inside)
    }
}

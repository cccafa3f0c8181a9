//! loopback: a pod's loopback interface.
//!
//! As the reference plugin of this name: whatever interface it is called for, it is `lo`. A result before it is passed
//! on as it is.

use std::os::fd::AsFd;

use coracle_cni::{AddResult, Call, CniError, GcCall, IpConfig, Plugin, StatusCall};
use coracle_netlink::{Batch, LinkChange, LinkId, Socket};
use ipnet::IpNet;

use crate::interface::check::{as_told, has_addresses, is_up, link};
use crate::interface::failure::kernel;
use crate::interface::pod;
use crate::interface::told::interface_in_pod;

/// The plugin.
#[derive(Clone, Copy, Debug)]
pub struct Loopback;

/// The interface.
const LO: &str = "lo";

impl Plugin for Loopback {
    fn kind(&self) -> &'static str {
        "loopback"
    }

    fn add(&self, call: &Call) -> Result<AddResult, CniError> {
        let namespace = pod::namespace(call)?;
        let mut socket = pod::socket(&call.config, namespace.as_fd())?;
        set(call, &mut socket, true)?;
        if let Some(result) = &call.config.prev_result {
            return Ok(result.clone());
        }
        let lo = pod::link(&call.config, &mut socket, LO)?;
        let ips = socket.addresses(Some(lo.index)).map_err(kernel(&call.config))?;
        let ips =
            ips.into_iter().map(|one| IpConfig { interface: Some(0), address: one.address, gateway: None });
        let interface = interface_in_pod(call, &lo);
        Ok(AddResult { interfaces: vec![interface], ips: ips.collect(), ..AddResult::default() })
    }

    fn del(&self, call: &Call) -> Result<(), CniError> {
        // What ends has no use for it.
        let Some(namespace) = call.netns.as_ref().filter(|_| !call.namespace_ends) else { return Ok(()) };
        // A namespace that is gone has none.
        let Ok(namespace) = namespace.open() else { return Ok(()) };
        set(call, &mut pod::socket(&call.config, namespace.as_fd())?, false)
    }

    fn check(&self, call: &Call) -> Result<(), CniError> {
        let namespace = pod::namespace(call)?;
        let mut socket = pod::socket(&call.config, namespace.as_fd())?;
        let lo = link(&call.config, &mut socket, LO)?;
        is_up(&call.config, &lo)?;
        let Some(result) = &call.config.prev_result else { return Ok(()) };
        let place = result.interfaces.iter().position(|it| !it.sandbox.is_empty() && it.name == LO);
        let Some(place) = place else { return Ok(()) };
        as_told(&call.config, &lo, &result.interfaces[place])?;
        let addresses = result.ips.iter().filter(|ip| ip.interface == Some(place)).map(|ip| ip.address);
        let addresses: Vec<IpNet> = addresses.collect();
        has_addresses(&call.config, &mut socket, &lo, addresses.into_iter())
    }

    fn gc(&self, _: &GcCall) -> Result<(), CniError> {
        Ok(())
    }

    fn status(&self, _: &StatusCall) -> Result<(), CniError> {
        Ok(())
    }
}

fn set(call: &Call, socket: &mut Socket, up: bool) -> Result<(), CniError> {
    let mut batch = Batch::new();
    batch.change_link(LinkId::Name(LO), &LinkChange { up: Some(up), ..LinkChange::default() });
    socket.execute(batch).map(drop).map_err(kernel(&call.config))
}

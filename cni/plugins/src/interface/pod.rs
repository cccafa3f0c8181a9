//! The pod's end of its interface.

use std::net::IpAddr;
use std::os::fd::{BorrowedFd, OwnedFd};

use coracle_cni::{AddResult, Call, CniError, IpConfig, PluginConfig, code};
use coracle_linux::in_network_namespace;
use coracle_netlink::{Batch, Link, LinkId, MacAddress, Protocol, Route, Socket};
use rustix::fs::{Mode, OFlags, open, openat};
use rustix::io::Errno;
use serde::Deserialize;

use super::failure::{failure, file, invalid};

/// Opens the network namespace of a call.
///
/// # Errors
/// [`code::INVALID_ENVIRONMENT`] without one, [`code::IO`].
pub(crate) fn namespace(call: &Call) -> Result<OwnedFd, CniError> {
    let Some(namespace) = &call.netns else {
        return Err(failure(&call.config, code::INVALID_ENVIRONMENT, "CNI_NETNS is not set"));
    };
    let path = namespace.path().display();
    namespace.open().map_err(|error| file(&call.config, "open the network namespace", path, &error))
}

/// A socket in a call's network namespace.
///
/// # Errors
/// [`code::KERNEL`].
pub(crate) fn socket(config: &PluginConfig, namespace: BorrowedFd<'_>) -> Result<Socket, CniError> {
    Socket::open_in(Protocol::Route, namespace).map_err(super::failure::kernel(config))
}

/// What interfaces that are made from now on begin with: nobody but the runtime says what addresses and routes a pod has,
/// and no address waits for others to object, which the runtime has seen to.
const BEGINNINGS: [(&str, &str); 7] = [
    ("all/accept_ra", "0"),
    ("default/accept_ra", "0"),
    ("all/autoconf", "0"),
    ("default/autoconf", "0"),
    ("default/keep_addr_on_down", "1"),
    (ACCEPT_DAD, "0"),
    (DISABLE_IPV6, "0"),
];
/// Where they are.
const IPV6: &str = "/proc/sys/net/ipv6/conf";
/// Only of interest where duplicates are not looked for.
const ACCEPT_DAD: &str = "default/accept_dad";
/// Only of interest where there are addresses of IPv6.
const DISABLE_IPV6: &str = "default/disable_ipv6";

/// How a network namespace is made ready.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Preparation {
    /// Whether IPv6 is needed.
    pub(crate) ipv6: bool,
    /// Whether others are asked before an address of IPv6 is used.
    pub(crate) detect_duplicates: bool,
}

/// Makes a network namespace ready for interfaces.
///
/// # Errors
/// [`code::IO`], [`code::KERNEL`].
pub(crate) fn prepare(
    config: &PluginConfig,
    namespace: BorrowedFd<'_>,
    how: Preparation,
) -> Result<(), CniError> {
    let write = || {
        // Looked up once: names of other namespaces' sysctls are in the way, the more namespaces there are.
        let directory = match open(IPV6, OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty()) {
            // The kernel has no IPv6.
            Err(Errno::NOENT) => return Ok(()),
            opened => opened.map_err(|errno| file(config, "open", IPV6, &errno.into()))?,
        };
        for (name, value) in BEGINNINGS {
            if name == ACCEPT_DAD && how.detect_duplicates || name == DISABLE_IPV6 && !how.ipv6 {
                continue;
            }
            let opened = openat(&directory, name, OFlags::WRONLY | OFlags::CLOEXEC, Mode::empty());
            opened
                .and_then(|file| rustix::io::write(file, value.as_bytes()))
                .map_err(|errno| file(config, "write to", format_args!("{IPV6}/{name}"), &errno.into()))?;
        }
        Ok(())
    };
    in_network_namespace(namespace, write).map_err(|error| {
        failure(config, code::KERNEL, format_args!("enter the network namespace: {error}"))
    })?
}

/// Puts into a batch the routes of a result, for the interface of its addresses.
pub(crate) fn push_routes(batch: &mut Batch, link: u32, result: &AddResult) {
    for route in &result.routes {
        let gateway = route.gw.or_else(|| gateway_of(&result.ips, route.dst.addr()));
        // A scope that ends at the link leads over nobody.
        let gateway =
            gateway.filter(|_| route.gw.is_some() || route.scope.is_none_or(|scope| scope < LINK_SCOPE));
        batch.replace_route(&Route {
            mtu: route.mtu,
            advmss: route.advmss,
            priority: route.priority,
            table: route.table,
            scope: route.scope,
            ..Route::new(route.dst, link, gateway)
        });
    }
}

/// `RT_SCOPE_LINK`.
const LINK_SCOPE: u8 = 253;

/// The gateway of the first address of the same family that has one.
pub(crate) fn gateway_of(ips: &[IpConfig], like: IpAddr) -> Option<IpAddr> {
    ips.iter().filter_map(|ip| ip.gateway).find(|gateway| gateway.is_ipv4() == like.is_ipv4())
}

/// `args.cni.mac` of a configuration.
#[derive(Debug, Default, Deserialize)]
pub(crate) struct Args {
    #[serde(default)]
    pub(crate) cni: CniArgs,
}

/// See [`Args`].
#[derive(Debug, Default, Deserialize)]
pub(crate) struct CniArgs {
    #[serde(default)]
    pub(crate) mac: String,
}

/// The hardware address that is asked for: by capability, by `args` of the configuration, by `CNI_ARGS`.
///
/// # Errors
/// [`code::INVALID_CONFIG`].
pub(crate) fn wanted_mac(call: &Call, args: &Args) -> Result<Option<MacAddress>, CniError> {
    let by_capability: Option<String> = call.config.capability("mac")?;
    let by_capability = by_capability.as_deref().filter(|mac| !mac.is_empty());
    let by_config = Some(args.cni.mac.as_str()).filter(|mac| !mac.is_empty());
    let by_arg = call.arg("MAC").filter(|mac| !mac.is_empty());
    by_capability.or(by_config).or(by_arg).map(|mac| parse_mac(&call.config, mac)).transpose()
}

/// # Errors
/// [`code::INVALID_CONFIG`].
pub(crate) fn parse_mac(config: &PluginConfig, mac: &str) -> Result<MacAddress, CniError> {
    let parsed: MacAddress = mac.parse().map_err(|error| invalid(config, error))?;
    if parsed.is_assignable() {
        return Ok(parsed);
    }
    Err(invalid(config, format_args!("the hardware address {mac} names no single interface")))
}

/// A link of which the kernel has told among answers.
///
/// # Errors
/// [`code::KERNEL`] when it has not.
pub(crate) fn link_told(
    config: &PluginConfig,
    messages: &[coracle_netlink::Message],
) -> Result<Link, CniError> {
    let told = messages.iter().find_map(Link::read);
    told.ok_or_else(|| {
        failure(config, code::KERNEL, "the kernel tells nothing of an interface that was asked for")
    })
}

/// The link of a name in a socket's network namespace.
///
/// # Errors
/// [`code::KERNEL`] also when there is none.
pub(crate) fn link(config: &PluginConfig, socket: &mut Socket, name: &str) -> Result<Link, CniError> {
    let found = socket.link(LinkId::Name(name)).map_err(super::failure::kernel(config))?;
    found.ok_or_else(|| failure(config, code::KERNEL, format_args!("there is no interface {name}")))
}

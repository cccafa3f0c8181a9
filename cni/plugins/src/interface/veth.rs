//! The veth pair of an attachment.

use std::os::fd::BorrowedFd;

use coracle_cni::{Call, CniError, GcCall, code};
use coracle_netlink::{Batch, Link, LinkChange, LinkId, MacAddress, Outcome, Peer, Protocol, Socket, Veth};
use rustix::io::Errno;

use super::failure::{failure, first, kernel};
use super::name::{abandoned, alias_of, host_name_of};

/// What the names of a pair's near ends begin with.
const PREFIX: &str = "veth";

/// A pair to be made.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Wanted<'a> {
    /// The pod's network namespace.
    pub(crate) namespace: BorrowedFd<'a>,
    /// The bridge, if any, by its index.
    pub(crate) controller: Option<u32>,
    /// In bytes.
    pub(crate) mtu: Option<u32>,
    /// Of the pod's end.
    pub(crate) mac: Option<MacAddress>,
    /// Whether what came from the pod may go back to it.
    pub(crate) hairpin: Option<bool>,
    /// Whether the pod is kept from other isolated ones.
    pub(crate) isolated: Option<bool>,
}

/// The name of the near end of a call's pair.
pub(crate) fn name_of(call: &Call) -> String {
    host_name_of(PREFIX, call)
}

/// Makes the pair, the near end up and the far end down. One that is left of an ADD that did not come to its end is
/// replaced.
///
/// # Errors
/// [`code::KERNEL`].
pub(crate) fn create(host: &mut Socket, call: &Call, wanted: &Wanted<'_>) -> Result<Link, CniError> {
    let name = name_of(call);
    let alias = alias_of(call)?;
    let peer = Peer { name: &call.ifname, namespace: wanted.namespace, mac: wanted.mac };
    let veth = Veth { name: &name, controller: wanted.controller, mtu: wanted.mtu, peer };
    let change = LinkChange {
        alias: Some(&alias),
        hairpin: wanted.hairpin,
        isolated: wanted.isolated,
        ..LinkChange::default()
    };
    let mut create = || -> Result<Outcome, CniError> {
        let mut batch = Batch::new();
        batch.create_veth(&veth);
        batch.change_link(LinkId::Name(&name), &change);
        batch.get_link(LinkId::Name(&name));
        host.attempt(batch).map_err(kernel(&call.config))
    };
    let mut outcome = create()?;
    let exists =
        outcome.failures.first().is_some_and(|failure| failure.index == 0 && failure.errno == Errno::EXIST);
    if exists {
        if outcome.messages.is_empty() {
            let what = format!("there is an interface {} in the network namespace already", call.ifname);
            return Err(failure(&call.config, code::KERNEL, what));
        }
        host.remove_link(LinkId::Name(&name)).map_err(kernel(&call.config))?;
        let mut batch = Batch::new();
        batch.create_veth(&veth);
        batch.change_link(LinkId::Name(&name), &change);
        batch.get_link(LinkId::Name(&name));
        outcome = host.attempt(batch).map_err(kernel(&call.config))?;
    }
    let messages = outcome.into_result().map_err(kernel(&call.config))?;
    messages.iter().find_map(Link::read).ok_or_else(|| {
        failure(
            &call.config,
            code::KERNEL,
            format_args!("the kernel tells nothing of {name}, which was made"),
        )
    })
}

/// Has the near end work once the far end is up, and the bridge it may be the first port of, instead of when the kernel
/// gets to it: that a link has come up it tells bridges and queues in its own time, within a second, and makes sure of it
/// before it tells of the link (since Linux 6.8).
///
/// # Errors
/// [`code::KERNEL`].
pub(crate) fn settle(host: &mut Socket, call: &Call, pair: &Link) -> Result<(), CniError> {
    let mut batch = Batch::new();
    batch.get_link(LinkId::Index(pair.index));
    if let Some(bridge) = pair.controller {
        batch.get_link(LinkId::Index(bridge));
    }
    host.execute(batch).map(drop).map_err(kernel(&call.config))
}

/// Removes a call's pair, if it is there.
///
/// # Errors
/// [`code::KERNEL`].
pub(crate) fn remove(call: &Call) -> Result<(), CniError> {
    let failed = kernel(&call.config);
    let mut host = Socket::open(Protocol::Route).map_err(&failed)?;
    host.remove_link(LinkId::Name(&name_of(call))).map_err(failed)
}

/// Removes the pairs of the network whose attachments are gone.
///
/// # Errors
/// [`code::KERNEL`], of the first that could not be removed.
pub(crate) fn collect(call: &GcCall) -> Result<(), CniError> {
    let failed = kernel(&call.config);
    let mut host = Socket::open(Protocol::Route).map_err(&failed)?;
    let links = host.links().map_err(&failed)?;
    let gone = abandoned(&call.config, &links, "veth", &call.valid);
    first(gone.into_iter().map(|link| host.remove_link(LinkId::Index(link.index)).map_err(&failed)))
}

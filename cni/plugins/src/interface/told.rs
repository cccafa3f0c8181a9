//! What a result tells of interfaces.

use coracle_cni::{Call, Interface};
use coracle_netlink::Link;

/// An interface of the host, as a result tells of it.
pub fn interface_of(link: &Link) -> Interface {
    Interface {
        name: link.name.clone(),
        mac: link.mac.map(|mac| mac.to_string()).unwrap_or_default(),
        mtu: Some(link.mtu),
        ..Interface::default()
    }
}

/// One in the pod's namespace.
pub(crate) fn interface_in_pod(call: &Call, link: &Link) -> Interface {
    let sandbox = call.netns.as_ref().map(|netns| netns.path().display().to_string());
    Interface { sandbox: sandbox.unwrap_or_default(), ..interface_of(link) }
}

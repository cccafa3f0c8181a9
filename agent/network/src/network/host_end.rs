//! The host's ends of what connects pods.

use std::fmt;

use coracle_cni::Interface;
use coracle_model::PodUid;
use coracle_netlink::{Error, LinkId, Protocol, Socket};

use super::Network;

/// The host's end of a veth pair, which ends with the pod's network namespace.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct HostEnd {
    name: String,
    /// The kernel gives the next interface another one. The name comes again with the pod.
    index: u32,
}

// === impl Network ===

impl Network {
    /// The host's ends of a pod's pairs, as far as the plugins have told of them and they are there. For whoever is
    /// about to call [`Network::del`], after which nobody knows them.
    ///
    /// # Errors
    /// The kernel could not be asked.
    pub fn host_ends(&self, uid: &PodUid) -> Result<Vec<HostEnd>, Error> {
        let names = self.host_interfaces(uid);
        if names.is_empty() {
            return Ok(Vec::new());
        }
        let mut socket = Socket::open(Protocol::Route)?;
        let mut ends = Vec::new();
        for name in names {
            // Bridges are among them, which are not the pod's alone.
            let link = socket.link(LinkId::Name(&name))?.filter(|link| link.kind == "veth");
            ends.extend(link.map(|link| HostEnd { name, index: link.index }));
        }
        Ok(ends)
    }

    /// The interfaces of the host that the plugins have told of for a pod, bridges among them. From memory.
    fn host_interfaces(&self, uid: &PodUid) -> Vec<String> {
        let ids = self.ids(|id| id.uid == *uid);
        let results = ids.iter().filter_map(|id| self.of(id)?.result.clone());
        let of_host = |interface: &Interface| interface.sandbox.is_empty();
        results.flat_map(|result| result.interfaces).filter(of_host).map(|interface| interface.name).collect()
    }
}

// === impl HostEnd ===

impl HostEnd {
    /// Removes it, if it is still there; whether it was. Another interface of its name stays: it is that of a pod
    /// that came back under the same UID.
    ///
    /// # Errors
    /// The kernel refused.
    pub fn remove(&self) -> Result<bool, Error> {
        let mut socket = Socket::open(Protocol::Route)?;
        let link = socket.link(LinkId::Index(self.index))?;
        // Whoever makes an interface may choose its number.
        if link.is_none_or(|link| link.name != self.name) {
            return Ok(false);
        }
        socket.remove_link(LinkId::Index(self.index))?;
        Ok(true)
    }
}

impl fmt::Display for HostEnd {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.name)
    }
}

//! What the node knows of itself, and tells its pods.

use std::cell::LazyCell;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, UdpSocket};
use std::path::{Path, PathBuf};

use coracle_cgroup::Kubepods;

/// Names of hosts nobody has (RFC 5737, RFC 3849): the way to them is the way to everywhere.
const ANYWHERE: [IpAddr; 2] =
    [IpAddr::V4(Ipv4Addr::new(192, 0, 2, 1)), IpAddr::V6(Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 1))];

/// What the node knows of itself.
#[derive(Clone, Debug)]
pub(crate) struct NodeFacts {
    name: String,
    root_dir: PathBuf,
    kubepods: Kubepods,
}

/// What it is now, found out once somebody asks.
pub(crate) struct NodeNow {
    /// The node's name.
    pub(crate) name: String,
    /// As [`NodeFacts::addresses`].
    pub(crate) addresses: Lazy<Vec<IpAddr>>,
    /// What pods may use of the node together, or why it is not known.
    pub(crate) allocatable: Lazy<Result<Allocatable, String>>,
}

/// A value that costs system calls.
pub(crate) type Lazy<T> = LazyCell<T, Box<dyn FnOnce() -> T>>;

/// What pods may use of the node together.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Allocatable {
    /// Thousandths of a CPU.
    pub(crate) cpu: u64,
    /// Bytes of memory.
    pub(crate) memory: u64,
    /// Bytes of the file system that writable layers and emptyDirs lie on.
    pub(crate) ephemeral_storage: u64,
}

// === impl NodeFacts ===

impl NodeFacts {
    pub(crate) fn new(name: &str, root_dir: &Path, kubepods: Kubepods) -> Self {
        Self { name: name.to_owned(), root_dir: root_dir.to_owned(), kubepods }
    }

    /// The node's name.
    pub(crate) fn name(&self) -> &str {
        &self.name
    }

    /// The addresses from which the host reaches others, one of each family it has a route for: IPv4 first,
    /// as the kubelet orders them.
    pub(crate) fn addresses(&self) -> Vec<IpAddr> {
        ANYWHERE.into_iter().filter_map(source_address).collect()
    }

    /// Everything, as it is now.
    pub(crate) fn now(&self) -> NodeNow {
        let (addresses, allocatable) = (self.clone(), self.clone());
        NodeNow {
            name: self.name.clone(),
            addresses: LazyCell::new(Box::new(move || addresses.addresses())),
            allocatable: LazyCell::new(Box::new(move || {
                allocatable.allocatable().map_err(|error| error.to_string())
            })),
        }
    }

    fn allocatable(&self) -> anyhow::Result<Allocatable> {
        let capacity = self.kubepods.capacity()?;
        let disk = rustix::fs::statvfs(&self.root_dir)?;
        Ok(Allocatable {
            cpu: capacity.cpu,
            memory: capacity.memory,
            ephemeral_storage: disk.f_blocks.saturating_mul(disk.f_frsize),
        })
    }
}

/// The address the host would send from. Connecting a datagram socket asks the routing table and sends
/// nothing.
fn source_address(to: IpAddr) -> Option<IpAddr> {
    let from: IpAddr = if to.is_ipv4() { Ipv4Addr::UNSPECIFIED.into() } else { Ipv6Addr::UNSPECIFIED.into() };
    let socket = UdpSocket::bind((from, 0)).ok()?;
    socket.connect((to, 9)).ok()?;
    let address = socket.local_addr().ok()?.ip();
    (!address.is_unspecified() && !address.is_loopback()).then_some(address)
}

//! What the node knows of itself, and tells its pods.

use std::cell::LazyCell;
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use coracle_cgroup::Kubepods;

use super::addresses::NodeAddresses;

/// What the node knows of itself.
#[derive(Clone, Debug)]
pub(crate) struct NodeFacts {
    name: String,
    root_dir: PathBuf,
    kubepods: Kubepods,
    addresses: NodeAddresses,
}

/// What it is now.
pub(crate) struct NodeNow {
    /// The node's name.
    pub(crate) name: String,
    /// As [`NodeFacts::addresses`].
    pub(crate) addresses: Arc<[IpAddr]>,
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
    pub(crate) fn new(name: &str, root_dir: &Path, kubepods: Kubepods, addresses: NodeAddresses) -> Self {
        Self { name: name.to_owned(), root_dir: root_dir.to_owned(), kubepods, addresses }
    }

    /// The node's name.
    pub(crate) fn name(&self) -> &str {
        &self.name
    }

    /// The node's addresses, the primary family first.
    pub(crate) fn addresses(&self) -> Arc<[IpAddr]> {
        self.addresses.now()
    }

    /// Everything, as it is now.
    pub(crate) fn now(&self) -> NodeNow {
        let allocatable = self.clone();
        NodeNow {
            name: self.name.clone(),
            addresses: self.addresses(),
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

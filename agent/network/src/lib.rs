//! Pods' networks, and how pods are named and resolve names: /etc/hostname, /etc/hosts and /etc/resolv.conf, as the kubelet and
//! the runtimes below it make them.
//!
//! What the files hold are functions of values ([`hosts()`], [`Resolver::of_pod`]); [`NameFiles`] keeps them,
//! one set for the containers of a sandbox.
//!
//! [`Network`] gives them their addresses: it drives the plugins of CNI, ours in the process and others by execution.
//!
//! Beside that: which kernel settings of its namespaces a pod may make ([`SysctlPolicy`]).
//!
//! What is in this crate may block on the disk: an asynchronous caller uses `spawn_blocking`.

mod error;
mod files;
mod hosts;
mod network;
mod resolver;
mod sysctl;

pub use error::NetworkError;
pub use files::{Content, NameFile, NameFiles};
pub use hosts::{Names, hosts};
pub use network::{
    Attach, Attached, Bandwidth, DefaultNetwork, HostEnd, Network, NetworkSettings, PortMapping,
};
pub use resolver::{ClusterDns, Resolver};
pub use sysctl::SysctlPolicy;

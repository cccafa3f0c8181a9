//! How pods are named and resolve names: /etc/hostname, /etc/hosts and /etc/resolv.conf, as the kubelet and
//! the runtimes below it make them.
//!
//! What the files hold are functions of values ([`hosts()`], [`Resolver::of_pod`]); [`NameFiles`] keeps them,
//! one set for the containers of a sandbox.
//!
//! Beside that: which kernel settings of its namespaces a pod may make ([`SysctlPolicy`]).
//!
//! What is in this crate may block on the disk: an asynchronous caller uses `spawn_blocking`.

mod error;
mod files;
mod hosts;
mod resolver;
mod sysctl;

pub use error::NetworkError;
pub use files::{Content, NameFile, NameFiles};
pub use hosts::{Names, hosts};
pub use resolver::{ClusterDns, Resolver};
pub use sysctl::SysctlPolicy;

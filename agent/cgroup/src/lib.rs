//! Pod and container cgroups on cgroup v2 and v1.
//!
//! [`Host::detect`] finds the hierarchies that are mounted. [`Kubepods`] is the node's subtree in them, made
//! by the agent or by systemd ([`Driver`]); it gives [`PodCgroup`]s, and those give one [`Cgroup`] per
//! container and one for pause. All of these are names: nothing is there before `ensure`, `ensure` and `remove` may be
//! repeated at any time, and a new agent gets the same handles from the same names.
//!
//! A move into a cgroup v1 hierarchy is the dearest step of a container's start (it waits for an RCU
//! grace period), so as few hierarchies as possible are used:
//!
//! - On a hybrid host the v2 tree, into which a process can be born, serves for kill, events, CPU
//!   accounting and the device filter; `cpuacct` and `devices` are not needed.
//! - `pids` limits a pod as a whole. A container's processes descend from pause, which is already
//!   counted there.
//! - That leaves `cpu` and `memory` for a container, and those two and `pids` for pause.
//!
//! Of cgroups-rs the controllers are used, each on one directory made here. Its own hierarchy and
//! builder are not: they take `/sys/fs/cgroup` for granted, create a group in every controller, know no
//! hybrid v2 tree, and given an absolute path write plain files to the root file system.
//!
//! The functions of [`Cgroup`] block (for microseconds, `remove` and `kill` for up to a second or so), but
//! for [`Cgroup::wait_empty`]. What systemd may have to be asked for is asynchronous.

mod attach;
mod burstable;
mod capacity;
mod device;
mod error;
mod exec;
mod files;
mod group;
mod host;
mod kill;
mod kubepods;
mod layout;
pub mod limits;
mod mountinfo;
mod pod;
mod remove;
mod scope;
mod slices;
mod stats;
mod wait;
mod write_limits;

pub use attach::Attachment;
pub use capacity::{Capacity, online_cpus};
pub use device::{Access, DeviceKind, DevicePolicy, DeviceRule};
pub use error::{Error, RemoveError};
pub use group::Cgroup;
pub use host::{HierarchyMount, Host, Mode, Weakness};
pub use kubepods::Kubepods;
pub use layout::Driver;
pub use limits::Limits;
pub use pod::PodCgroup;
pub use scope::{FirstProcess, PodSettings};
pub use stats::Stats;

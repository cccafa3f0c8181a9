//! What can fail.

use std::fmt;
use std::io;
use std::path::PathBuf;
use std::time::Duration;

use coracle_linux::bpf::LoadError;
use coracle_systemd::{InvalidUnitName, UnitName};

/// A step on a cgroup failed.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The list of mounts could not be read.
    #[error("cannot read /proc/self/mountinfo: {0}")]
    MountInfo(#[source] io::Error),
    /// No cgroup file system is mounted.
    #[error(
        "no cgroup file system with a usable controller is mounted; mount one, for instance: mount -t cgroup2 none /sys/fs/cgroup"
    )]
    NoHierarchy,
    /// The cgroup parent is not a path below the mount.
    #[error("{} cannot be the cgroup parent: it must be a path from the root of the hierarchy, without \"..\"", .0.display())]
    Parent(PathBuf),
    /// The cgroup parent is no slice.
    #[error(
        "{} cannot be the cgroup parent of the driver \"systemd\": {name} is no slice in it; name one, such as /pods.slice or /a.slice/a-b.slice",
        parent.display()
    )]
    NotASlice {
        /// As it was given.
        parent: PathBuf,
        /// What of it cannot be.
        name: String,
    },
    /// The hierarchies are not such that systemd can be the one that makes cgroups.
    #[error(
        "the cgroup driver \"systemd\" needs cgroup v2 alone, and on this host controllers are on v1: boot with systemd.unified_cgroup_hierarchy=1, or set cgroupDriver to \"cgroupfs\""
    )]
    NotUnified,
    /// The name of a unit cannot be one.
    #[error(transparent)]
    UnitName(#[from] InvalidUnitName),
    /// systemd did not do what it was asked.
    #[error(transparent)]
    Systemd(#[from] coracle_systemd::Error),
    /// There is no systemd.
    #[error(
        "the cgroup driver \"systemd\" does not work here: {0}; set cgroupDriver to \"cgroupfs\", which needs no systemd"
    )]
    NoSystemd(#[source] coracle_systemd::Error),
    /// A scope cannot begin without a process.
    #[error("{0} has no process to begin with")]
    NoProcess(UnitName),
    /// A process cannot be named to systemd.
    #[error("cannot name a process to systemd: {0}")]
    Pidfd(#[source] io::Error),
    /// systemd put a process elsewhere than was expected.
    #[error(
        "systemd started {unit}, and its process is in {found:?} instead of {}: the agent must be in the cgroup namespace of systemd",
        path.display()
    )]
    NotInScope {
        /// The pod's unit.
        unit: UnitName,
        /// Where it should be.
        path: PathBuf,
        /// Where its process is.
        found: String,
    },
    /// Work that blocks could not be done.
    #[error("cannot run blocking work: {0}")]
    Blocking(#[source] tokio::task::JoinError),
    /// A cgroup could not be made.
    #[error("cannot create cgroup {}: {source}", path.display())]
    Create {
        /// The directory.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// Controllers could not be handed down on cgroup v2.
    #[error("cannot enable {controllers} in {}: {source}", path.display())]
    EnableControllers {
        /// The `cgroup.subtree_control` file.
        path: PathBuf,
        /// What was written.
        controllers: String,
        /// Why.
        source: io::Error,
    },
    /// cgroup v2's rule that only leaves hold processes stands in the way.
    #[error(
        "cannot enable {controllers} below {}: processes live in that cgroup itself; move them into a child of it or choose another --cgroup-parent",
        path.display()
    )]
    InternalProcesses {
        /// The cgroup with processes.
        path: PathBuf,
        /// What was to be enabled.
        controllers: String,
    },
    /// A file of a cgroup could not be opened or read.
    #[error("cannot read {}: {source}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// A file of a cgroup holds something unexpected.
    #[error("{} holds {text:?}, which is not understood", path.display())]
    Parse {
        /// The file.
        path: PathBuf,
        /// What it holds.
        text: String,
    },
    /// A file of a cgroup could not be written.
    #[error("cannot write {value:?} to {}: {source}", path.display())]
    Write {
        /// The file.
        path: PathBuf,
        /// What was written.
        value: String,
        /// Why.
        source: io::Error,
    },
    /// A limit could not be set.
    #[error("cannot set {limit} of {} to {value}: {source}", path.display())]
    Limit {
        /// The cgroup.
        path: PathBuf,
        /// Which.
        limit: &'static str,
        /// The value.
        value: u64,
        /// Why.
        source: cgroups_rs::fs::error::Error,
    },
    /// A limit was set without an error but is not in force.
    #[error("{limit} of {} was set to {wanted} but reads {found}", path.display())]
    LimitNotTaken {
        /// The cgroup.
        path: PathBuf,
        /// Which.
        limit: &'static str,
        /// What was written.
        wanted: u64,
        /// What the kernel says.
        found: String,
    },
    /// A limit was asked for that the host has no controller for.
    #[error("the host has no {controller} controller, so {} cannot have a filter", path.display())]
    NoController {
        /// Which.
        controller: &'static str,
        /// The cgroup.
        path: PathBuf,
    },
    /// The kernel refused the device filter.
    #[error("cannot load the device filter: {0}")]
    DeviceLoad(#[source] LoadError),
    /// The device filter could not be attached.
    #[error("cannot attach the device filter to {}: {source}", path.display())]
    DeviceAttach {
        /// The cgroup.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// A device rule of cgroup v1 could not be written.
    #[error("cannot write device rule {rule:?} of {}: {source}", path.display())]
    DeviceRule {
        /// The cgroup.
        path: PathBuf,
        /// The rule.
        rule: String,
        /// Why.
        source: cgroups_rs::fs::error::Error,
    },
    /// Processes could not be signalled.
    #[error("cannot kill the processes of {}: {source}", path.display())]
    Kill {
        /// The cgroup.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// Processes outlived SIGKILL.
    #[error("processes of {} are alive {} ms after SIGKILL: {pids:?}", path.display(), waited.as_millis())]
    StillAlive {
        /// The cgroup.
        path: PathBuf,
        /// Which processes.
        pids: Vec<u32>,
        /// How long was waited.
        waited: Duration,
    },
    /// Waiting for events of a cgroup failed.
    #[error("cannot wait for events of {}: {source}", path.display())]
    Wait {
        /// The cgroup.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// Some directories could not be removed; the others are gone.
    #[error("cannot remove {0}")]
    Remove(RemoveError),
}

/// Every directory that could not be removed, and why.
#[derive(Debug)]
pub struct RemoveError(pub Vec<(PathBuf, io::Error)>);

impl std::error::Error for RemoveError {}

impl fmt::Display for RemoveError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, (path, error)) in self.0.iter().enumerate() {
            let separator = if index == 0 { "" } else { "; " };
            write!(f, "{separator}{}: {error}", path.display())?;
        }
        Ok(())
    }
}

//! What a cgroup uses.

use std::path::PathBuf;
use std::time::Duration;

use crate::files::{if_there, keyed, read, read_keyed, read_number};
use crate::host::{Controller, Place};
use crate::{Cgroup, Error};

/// What a cgroup and those below it use. `None` where the host, or the cgroup, has no such account.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Stats {
    /// CPU time, user and system.
    pub cpu: Option<Duration>,
    /// Bytes of memory, page cache included.
    pub memory: Option<u64>,
    /// [`Stats::memory`] without the page cache that can be dropped at once: what Kubernetes compares
    /// with limits and evicts by.
    pub working_set: Option<u64>,
    /// Tasks: threads count.
    pub pids: Option<u64>,
}

impl Cgroup {
    /// What it uses. All `None` when it is not there.
    ///
    /// # Errors
    /// When the kernel's files cannot be read.
    pub fn stats(&self) -> Result<Stats, Error> {
        let (memory, inactive) = match self.dir_in(Controller::Memory) {
            Some((dir, true)) => (
                if_there(read_number(&dir.join("memory.current")))?,
                if_there(read_keyed(&dir.join("memory.stat"), "inactive_file"))?,
            ),
            Some((dir, false)) => (
                if_there(read_number(&dir.join("memory.usage_in_bytes")))?,
                if_there(read_keyed(&dir.join("memory.stat"), "total_inactive_file"))?,
            ),
            None => (None, None),
        };
        let pids = match self.dir_in(Controller::Pids) {
            Some((dir, _)) => if_there(read_number(&dir.join("pids.current")))?,
            None => None,
        };
        Ok(Stats {
            cpu: self.cpu_time()?,
            memory,
            working_set: memory.zip(inactive).map(|(used, inactive)| used.saturating_sub(inactive)),
            pids,
        })
    }

    /// How many processes of it the kernel killed for want of memory, by its own limit or one above it.
    ///
    /// On v2 those of cgroups below count too: a container may have made some. v1 counts each kill only
    /// where its victim was. Whether the number is above zero, or grew, says something; the number itself
    /// does not: with `memory.oom.group` the kernel counts the first victim of a group twice.
    ///
    /// # Errors
    /// When the kernel's files cannot be read. A cgroup that is not there, or a host without a memory
    /// controller, has seen none.
    pub fn oom_kills(&self) -> Result<u64, Error> {
        let file = match self.dir_in(Controller::Memory) {
            Some((dir, true)) => dir.join("memory.events"),
            Some((dir, false)) => dir.join("memory.oom_control"),
            None => return Ok(0),
        };
        let Some(text) = if_there(read(&file))? else { return Ok(0) };
        keyed(&text, "oom_kill").ok_or(Error::Parse { path: file, text })
    }

    fn cpu_time(&self) -> Result<Option<Duration>, Error> {
        // The v2 tree counts CPU time in every cgroup, also where the cpu controller is on v1.
        if let Some(dir) = self.v2_dir() {
            let usage = if_there(read_keyed(&dir.join("cpu.stat"), "usage_usec"))?;
            return Ok(usage.map(Duration::from_micros));
        }
        match self.dir_in(Controller::Cpuacct) {
            Some((dir, _)) => {
                Ok(if_there(read_number(&dir.join("cpuacct.usage")))?.map(Duration::from_nanos))
            }
            None => Ok(None),
        }
    }

    /// The directory in the hierarchy of a controller, and whether that is v2.
    fn dir_in(&self, controller: Controller) -> Option<(PathBuf, bool)> {
        Some(match self.host().place(controller)? {
            Place::V2(mount) => (mount.join(self.relative()), true),
            Place::V1(hierarchy) => (hierarchy.mount.join(self.relative()), false),
        })
    }
}

//! The cgroup of one program executed in a container, so that it can be killed with all it has started.
//!
//! A process can leave its parent, its process group and its session, but not its cgroup: moving takes
//! write access to the cgroup file system, which only privileged containers have. So a program that must not
//! leave anything behind is put into a cgroup of its own, below its container's. It has no limits and no
//! controllers: what the program uses counts as the container's, and it ends with the container.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::group::{Role, make_dir, make_v1_dir};
use crate::host::{Controller, V1};
use crate::kubepods::subdirs;
use crate::{Cgroup, Error, files};

/// What the names of such cgroups begin with: a container may have made others.
const PREFIX: &str = "coracle-exec-";

/// The cgroup, below a container's, for what joins a container whose own cgroup takes no process. It stays as long as
/// the container; its name is not that of one executed program's.
const LEAF: &str = "coracle-exec";

/// How often those that are moved may have forked meanwhile.
const MOST_MOVES: usize = 64;

impl Cgroup {
    /// Makes the cgroup of one program executed in this container; `name` tells it from others that are
    /// there.
    ///
    /// # Errors
    /// When the container's cgroup is not there.
    pub fn make_exec(&self, name: &str) -> Result<Self, Error> {
        let exec = self.exec(&format!("{PREFIX}{name}"));
        match (exec.v2_dir(), exec.member_hierarchy()) {
            (Some(dir), _) => make_dir(&dir)?,
            (None, Some(hierarchy)) => make_v1_dir(hierarchy, exec.relative())?,
            (None, None) => {}
        }
        Ok(exec)
    }

    /// Those of such programs that are there.
    ///
    /// # Errors
    /// When the container's cgroup cannot be read.
    pub fn execs(&self) -> Result<Vec<Self>, Error> {
        let Some(dir) = self.member_dir() else { return Ok(Vec::new()) };
        let names = subdirs(&dir)?.into_iter().filter(|name| name.starts_with(PREFIX));
        Ok(names.map(|name| self.exec(&name)).collect())
    }

    /// Moves what runs in an executed program's cgroup to its container's; whether all was moved. What
    /// forks faster than it is moved stays. In a container that has divided its cgroup, which takes no process
    /// then, it is moved to a leaf below that.
    ///
    /// # Errors
    /// When the kernel's files cannot be read or the kernel refuses.
    pub fn hand_over(&self) -> Result<bool, Error> {
        let Some(container) = self.parent(Role::Container).member_dir() else { return Ok(true) };
        let (mut procs, mut is_leaf) = (container.join("cgroup.procs"), false);
        for _ in 0..MOST_MOVES {
            let pids = self.pids()?;
            if pids.is_empty() {
                return Ok(true);
            }
            for pid in pids {
                match files::write(&procs, &pid.to_string()) {
                    Ok(()) => {}
                    Err(error) if error.raw_os_error() == Some(libc::ESRCH) => {}
                    // See `attachment_beside`.
                    Err(error) if error.raw_os_error() == Some(libc::EBUSY) && !is_leaf => {
                        (procs, is_leaf) = (make_leaf(&container)?.join("cgroup.procs"), true);
                        break;
                    }
                    Err(error) => {
                        return Err(Error::Write { path: procs, value: pid.to_string(), source: error });
                    }
                }
            }
        }
        Ok(false)
    }

    fn exec(&self, name: &str) -> Self {
        Self::new(Arc::clone(self.shared_host()), self.relative().join(name), Role::Exec)
    }

    /// Without a v2 tree: the hierarchy that tells which processes are in a cgroup.
    pub(crate) fn member_hierarchy(&self) -> Option<&V1> {
        if self.v2_dir().is_some() {
            return None;
        }
        self.host().v1_of(&[Controller::Pids, Controller::Memory, Controller::Cpu]).into_iter().next()
    }
}

/// Makes the leaf for what joins a container whose own directory is this one.
pub(crate) fn make_leaf(container: &Path) -> Result<PathBuf, Error> {
    let leaf = container.join(LEAF);
    make_dir(&leaf)?;
    Ok(leaf)
}

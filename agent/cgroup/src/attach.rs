//! How a process gets into a cgroup.

use std::fs::{File, OpenOptions};
use std::io;
use std::os::fd::{AsRawFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};

use crate::exec::make_leaf;
use crate::group::{Role, open_dir};
use crate::host::Controller;
use crate::{Cgroup, Error, files};

/// The descriptors that put a process into a cgroup. All are close-on-exec.
#[derive(Debug)]
pub struct Attachment {
    /// The directory in the v2 tree, for `CLONE_INTO_CGROUP`: the process is born there.
    pub into: Option<OwnedFd>,
    /// `cgroup.procs` of each v1 hierarchy, open for writing: the process writes `0` to each, at best
    /// all in a row, so that they share one RCU grace period.
    pub procs: Vec<OwnedFd>,
}

impl Cgroup {
    /// What a process needs that is born by `clone3`.
    ///
    /// # Errors
    /// When the cgroup is not there.
    pub fn attachment(&self) -> Result<Attachment, Error> {
        let into = match self.v2_dir() {
            Some(dir) => Some(open_dir(&dir).map_err(|source| Error::Read { path: dir, source })?),
            None => None,
        };
        Ok(Attachment { into, procs: self.v1_procs()? })
    }

    /// What a process needs that joins a container which runs; `first` is a pidfd of the container's first process.
    ///
    /// A container that may write to its cgroup can divide it, as systemd, a container engine or a kubelet in it do: they
    /// move all processes to cgroups below, and have the container's own hand controllers down, which takes no process
    /// from then on (EBUSY: the "no internal process constraint" of cgroups(7)). What joins such a container is born
    /// where its first process is, as under runc; where that is not in the container's cgroup, in a leaf of its own
    /// below that.
    ///
    /// # Errors
    /// When the cgroup is not there, or the kernel's files cannot be read.
    pub fn attachment_beside(&self, first: BorrowedFd<'_>) -> Result<Attachment, Error> {
        let mut attachment = self.attachment()?;
        if let Some(own) = self.v2_dir()
            && hands_down(&own)?
        {
            attachment.into = Some(self.open_beside(&own, first)?);
        }
        Ok(attachment)
    }

    /// The directory for what joins a container that has divided its own, which is this one.
    fn open_beside(&self, own: &Path, first: BorrowedFd<'_>) -> Result<OwnedFd, Error> {
        // Its own again where what is handed down can be had by threads: such a cgroup may hold processes.
        if let Some(dir) = self.v2_dir_of(first)?.filter(|dir| dir.starts_with(own)) {
            match open_dir(&dir) {
                Ok(opened) => return Ok(opened),
                // Its processes have moved on.
                Err(error) if files::is_gone(&error) => {}
                Err(source) => return Err(Error::Read { path: dir, source }),
            }
        }
        let leaf = make_leaf(own)?;
        open_dir(&leaf).map_err(|source| Error::Read { path: leaf, source })
    }

    /// The directory in the v2 tree that a process is in; none if it has ended, or cannot be seen from here.
    fn v2_dir_of(&self, process: BorrowedFd<'_>) -> Result<Option<PathBuf>, Error> {
        // proc_pid_fdinfo(5): -1 once it was waited for, 0 where it is of another pid namespace.
        let info = files::read(Path::new(&format!("/proc/self/fdinfo/{}", process.as_raw_fd())))?;
        let pid = info.lines().find_map(|line| line.strip_prefix("Pid:")?.trim().parse::<u32>().ok());
        let Some(pid) = pid.filter(|pid| *pid != 0) else { return Ok(None) };
        // One that ends meanwhile is in none.
        let Ok(text) = files::read(Path::new(&format!("/proc/{pid}/cgroup"))) else { return Ok(None) };
        let line = text.lines().find(|line| line.starts_with("0::"));
        Ok(line.and_then(|line| self.host().dir_of_membership(line)))
    }

    /// What a process needs that is not: `cgroup.procs` of every hierarchy, that of v2 last.
    ///
    /// # Errors
    /// When the cgroup is not there.
    pub fn procs(&self) -> Result<Vec<OwnedFd>, Error> {
        let mut procs = self.v1_procs()?;
        if let Some(dir) = self.v2_dir() {
            procs.push(open_procs(&dir)?);
        }
        Ok(procs)
    }

    fn v1_procs(&self) -> Result<Vec<OwnedFd>, Error> {
        // On v1 pause lives in the pod's own cgroup, of which devices is never asked: pause is the
        // agent's program, not the pod's.
        if self.role() == Role::Exec {
            return self.exec_procs();
        }
        let (cgroup, controllers) = match self.role() {
            Role::Pause => {
                let pod = self.parent(Role::Inner);
                let mut controllers = pod.v1_controllers();
                controllers.retain(|controller| *controller != Controller::Devices);
                (pod, controllers)
            }
            Role::Inner | Role::Container | Role::Exec => (self.clone(), self.v1_controllers()),
        };
        let mut procs = Vec::new();
        for hierarchy in self.host().v1_of(&controllers) {
            procs.push(open_procs(&hierarchy.mount.join(cgroup.relative()))?);
        }
        if self.role() == Role::Container && !controllers.contains(&Controller::Pids) {
            // There only when the container was given a limit of its own.
            for hierarchy in self.host().v1_of(&[Controller::Pids]) {
                match open_procs(&hierarchy.mount.join(self.relative())) {
                    Ok(file) => procs.push(file),
                    Err(Error::Read { source, .. }) if source.kind() == io::ErrorKind::NotFound => {}
                    Err(error) => return Err(error),
                }
            }
        }
        Ok(procs)
    }

    /// Those of the container, and without a v2 tree its own in the place of one of them.
    fn exec_procs(&self) -> Result<Vec<OwnedFd>, Error> {
        let container = self.parent(Role::Container);
        let mut procs = container.v1_procs()?;
        if let Some(hierarchy) = self.member_hierarchy() {
            // Written last, and a process is in one cgroup of a hierarchy.
            procs.push(open_procs(&hierarchy.mount.join(self.relative()))?);
        }
        Ok(procs)
    }
}

/// Whether a cgroup of the v2 tree hands controllers down, and so may take no process.
fn hands_down(dir: &Path) -> Result<bool, Error> {
    Ok(!files::read(&dir.join("cgroup.subtree_control"))?.trim().is_empty())
}

fn open_procs(dir: &Path) -> Result<OwnedFd, Error> {
    let path = dir.join("cgroup.procs");
    let file: io::Result<File> = OpenOptions::new().write(true).open(&path);
    Ok(file.map_err(|source| Error::Read { path, source })?.into())
}

//! How a process gets into a cgroup.

use std::fs::{File, OpenOptions};
use std::io;
use std::os::fd::OwnedFd;
use std::path::Path;

use crate::group::{Role, open_dir};
use crate::host::Controller;
use crate::{Cgroup, Error};

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

fn open_procs(dir: &Path) -> Result<OwnedFd, Error> {
    let path = dir.join("cgroup.procs");
    let file: io::Result<File> = OpenOptions::new().write(true).open(&path);
    Ok(file.map_err(|source| Error::Read { path, source })?.into())
}

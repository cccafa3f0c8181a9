//! A pod's cgroup.

use std::path::Path;
use std::sync::Arc;

use coracle_model::ContainerId;
use rustix::process::Pid;

use crate::group::Role;
use crate::kubepods::{blocking, enable_controllers, subdirs};
use crate::layout::Slice;
use crate::scope::{FirstProcess, PodSettings, Scope};
use crate::{Cgroup, Error, Kubepods, Limits, RemoveError, files};

/// The name of pause's cgroup, which no container identifier can be.
const PAUSE: &str = "pause";

/// A pod's cgroup: bounds what its containers use together and is killed and removed as one.
#[derive(Clone, Debug)]
pub struct PodCgroup {
    kubepods: Kubepods,
    cgroup: Cgroup,
    /// In which its scope is, if systemd makes it.
    slice: Option<Slice>,
}

impl PodCgroup {
    pub(crate) fn new(kubepods: Kubepods, cgroup: Cgroup, slice: Option<Slice>) -> Self {
        Self { kubepods, cgroup, slice }
    }

    /// Whether it begins with a process, and ends when none is left in it: systemd makes it.
    pub fn begins_with_a_process(&self) -> bool {
        self.slice.is_some()
    }

    /// Makes the pod's cgroup and pause's in it, or finishes what was interrupted. Limits that are
    /// `None` are left as they are.
    ///
    /// One that [begins with a process](PodCgroup::begins_with_a_process) is given one, which must not end before
    /// pause is in it, and lies in pause's cgroup then.
    ///
    /// # Errors
    /// On the first step that fails; call it again or remove it.
    pub async fn ensure(&self, settings: &PodSettings, first: Option<FirstProcess<'_>>) -> Result<(), Error> {
        let (pod, limits) = (self.clone(), settings.limits);
        let Some(scope) = self.scope()? else {
            return blocking(move || pod.make(&limits)).await;
        };
        let first = first.ok_or_else(|| Error::NoProcess(scope.unit.clone()))?;
        // The slices are looked after where they are found missing: systemd would make them without their weights.
        if let Some(slice) = &self.slice
            && !self.kubepods.group(&slice.path()).exists()
        {
            self.kubepods.ensure_again().await?;
        }
        let agent = self.kubepods.agent().await?;
        scope.start(self.kubepods.systemd(), settings, first, agent.as_ref()).await?;
        let pid = first.pid;
        blocking(move || pod.furnish(pid)).await
    }

    /// Removes it and all below it; its processes must have been killed. What is not there is no error.
    ///
    /// # Errors
    /// Names what could not be removed, or says what systemd did not do; all else is gone.
    pub async fn remove(&self) -> Result<(), Error> {
        let pod = self.clone();
        let Some(scope) = self.scope()? else {
            return blocking(move || pod.cgroup.remove()).await;
        };
        if !self.cgroup.exists() {
            return Ok(());
        }
        blocking(move || pod.clear()).await?;
        scope.stop(self.kubepods.systemd()).await?;
        // systemd removes it. It knows nothing of one whose scope it has forgotten, or is gone itself.
        let pod = self.clone();
        blocking(move || pod.cgroup.remove()).await
    }

    /// The pod's cgroup itself: to kill, to wait for and to measure all of the pod at once.
    pub fn cgroup(&self) -> &Cgroup {
        &self.cgroup
    }

    /// pause's cgroup.
    pub fn pause(&self) -> Cgroup {
        self.child(Path::new(PAUSE), Role::Pause)
    }

    /// A container's cgroup.
    pub fn container(&self, id: &ContainerId) -> Cgroup {
        self.child(Path::new(&id.to_string()), Role::Container)
    }

    fn child(&self, name: &Path, role: Role) -> Cgroup {
        Cgroup::new(Arc::clone(self.kubepods.host()), self.cgroup.relative().join(name), role)
    }

    fn scope(&self) -> Result<Option<Scope<'_>>, Error> {
        let Some(slice) = &self.slice else { return Ok(None) };
        let name = self.cgroup.relative().file_name().unwrap_or_default().to_string_lossy();
        Ok(Some(Scope { unit: name.parse()?, slice: slice.unit()?, cgroup: &self.cgroup }))
    }

    /// Makes the directories and writes the limits.
    fn make(&self, limits: &Limits) -> Result<(), Error> {
        // The subtree is made when the agent starts. It is only looked after where it is found missing,
        // since that takes longer than all of this pod.
        if files::if_there(self.cgroup.make(limits))?.is_none() {
            self.kubepods.make_dirs()?;
            self.cgroup.make(limits)?;
        }
        if let Some(dir) = self.cgroup.v2_dir() {
            enable_controllers(self.cgroup.host(), &dir)?;
        }
        self.pause().make(&Limits::default())
    }

    /// Makes pause's cgroup in a scope that has just begun, and moves the first process there: only then can the scope
    /// hand controllers down.
    fn furnish(&self, first: Pid) -> Result<(), Error> {
        let pause = self.pause();
        pause.make(&Limits::default())?;
        if let (Some(pod), Some(dir)) = (self.cgroup.v2_dir(), pause.v2_dir()) {
            let path = dir.join("cgroup.procs");
            let value = first.as_raw_nonzero().to_string();
            files::write(&path, &value).map_err(|source| Error::Write { path, value, source })?;
            enable_controllers(self.cgroup.host(), &pod)?;
        }
        Ok(())
    }

    /// Removes what the agent has made in a scope, as much of it as can be.
    fn clear(&self) -> Result<(), Error> {
        let Some(dir) = self.cgroup.v2_dir() else { return Ok(()) };
        let mut failures = Vec::new();
        for name in subdirs(&dir)? {
            match self.child(Path::new(&name), Role::Inner).remove() {
                Err(Error::Remove(RemoveError(more))) => failures.extend(more),
                removed => removed?,
            }
        }
        if failures.is_empty() { Ok(()) } else { Err(Error::Remove(RemoveError(failures))) }
    }
}

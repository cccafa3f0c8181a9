//! A pod's cgroup.

use std::path::Path;
use std::sync::Arc;

use coracle_model::ContainerId;

use crate::group::Role;
use crate::kubepods::enable_controllers;
use crate::{Cgroup, Error, Kubepods, Limits, files};

/// The name of pause's cgroup, which no container identifier can be.
const PAUSE: &str = "pause";

/// A pod's cgroup: bounds what its containers use together and is killed and removed as one.
#[derive(Clone, Debug)]
pub struct PodCgroup {
    kubepods: Kubepods,
    cgroup: Cgroup,
}

impl PodCgroup {
    pub(crate) fn new(kubepods: Kubepods, cgroup: Cgroup) -> Self {
        Self { kubepods, cgroup }
    }

    /// Makes the pod's cgroup and pause's in it, or finishes what was interrupted. Limits that are
    /// `None` are left as they are.
    ///
    /// # Errors
    /// On the first step that fails; call it again or remove it.
    pub fn ensure(&self, limits: &Limits) -> Result<(), Error> {
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

    /// The pod's cgroup itself: to kill, to wait for, to measure and to remove all of the pod at once.
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
}

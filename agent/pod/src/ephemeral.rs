//! Adding an ephemeral container to a pod that is there.

use coracle_model::{EphemeralContainer, Pod, PodKey};
use tokio::sync::oneshot;

/// Why an ephemeral container was not added, in the API server's words where it has them.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NotAdded {
    /// The pod is not there, or went meanwhile.
    #[error("there is no such pod any more")]
    Gone,
    /// It has ended, is being ended, or waits for another of its name to be gone.
    #[error("pod {0} does not run: it takes no ephemeral container")]
    NotRunning(PodKey),
    /// Another container of the pod has the name.
    #[error("spec.ephemeralContainers[{index}].name: Duplicate value: {name:?}")]
    NameTaken {
        /// Its place, had it been added.
        index: usize,
        /// The name.
        name: String,
    },
    /// The target is none of the pod's containers, or is an ephemeral one.
    #[error("spec.ephemeralContainers[{index}].targetContainerName: Not found: {target:?}")]
    NoTarget {
        /// Its place, had it been added.
        index: usize,
        /// The target.
        target: String,
    },
}

/// A request to add one.
#[derive(Debug)]
pub(crate) struct Addition {
    pub(crate) container: EphemeralContainer,
    /// Told once the container is on record.
    pub(crate) answer: oneshot::Sender<Result<(), NotAdded>>,
}

/// The pod with one ephemeral container more.
pub(crate) fn with(pod: &Pod, container: EphemeralContainer) -> Result<Pod, NotAdded> {
    let spec = &pod.spec;
    let index = spec.ephemeral_containers.len();
    let name = &container.container.name;
    if pod.container(name).is_some() {
        return Err(NotAdded::NameTaken { index, name: name.to_string() });
    }
    if let Some(target) = &container.target
        && !spec.init_containers.iter().chain(&spec.containers).any(|one| one.name == *target)
    {
        return Err(NotAdded::NoTarget { index, target: target.to_string() });
    }
    let mut pod = pod.clone();
    pod.spec.ephemeral_containers.push(container);
    Ok(pod)
}

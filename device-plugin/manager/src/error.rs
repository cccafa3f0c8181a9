//! What can fail.

use std::io;
use std::path::PathBuf;

use coracle_device_api::ServeError;
use coracle_model::{ExtendedResource, Name};

/// A manager cannot begin.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// The directory of plugins cannot be used.
    #[error("{}: the directory of device plugins cannot be used: {error}", path.display())]
    PluginDir {
        /// The directory.
        path: PathBuf,
        /// Why.
        error: io::Error,
    },
    /// The node's socket cannot be served.
    #[error(transparent)]
    Serve(#[from] ServeError),
    /// The directory in which plugins wait cannot be watched.
    #[error("{}: plugins that wait to be found cannot be looked for: {error}", path.display())]
    RegistryDir {
        /// The directory.
        path: PathBuf,
        /// Why.
        error: io::Error,
    },
    /// The checkpoint is there, and cannot be read; another time it may.
    #[error(
        "{}: the record of who has which device cannot be read: {error}; mend that, or remove the file: it is made anew from \
         the records of pods",
        path.display()
    )]
    Checkpoint {
        /// The file.
        path: PathBuf,
        /// Why.
        error: io::Error,
    },
    /// More NUMA nodes than can be reckoned with.
    #[error(
        "the machine has {nodes} NUMA nodes, and topologyManagerPolicy can be other than none with at most 8"
    )]
    NumaNodes {
        /// How many.
        nodes: u32,
    },
}

/// A pod did not get its devices. It has none of them.
#[derive(Debug, thiserror::Error)]
pub enum AllocateError {
    /// No plugin serves the resource (yet).
    #[error("waiting for a device plugin that serves {resource}: {why}")]
    Missing {
        /// Which resource.
        resource: ExtendedResource,
        /// What there is of a plugin.
        why: &'static str,
    },
    /// The pod's devices are being given to it, or were taken back meanwhile.
    #[error("the pod's devices are being given or taken back at this moment")]
    Busy,
    /// There are fewer than it asks for.
    #[error(
        "Node didn't have enough resource: {resource}, requested: {requested}, used: {used}, capacity: {capacity}"
    )]
    Insufficient {
        /// Which resource.
        resource: ExtendedResource,
        /// How many it asks for, all containers together.
        requested: u64,
        /// How many pods have.
        used: u64,
        /// How many healthy ones there are.
        capacity: u64,
    },
    /// The topology policy does not admit it.
    #[error("Resources cannot be allocated with Topology locality")]
    Topology,
    /// The plugin refused, or answered what cannot be.
    #[error("Allocate failed due to the device plugin of {resource}: {problem}, which is unexpected")]
    Plugin {
        /// Which resource.
        resource: ExtendedResource,
        /// What it said, or what is wrong with that.
        problem: String,
    },
    /// It could not be put on record.
    #[error("{}: who has which device cannot be recorded: {error}", path.display())]
    Checkpoint {
        /// The file.
        path: PathBuf,
        /// Why.
        error: io::Error,
    },
}

/// A container's devices cannot be made ready.
#[derive(Debug, thiserror::Error)]
pub enum PrepareError {
    /// The pod was given none.
    #[error("container {container} was given no devices of {resource}, which it asks for")]
    NotGiven {
        /// Which container.
        container: Name,
        /// Of which resource.
        resource: ExtendedResource,
    },
    /// The plugin that is to make them ready is not there.
    #[error(
        "the devices of {resource} need their plugin, which is not there, before container {container} can start"
    )]
    Missing {
        /// Which container.
        container: Name,
        /// Of which resource.
        resource: ExtendedResource,
    },
    /// The plugin refused, or did not answer.
    #[error("the plugin of {resource} did not make the devices of container {container} ready: {problem}")]
    Plugin {
        /// Which container.
        container: Name,
        /// Of which resource.
        resource: ExtendedResource,
        /// What it said.
        problem: String,
    },
}

/// That devices were taken back could not be put on record. They are free all the same.
#[derive(Debug, thiserror::Error)]
#[error("{}: that a pod's devices are free cannot be recorded: {error}", path.display())]
pub struct ReleaseError {
    /// The file.
    pub path: PathBuf,
    /// Why.
    pub error: io::Error,
}

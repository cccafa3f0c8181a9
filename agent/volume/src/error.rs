//! What can go wrong with volumes.

use std::io;
use std::path::{Path, PathBuf};

use coracle_model::{MountPropagation, Quantity};

/// A volume that cannot be made, mounted or removed.
#[derive(Debug, thiserror::Error)]
pub enum VolumeError {
    /// A mount names no volume of the pod.
    #[error("the pod has no volume {volume:?}")]
    Unknown {
        /// The name.
        volume: String,
    },
    /// A path of a file of configuration that no volume can have; Kubernetes' words.
    #[error("invalid path: {path}: {problem}")]
    PayloadPath {
        /// The path in the volume.
        path: String,
        /// What is wrong with it.
        problem: String,
    },
    /// A system call failed.
    #[error("cannot {step} {path}: {source}")]
    Io {
        /// What was tried.
        step: &'static str,
        /// On what.
        path: PathBuf,
        /// Why it failed.
        source: io::Error,
    },
    /// A hostPath is not what its type asks for; the kubelet's words.
    #[error(
        "MountVolume.SetUp failed for volume {volume:?} : hostPath type check failed: {path} is not a {expected}"
    )]
    HostPathType {
        /// The volume.
        volume: String,
        /// The path of the host.
        path: PathBuf,
        /// What it should be.
        expected: &'static str,
    },
    /// A volume was not made, or its memory is not mounted any more.
    #[error("the volume {path} is not ready: {problem}")]
    NotReady {
        /// Its directory.
        path: PathBuf,
        /// What is missing.
        problem: &'static str,
    },
    /// A subPath leads out of its volume.
    #[error("failed to prepare subPath for volumeMount {volume:?}: {sub_path} leads out of the volume")]
    SubPathEscapes {
        /// The volume.
        volume: String,
        /// The path inside it.
        sub_path: PathBuf,
    },
    /// A subPath cannot be opened or made.
    #[error("failed to prepare subPath for volumeMount {volume:?}: {step} {sub_path}: {source}")]
    SubPath {
        /// The volume.
        volume: String,
        /// The path inside it.
        sub_path: PathBuf,
        /// What was tried.
        step: &'static str,
        /// Why it failed.
        source: io::Error,
    },
    /// A file in a volume cannot be read.
    #[error("cannot read {path} in volume {volume:?}: {problem}")]
    File {
        /// The volume.
        volume: String,
        /// The path inside it.
        path: PathBuf,
        /// Why it cannot.
        problem: String,
    },
    /// The host's mount does not propagate; a CRI runtime's words.
    #[error(
        "path {path:?} is mounted on {mounted_on:?} but it is not a {}; mountPropagation {wanted:?} needs `mount --make-rshared {}`",
        if *.wanted == MountPropagation::Bidirectional { "shared mount" } else { "shared or slave mount" },
        .mounted_on.display()
    )]
    Propagation {
        /// The volume's path.
        path: PathBuf,
        /// The mount it is on.
        mounted_on: PathBuf,
        /// What was asked for.
        wanted: MountPropagation,
    },
    /// An emptyDir holds more than its limit; the kubelet's words.
    #[error("Usage of EmptyDir volume {volume:?} exceeds the limit \"{limit}\". ")]
    OverLimit {
        /// The volume.
        volume: String,
        /// Its limit.
        limit: Quantity,
    },
}

impl VolumeError {
    pub(crate) fn io<E: Into<io::Error>>(step: &'static str, path: &Path) -> impl FnOnce(E) -> Self + use<E> {
        let path = path.to_owned();
        move |source| Self::Io { step, path, source: source.into() }
    }
}

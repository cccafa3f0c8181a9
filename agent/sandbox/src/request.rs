//! What the runtime is asked for.

use std::collections::BTreeMap;
use std::os::fd::OwnedFd;
use std::path::PathBuf;
use std::sync::Arc;

use coracle_model::{Container, ContainerEdits, ContainerId, Pod};

/// A container to be created. Whoever asks has resolved the image, the user and the volumes.
#[derive(Debug)]
pub struct ContainerRequest {
    /// Chosen by whoever asks, who may have made a writable layer under this name.
    pub id: ContainerId,
    /// The container's pod.
    pub pod: Arc<Pod>,
    /// Its specification.
    pub container: Container,
    /// Its restart count, which names its log file.
    pub attempt: u32,
    /// What names its image in the pod's status (`imageID`).
    pub image_id: String,
    /// What names, in the same way, the images it has as volumes, by volume.
    pub volume_images: BTreeMap<String, String>,
    /// Program and arguments. Never empty.
    pub args: Vec<String>,
    /// Each name once.
    pub env: Vec<(String, String)>,
    /// Absolute.
    pub cwd: String,
    /// Whom it runs as.
    pub user: ExecUser,
    /// The signal that asks it to end.
    pub stop_signal: i32,
    /// The root file system, as a detached mount.
    pub rootfs: OwnedFd,
    /// A directory of the container's own, gone only after it, where its termination message is kept.
    pub state_dir: PathBuf,
    /// The volumes, as detached mounts with their attributes set.
    pub mounts: Vec<RequestMount>,
    /// What devices bring. `default_env` is in `env` by now.
    pub edits: ContainerEdits,
}

/// A volume in a container.
#[derive(Debug)]
pub struct RequestMount {
    /// Path inside the container.
    pub destination: String,
    /// The detached mount.
    pub mount: OwnedFd,
}

/// Whom a process runs as.
#[derive(Clone, Debug, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct ExecUser {
    /// User id.
    pub uid: u32,
    /// Primary group id.
    pub gid: u32,
    /// Further groups.
    pub additional_gids: Vec<u32>,
}

//! Volumes and logs for pods.

use std::fs;
use std::io;
use std::path::PathBuf;
use std::sync::Arc;

use coracle_model::{Pod, PodUid};
use coracle_pod::ports::{self, Failure};
use coracle_volume::Volumes;

use super::PodDirs;
use super::failure::{blocking, failure};

/// The volumes, as pods need them.
pub(crate) struct VolumePort {
    volumes: Arc<Volumes>,
    dirs: PodDirs,
    log_dir: PathBuf,
}

// === impl VolumePort ===

impl VolumePort {
    pub(super) fn new(volumes: Arc<Volumes>, dirs: PodDirs, log_dir: PathBuf) -> Self {
        Self { volumes, dirs, log_dir }
    }
}

impl ports::Volumes for VolumePort {
    async fn ensure_volumes(&self, pod: &Arc<Pod>) -> Result<(), Failure> {
        let (volumes, pod) = (Arc::clone(&self.volumes), Arc::clone(pod));
        blocking(move || volumes.ensure(&pod).map_err(failure("FailedMount"))).await
    }

    async fn release_volumes(&self, pod: &PodUid) -> Result<(), Failure> {
        let (volumes, uid, dir) = (Arc::clone(&self.volumes), pod.clone(), self.dirs.pod(pod));
        blocking(move || {
            volumes.release(&uid).map_err(|errors| {
                let all: Vec<String> = errors.iter().map(ToString::to_string).collect();
                Failure::new("FailedUnmount", all.join("; "))
            })?;
            // The layers and volumes in it are gone; what else is there is nobody's to remove.
            match fs::remove_dir(&dir) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => {
                    Err(Failure::new("FailedUnmount", format!("cannot remove {}: {error}", dir.display())))
                }
                _ => Ok(()),
            }
        })
        .await
    }

    async fn release_logs(&self, pod: &Arc<Pod>) -> Result<(), Failure> {
        let name = format!("{}_{}_{}", pod.key.namespace, pod.key.name, pod.uid);
        let log_dir = self.log_dir.clone();
        blocking(move || remove_logs(&log_dir, &name)).await
    }
}

/// Removes a pod's logs without following links: a pod may have had the directory mounted.
fn remove_logs(log_dir: &std::path::Path, name: &str) -> Result<(), Failure> {
    let failed = |error: io::Error| {
        Failure::new("FailedToRemoveLogs", format!("cannot remove {}: {error}", log_dir.join(name).display()))
    };
    let dir = match fs::File::open(log_dir) {
        Ok(dir) => dir,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(failed(error)),
    };
    coracle_linux::remove_tree(std::os::fd::AsFd::as_fd(&dir), name.as_ref()).map_err(failed)
}

//! Volumes and logs for pods.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::sync::Arc;

use coracle_model::{Pod, PodUid};
use coracle_pod::ports::{self, Failure};
use coracle_sandbox::Runtime;
use coracle_volume::Volumes;

use super::PodDirs;
use super::failure::{blocking, failure};

/// The volumes, as pods need them.
pub(crate) struct VolumePort {
    volumes: Arc<Volumes>,
    dirs: PodDirs,
    runtime: Runtime,
}

// === impl VolumePort ===

impl VolumePort {
    pub(super) fn new(volumes: Arc<Volumes>, dirs: PodDirs, runtime: Runtime) -> Self {
        Self { volumes, dirs, runtime }
    }
}

impl ports::Volumes for VolumePort {
    async fn ensure_volumes(&self, pod: &Arc<Pod>) -> Result<(), Failure> {
        let (volumes, pod) = (Arc::clone(&self.volumes), Arc::clone(pod));
        blocking(move || volumes.ensure(&pod, &BTreeMap::new()).map_err(failure("FailedMount"))).await
    }

    /// Manifests with volumes of configuration are refused: there is none to write into.
    async fn refresh_volumes(&self, _: &Arc<Pod>) -> Result<(), Failure> {
        Ok(())
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
        self.runtime.remove_logs(pod).await.map_err(failure("FailedToRemoveLogs"))
    }
}

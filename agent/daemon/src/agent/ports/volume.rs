//! Volumes and logs for pods.

use std::collections::{BTreeMap, HashMap};
use std::fs;
use std::io;
use std::sync::{Arc, Mutex, PoisonError};

use coracle_controller::Configs;
use coracle_image::Store;
use coracle_model::{EventType, Name, Pod, PodUid, ProjectedVolume, Volume, VolumeSource};
use coracle_pod::ports::{self, Events, Failure, PodEvent};
use coracle_sandbox::Runtime;
use coracle_volume::{Payload, VolumeError, Volumes};
use tokio::sync::OwnedMutexGuard;

use super::configuration::{self, Sources};
use super::failure::{blocking, failure};
use super::{Configuration, EventPort, PodDirs};
use crate::agent::facts::NodeNow;

/// The volumes, as pods need them.
pub(crate) struct VolumePort {
    volumes: Arc<Volumes>,
    /// Where it is noted which images pods have as volumes.
    store: Arc<Store>,
    dirs: PodDirs,
    runtime: Runtime,
    configuration: Configuration,
    events: EventPort,
    /// Held by whoever works on a pod's volumes, to the end of that work even if nobody waits for it any
    /// more: nothing is written into a volume that was released, and nothing old over something new.
    busy: Mutex<HashMap<PodUid, Arc<tokio::sync::Mutex<()>>>>,
}

// === impl VolumePort ===

impl VolumePort {
    pub(super) fn new(
        volumes: Arc<Volumes>,
        store: Arc<Store>,
        dirs: PodDirs,
        runtime: Runtime,
        configuration: Configuration,
        events: EventPort,
    ) -> Self {
        Self { volumes, store, dirs, runtime, configuration, events, busy: Mutex::default() }
    }

    async fn lock(&self, pod: &PodUid) -> OwnedMutexGuard<()> {
        let lock = {
            let mut busy = self.busy.lock().unwrap_or_else(PoisonError::into_inner);
            Arc::clone(busy.entry(pod.clone()).or_default())
        };
        lock.lock_owned().await
    }

    fn forget_lock(&self, pod: &PodUid) {
        self.busy.lock().unwrap_or_else(PoisonError::into_inner).remove(pod);
    }
}

impl ports::Volumes for VolumePort {
    async fn ensure_volumes(&self, pod: &Arc<Pod>) -> Result<(), Failure> {
        let busy = self.lock(&pod.uid).await;
        let configs = self.configuration.of(pod).await;
        let (volumes, pod, node) =
            (Arc::clone(&self.volumes), Arc::clone(pod), self.configuration.node.clone());
        blocking(move || {
            let _busy = busy;
            let node = node.now();
            let mut payloads = BTreeMap::new();
            for (volume, payload) in payloads_of(&pod, &configs, &node) {
                match payload {
                    Ok(payload) => drop(payloads.insert(volume.name.clone(), payload)),
                    // A container that is started again finds what the volume held.
                    Err(_) if volumes.is_written(&pod, volume) => {}
                    Err(problem) => {
                        return Err(Failure::new("FailedMount", not_set_up(&volume.name, &problem)));
                    }
                }
            }
            let memory = || node.allocatable.as_ref().ok().map(|allocatable| allocatable.memory);
            volumes.ensure(&pod, &payloads, memory).map_err(failure("FailedMount"))
        })
        .await
    }

    async fn refresh_volumes(&self, pod: &Arc<Pod>) -> Result<(), Failure> {
        let busy = self.lock(&pod.uid).await;
        let configs = self.configuration.of(pod).await;
        let (volumes, of, node) =
            (Arc::clone(&self.volumes), Arc::clone(pod), self.configuration.node.clone());
        let problems = blocking(move || {
            let _busy = busy;
            refresh(&volumes, &of, &configs, &node.now())
        })
        .await?;
        // Only another change can mend them: they are told, and not tried again until there is one.
        for message in problems {
            let event =
                PodEvent { kind: EventType::Warning, reason: "FailedMount", message, container: None };
            self.events.record(pod, event);
        }
        Ok(())
    }

    async fn over_limit(&self, pod: &Arc<Pod>) -> Result<Option<String>, Failure> {
        let (volumes, pod) = (Arc::clone(&self.volumes), Arc::clone(pod));
        // Nothing is written: nobody has to wait for it.
        blocking(move || match volumes.check_limits(&pod) {
            Ok(()) => Ok(None),
            Err(over @ VolumeError::OverLimit { .. }) => Ok(Some(over.to_string())),
            Err(error) => Err(failure("FailedSync")(error)),
        })
        .await
    }

    async fn release_volumes(&self, pod: &PodUid) -> Result<(), Failure> {
        let busy = self.lock(pod).await;
        let (volumes, uid, dir) = (Arc::clone(&self.volumes), pod.clone(), self.dirs.pod(pod));
        let store = Arc::clone(&self.store);
        blocking(move || {
            let _busy = busy;
            volumes.release(&uid).map_err(|errors| {
                let all: Vec<String> = errors.iter().map(ToString::to_string).collect();
                Failure::new("FailedUnmount", all.join("; "))
            })?;
            store.release_volumes(&uid).map_err(failure("FailedUnmount"))?;
            // The layers and volumes in it are gone; what else is there is nobody's to remove.
            match fs::remove_dir(&dir) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => {
                    Err(Failure::new("FailedUnmount", format!("cannot remove {}: {error}", dir.display())))
                }
                _ => Ok(()),
            }
        })
        .await?;
        self.forget_lock(pod);
        Ok(())
    }

    async fn release_logs(&self, pod: &Arc<Pod>) -> Result<(), Failure> {
        self.runtime.remove_logs(pod).await.map_err(failure("FailedToRemoveLogs"))
    }
}

/// Writes what the volumes that were made are to hold now. What could not be written for want of an object
/// or a key, in words.
fn refresh(volumes: &Volumes, pod: &Pod, configs: &Configs, node: &NodeNow) -> Result<Vec<String>, Failure> {
    let mut problems = Vec::new();
    for (volume, payload) in payloads_of(pod, configs, node) {
        if !volumes.is_written(pod, volume) {
            continue;
        }
        match payload {
            Ok(payload) => {
                let updated = volumes.update(pod, &volume.name, &payload).map_err(failure("FailedMount"))?;
                if updated {
                    tracing::info!(pod = %pod.key, volume = %volume.name, "a volume holds its changed configuration");
                }
            }
            Err(problem) => problems.push(not_set_up(&volume.name, &problem)),
        }
    }
    Ok(problems)
}

/// The pod's volumes of configuration, each with what is to be in it.
fn payloads_of<'a>(
    pod: &'a Pod,
    configs: &'a Configs,
    node: &'a NodeNow,
) -> impl Iterator<Item = (&'a Volume, Result<Payload, String>)> {
    // Only variables tell addresses.
    let sources = Sources { pod, configs, node, addresses: &[] };
    pod.spec.volumes.iter().filter_map(move |volume| match &volume.source {
        VolumeSource::Projected(projected) => Some((volume, payload(projected, sources))),
        _ => None,
    })
}

fn payload(volume: &ProjectedVolume, sources: Sources<'_>) -> Result<Payload, String> {
    configuration::payload(volume, sources)
}

/// The kubelet's words.
fn not_set_up(volume: &Name, problem: &str) -> String {
    format!("MountVolume.SetUp failed for volume {:?} : {problem}", volume.as_str())
}

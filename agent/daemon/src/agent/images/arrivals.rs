//! Images that come by another process, such as `coracle image import`: pods that wait for one go on at once.

use std::collections::BTreeSet;
use std::io;
use std::sync::Arc;

use coracle_image::{Digest, ImageError, ImageName, Store};
use coracle_model::{ContainerState, ImagePullPolicy, PodUid};
use coracle_pod::{PodSnapshot, Pods};
use futures_util::StreamExt;
use inotify::{Inotify, WatchMask};

use crate::agent::ports::NodePorts;

/// What the store replaces whenever a name changes.
const NAMES: &str = "names.json";

/// Room for some dozen events at a time.
const BUFFER: usize = 4096;

/// Why a container waits whose image is not here.
const REASONS: [&str; 4] = ["ErrImagePull", "ImagePullBackOff", "ErrImageNeverPull", "RegistryUnavailable"];

/// What came for whom.
type Arrival = (PodUid, ImageName, Digest);

/// Has pods go on whose images come, for as long as the agent runs.
pub(crate) async fn follow(store: Arc<Store>, pods: Pods<NodePorts>) {
    if let Err(error) = watch(store, pods).await {
        tracing::warn!(%error, "images that others bring are noticed with the next attempt of a pod");
    }
}

async fn watch(store: Arc<Store>, pods: Pods<NodePorts>) -> io::Result<()> {
    let inotify = Inotify::init()?;
    inotify.watches().add(store.root(), WatchMask::MOVED_TO)?;
    let mut events = inotify.into_event_stream(vec![0; BUFFER])?;
    // Each is told once: an image that the pod may not use is no reason to ask the registry ever again.
    let mut told = BTreeSet::new();
    while let Some(event) = events.next().await {
        // One without a name says that some were lost.
        if event?.name.is_some_and(|name| name != NAMES) {
            continue;
        }
        let awaited: Vec<_> = pods.snapshot().iter().flat_map(awaited).collect();
        let store = Arc::clone(&store);
        let here = tokio::task::spawn_blocking(move || here(&store, awaited)).await;
        let here = match here.map_err(io::Error::other)? {
            Ok(here) => here,
            Err(error) => {
                tracing::warn!(%error, "cannot look which images have come");
                continue;
            }
        };
        for (uid, ..) in here.difference(&told) {
            pods.image_came(uid);
        }
        told = here;
    }
    Ok(())
}

/// The images that a pod waits for and that need not be asked of their registry.
fn awaited(snapshot: &PodSnapshot) -> Vec<(PodUid, ImageName)> {
    let waits = |name: &str| {
        let status = snapshot.status.all_containers().find(|status| status.name == name);
        status.is_some_and(|status| match &status.state {
            ContainerState::Waiting(waiting) => REASONS.contains(&waiting.reason.as_str()),
            _ => false,
        })
    };
    let containers = snapshot.pod.all_containers();
    containers
        .filter(|one| one.image_pull_policy != ImagePullPolicy::Always && waits(one.name.as_str()))
        .filter_map(|one| Some((snapshot.pod.uid.clone(), one.image.parse().ok()?)))
        .collect()
}

/// Those of them that are in the store.
fn here(store: &Store, awaited: Vec<(PodUid, ImageName)>) -> Result<BTreeSet<Arrival>, ImageError> {
    let mut here = BTreeSet::new();
    for (uid, name) in awaited {
        if let Some(image) = store.resolve(&name)? {
            here.insert((uid, name, image.id));
        }
    }
    Ok(here)
}

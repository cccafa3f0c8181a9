//! Who uses images.

use std::collections::HashMap;

use coracle_image::{Digest, ImageError, ImageName, Store};
use coracle_server::client::{Client, ClientError, Pod};

/// Which pods use which images. Containers that run hold their image by themselves, also while no agent runs; what only
/// the agent knows is who waits to be started, or started again.
pub(super) struct Users(HashMap<Digest, String>);

// === impl Users ===

impl Users {
    /// Asks the agent, if there is one.
    pub(super) fn ask(client: &Client, store: &Store) -> anyhow::Result<Self> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let pods: Vec<Pod> = match runtime.block_on(client.pods()) {
            Ok(pods) => pods,
            Err(ClientError::Unreachable { .. }) => Vec::new(),
            Err(error) => return Err(error.into()),
        };
        let mut users = HashMap::new();
        let living = pods.iter().filter(|pod| !matches!(pod.status.phase.as_str(), "Succeeded" | "Failed"));
        for pod in living {
            let status = &pod.status;
            let statuses = status.init_container_statuses.iter().chain(&status.container_statuses);
            let statuses = statuses.chain(&status.ephemeral_container_statuses);
            let images = statuses.flat_map(|status| [&status.image_id, &status.image]);
            let volumes =
                pod.spec.volumes.iter().filter_map(|volume| Some(&volume.image.as_ref()?.reference));
            for text in images.chain(volumes) {
                if let Some(id) = identifier(store, text)? {
                    let name = format!("pod {}/{}", pod.metadata.namespace, pod.metadata.name);
                    users.entry(id).or_insert(name);
                }
            }
        }
        Ok(Self(users))
    }

    /// Who uses an image, for people.
    pub(super) fn of(&self, id: &Digest) -> Option<String> {
        self.0.get(id).cloned()
    }
}

/// The image that a status means, by name, by digest or by identifier.
fn identifier(store: &Store, text: &str) -> Result<Option<Digest>, ImageError> {
    if let Ok(id) = text.parse::<Digest>() {
        return Ok(Some(id));
    }
    match text.parse::<ImageName>() {
        Ok(name) => Ok(store.resolve(&name)?.map(|image| image.id)),
        Err(_) => Ok(None),
    }
}

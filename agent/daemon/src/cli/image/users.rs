//! Who uses images.

use std::collections::HashMap;

use coracle_server::client::{Client, ClientError, Pod};

/// Which pod uses an image, by the image's identifier. Containers that run hold their image by
/// themselves, also while no agent runs; what only the agent knows is who waits to be started again.
pub(super) fn users(client: &Client) -> anyhow::Result<HashMap<String, String>> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let pods: Vec<Pod> = match runtime.block_on(client.pods()) {
        Ok(pods) => pods,
        Err(ClientError::Unreachable { .. }) => Vec::new(),
        Err(error) => return Err(error.into()),
    };
    let living = pods.iter().filter(|pod| !matches!(pod.status.phase.as_str(), "Succeeded" | "Failed"));
    let used = living.flat_map(|pod| {
        let status = &pod.status;
        let statuses = status.init_container_statuses.iter().chain(&status.container_statuses);
        let statuses = statuses.chain(&status.ephemeral_container_statuses);
        let name = format!("pod {}/{}", pod.metadata.namespace, pod.metadata.name);
        statuses.map(move |status| (status.image_id.clone(), name.clone()))
    });
    Ok(used.collect())
}

//! Images for pods: those in the store.

use std::sync::Arc;

use coracle_image::{Image, ImageName, Store};
use coracle_model::{Container, ImagePullPolicy, Pod};
use coracle_pod::ports::{Failure, ImageRef, Images};

use super::failure::{blocking, failure};

/// The image store, as pods need it.
pub(crate) struct ImagePort {
    store: Arc<Store>,
}

// === impl ImagePort ===

impl ImagePort {
    pub(super) fn new(store: Arc<Store>) -> Self {
        Self { store }
    }
}

impl Images for ImagePort {
    async fn ensure_image(&self, _pod: &Arc<Pod>, container: &Container) -> Result<ImageRef, Failure> {
        let name: ImageName = container.image.parse().map_err(|error| {
            Failure::new(
                "InvalidImageName",
                format!("Failed to apply default image tag {:?}: {error}", container.image),
            )
        })?;
        let wanted = container.image.clone();
        let policy = container.image_pull_policy;
        let store = Arc::clone(&self.store);
        blocking(move || {
            let present = store.resolve(&name).map_err(failure("ImageInspectError"))?;
            match (policy, present) {
                (ImagePullPolicy::Never | ImagePullPolicy::IfNotPresent, Some(image)) => {
                    Ok(ImageRef { id: image.id.to_string(), shown: shown(&image, &name) })
                }
                (ImagePullPolicy::Never, None) => Err(Failure::new(
                    "ErrImageNeverPull",
                    format!("Container image {wanted:?} is not present with pull policy of Never"),
                )),
                (ImagePullPolicy::IfNotPresent, None) => Err(Failure::new(
                    "ErrImagePull",
                    format!(
                        "image {name} is not in the store, and this version of coracle does not pull from \
                         registries; import it: coracle image import PATH --name {wanted}"
                    ),
                )),
                (ImagePullPolicy::Always, present) => Err(Failure::new(
                    "ErrImagePull",
                    format!(
                        "imagePullPolicy is Always{}, and this version of coracle does not pull image {name} \
                         from its registry; set imagePullPolicy: IfNotPresent to use {}",
                        if wanted.contains('@') { "" } else { " (the default for the tag latest)" },
                        if present.is_some() { "the image in the store" } else { "an imported image" },
                    ),
                )),
            }
        })
        .await
    }
}

/// What a status shows as `imageID`: as under containerd the image by digest, by the repository it was asked for where
/// it is known there; without any the image's identifier.
fn shown(image: &Image, name: &ImageName) -> String {
    let same = |digest: &&ImageName| digest.repository() == name.repository();
    let digest = image.repo_digests.iter().find(same).or(image.repo_digests.first());
    digest.map_or_else(|| image.id.to_string(), ToString::to_string)
}

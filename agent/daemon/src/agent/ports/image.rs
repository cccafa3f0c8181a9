//! Images for pods.

use std::sync::Arc;

use coracle_model::{Container, Pod, VolumeSource};
use coracle_pod::ports::{Failure, ImageRef, Images};

use crate::agent::images::{NodeImages, Wanted};

/// The node's images, as pods need them.
pub(crate) struct ImagePort {
    images: NodeImages,
}

// === impl ImagePort ===

impl ImagePort {
    pub(super) fn new(images: NodeImages) -> Self {
        Self { images }
    }

    /// Makes the images of the volumes available that a container has mounted.
    async fn ensure_volumes(&self, pod: &Pod, container: &Container) -> Result<(), Failure> {
        for volume in pod.image_volumes(container) {
            let VolumeSource::Image { reference, pull_policy } = &volume.source else { continue };
            let wanted =
                Wanted { pod, container: Some(&container.name), image: reference, policy: *pull_policy };
            self.images.ensure_volume(&volume.name, &wanted).await?;
        }
        Ok(())
    }
}

impl Images for ImagePort {
    async fn ensure_image(&self, pod: &Arc<Pod>, container: &Container) -> Result<ImageRef, Failure> {
        let wanted = Wanted {
            pod,
            container: Some(&container.name),
            image: &container.image,
            policy: container.image_pull_policy,
        };
        let (image, volumes) = tokio::join!(self.images.ensure(&wanted), self.ensure_volumes(pod, container));
        let image = image?;
        volumes?;
        Ok(image)
    }
}

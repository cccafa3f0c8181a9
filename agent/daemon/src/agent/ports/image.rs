//! Images for pods.

use std::sync::Arc;

use coracle_model::{Container, Pod};
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
}

impl Images for ImagePort {
    async fn ensure_image(&self, pod: &Arc<Pod>, container: &Container) -> Result<ImageRef, Failure> {
        let wanted = Wanted {
            pod,
            container: Some(&container.name),
            image: &container.image,
            policy: container.image_pull_policy,
        };
        self.images.ensure(&wanted).await
    }
}

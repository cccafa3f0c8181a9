//! One pull: from a name to an image in the store.

use std::sync::Arc;

use coracle_credentials::Found;
use coracle_image::{Image, ImageError, Incoming, Limits, Store};
use coracle_model::{Digest, ImageName};
use coracle_registry::{Client, Credential, Descriptor, Manifest};
use tokio::sync::watch;

use crate::access::Pulling;
use crate::error::{Attempt, PullError};
use crate::layers::{Layers, fetch_layers};
use crate::thread::on_thread;
use crate::turn::Turn;
use crate::{LayerProgress, LayerState, Progress, Stage};

/// What a pull is made with.
#[derive(Clone)]
pub(crate) struct Parts {
    pub(crate) store: Store,
    pub(crate) client: Client,
    pub(crate) layers: Arc<Layers>,
}

/// An image that a registry has let us have.
#[derive(Clone, Debug)]
pub struct Pulled {
    /// The image, as it is in the store now.
    pub image: Image,
    /// The digest the registry knows it by.
    pub digest: Digest,
    /// What the registry was shown.
    pub with: Found,
    /// Whether something had to come: otherwise the image was in the store already.
    pub fetched: bool,
}

/// Why one set of credentials has brought nothing.
pub(crate) enum Fault {
    Registry(coracle_registry::Error),
    Other(PullError),
}

impl Parts {
    /// Tries the credentials in order, each until the registry does not refuse it. `record` is told of the image before that
    /// becomes visible.
    pub(crate) async fn pull(
        &self,
        name: &ImageName,
        credentials: &[Found],
        progress: &watch::Sender<Progress>,
        turn: &Turn,
        record: Option<&Pulling>,
    ) -> Result<Pulled, PullError> {
        let mut attempts = Vec::new();
        for found in credentials {
            match self.pull_with(name, found, progress, turn, record).await {
                Ok(pulled) => return Ok(pulled),
                Err(Fault::Registry(error)) => {
                    // Many registries do not tell what is not there from what is not for everybody.
                    let refused = error.is_unauthorized() || error.is_not_found();
                    attempts.push(Attempt { credentials: found.source.to_string(), error });
                    if !refused {
                        break;
                    }
                }
                Err(Fault::Other(error)) => return Err(error),
            }
        }
        Err(PullError::Registry(attempts))
    }

    async fn pull_with(
        &self,
        name: &ImageName,
        found: &Found,
        progress: &watch::Sender<Progress>,
        turn: &Turn,
        record: Option<&Pulling>,
    ) -> Result<Pulled, Fault> {
        let credential = &found.credential;
        progress.send_modify(|progress| (progress.stage, progress.layers) = (Stage::Resolving, Vec::new()));
        let digest = self.client.digest(name, credential).await?;
        if let Some(digest) = digest
            && let Some(image) = self.known(name, digest).await?
        {
            return Ok(Pulled { image, digest, with: found.clone(), fetched: false });
        }
        // By its digest where it is known: a tag that moves meanwhile may be gone.
        let exact = digest.map_or_else(|| name.clone(), |digest| name.with_digest(digest));
        let manifest = self.client.manifest(&exact, credential).await?;
        let image = self.fetch(name, &manifest, credential, progress, turn, record).await?;
        Ok(Pulled { image, digest: manifest.digest, with: found.clone(), fetched: true })
    }

    /// The image that the registry means, if the store has it: the name is given to it.
    async fn known(&self, name: &ImageName, digest: Digest) -> Result<Option<Image>, Fault> {
        let (store, name) = (self.store.clone(), name.clone());
        self.on_store(&name.clone(), move || {
            let image = match store.resolve(&name.with_digest(digest)) {
                // What is damaged comes again.
                Ok(None) | Err(ImageError::Record { .. }) => return Ok(None),
                Ok(Some(image)) => image,
                Err(error) => return Err(error),
            };
            if name.digest().is_some() || (store.resolver()?)(&name) == Some(image.id) {
                return Ok(Some(image));
            }
            match store.tag(&image.id.to_string(), &name) {
                // Removed meanwhile: then it is pulled.
                Err(ImageError::NotFound(_)) => Ok(None),
                tagged => tagged.and_then(|_| store.resolve(&name)),
            }
        })
        .await
    }

    async fn fetch(
        &self,
        name: &ImageName,
        manifest: &Manifest,
        credential: &Credential,
        progress: &watch::Sender<Progress>,
        turn: &Turn,
        record: Option<&Pulling>,
    ) -> Result<Image, Fault> {
        let config = self.client.document(name, &manifest.config, credential).await?;
        let (store, bytes) = (self.store.clone(), manifest.bytes.clone());
        let sizes: Vec<_> = manifest.layers.iter().map(least).collect();
        let begin = move || {
            let incoming = store.incoming(&bytes, &config, Limits::default())?;
            incoming.check_room(sizes.into_iter())?;
            Ok(incoming)
        };
        let incoming = Arc::new(self.on_store(name, begin).await?);
        if incoming.layers().len() != manifest.layers.len() {
            return Err(Fault::Other(PullError::Layers {
                name: name.clone(),
                layers: manifest.layers.len(),
                diff_ids: incoming.layers().len(),
            }));
        }
        turn.take_back().await;
        progress.send_modify(|progress| {
            progress.stage = Stage::Pulling;
            progress.layers = layers(&incoming, manifest);
        });
        fetch_layers(self, name, &incoming, &manifest.layers, credential, progress).await?;

        progress.send_modify(|progress| progress.stage = Stage::Committing);
        if let Some(record) = record {
            // The thread that commits goes on when nobody waits for it any more, and then nobody notes what it has made.
            record.brings(incoming.id()).await.map_err(|error| Fault::Other(error.into()))?;
        }
        let mut names = vec![name.key()];
        let by_digest = name.with_digest(manifest.digest);
        if by_digest != names[0] {
            names.push(by_digest);
        }
        self.on_store(name, move || Ok(incoming.commit(&names, None)?.image)).await
    }

    /// Does what waits for the disk.
    async fn on_store<T: Send + 'static>(
        &self,
        name: &ImageName,
        work: impl FnOnce() -> Result<T, ImageError> + Send + 'static,
    ) -> Result<T, Fault> {
        let done = on_thread("image-store", work);
        let done = done.map_err(|source| PullError::Thread { name: name.clone(), source });
        match done.map_err(Fault::Other)?.await {
            Some(Ok(result)) => Ok(result),
            Some(Err(source)) => Err(Fault::Other(PullError::Store { name: name.clone(), source })),
            None => Err(Fault::Other(PullError::Ended("the store's thread".to_owned()))),
        }
    }
}

/// What a layer takes of the disk at least. One that is not compressed may be made of headers.
fn least(layer: &Descriptor) -> u64 {
    let is_compressed = ["gzip", "zstd"].iter().any(|end| layer.media_type.ends_with(end));
    if is_compressed { layer.size } else { 0 }
}

fn layers(incoming: &Incoming, manifest: &Manifest) -> Vec<LayerProgress> {
    let layer = |(known, layer): (&coracle_image::IncomingLayer, &Descriptor)| LayerProgress {
        digest: layer.digest,
        size: layer.size,
        done: 0,
        state: if known.have { LayerState::Exists } else { LayerState::Waiting },
    };
    incoming.layers().iter().zip(&manifest.layers).map(layer).collect()
}

impl From<coracle_registry::Error> for Fault {
    fn from(error: coracle_registry::Error) -> Self {
        Self::Registry(error)
    }
}

//! The node's images: where they come from, and which of them go.

mod archives;
mod arrivals;
mod collector;
mod holders;
mod words;

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use anyhow::Context;
use coracle_credentials::{CredentialProviders, DockerConfigFiles, Keyring, PullSecrets};
use coracle_image::{Image, ImageError, ImageName, Store};
use coracle_model::{ConfigKey, ConfigKind, EventType, ImagePullPolicy, Name, Pod};
use coracle_pod::ports::{Events as _, Failure, ImageRef, PodEvent};
use coracle_pull::access::{self, Access};
use coracle_pull::{PullError, Pulled, Puller, Stage};
use coracle_registry::Client;
use tokio::time::sleep;

pub(super) use self::archives::Archives;
pub(super) use self::arrivals::follow as follow_arrivals;
pub(super) use self::collector::{Asks, Collecting, Collector};
use self::words::go_duration;
use super::ports::{Configuration, EventPort};
use crate::config::Config;

/// A pull that waits longer for its turn is told of.
const PATIENCE: Duration = Duration::from_secs(2);

/// What makes images available to pods. Cloning is cheap.
#[derive(Clone)]
pub(crate) struct NodeImages(Arc<Inner>);

struct Inner {
    store: Arc<Store>,
    puller: Puller,
    keyring: Mutex<Keyring>,
    access: Access,
    /// Where the node's own credentials are looked for.
    images_dir: PathBuf,
    collecting: Collecting,
    configuration: Configuration,
    events: EventPort,
}

/// Where images come from, and with which credentials.
pub(crate) struct Sources {
    registries: Client,
    keyring: Keyring,
}

/// An image that somebody wants for a pod.
pub(crate) struct Wanted<'a> {
    pub(crate) pod: &'a Pod,
    /// The container it is for, itself or as a volume.
    pub(crate) container: Option<&'a Name>,
    /// Its name, as the manifest has it.
    pub(crate) image: &'a str,
    pub(crate) policy: ImagePullPolicy,
}

// === impl Sources ===

impl Sources {
    fn load(config: &Config, images: &Path) -> anyhow::Result<Self> {
        let files = vec![DockerConfigFiles::of_node(images)];
        let keyring = match &config.images.credential_providers {
            Some(providers) => Keyring::with_providers(
                files,
                CredentialProviders::load(&providers.config, &providers.bin_dir)?,
            ),
            None => Keyring::new(files),
        };
        Ok(Self { registries: crate::registry::client(config)?, keyring })
    }
}

// === impl NodeImages ===

impl NodeImages {
    /// What the configuration says; where its images are, the node's credentials are looked for. Blocks on the disk.
    pub(crate) fn new(
        config: &Config,
        images: &Path,
        store: Arc<Store>,
        collecting: Collecting,
        configuration: Configuration,
        events: EventPort,
    ) -> anyhow::Result<Self> {
        let directory = access::directory(&config.root_dir);
        // Those that cannot be read are among them: who may use them stays known.
        let access = Access::open(&directory, config.images.verification.clone(), &store.known()?)
            .context("cannot read who may use which image")?;
        let Sources { registries, keyring } = Sources::load(config, images)?;
        let puller = Puller::new((*store).clone(), registries, config.images.pulls, Some(access.clone()));
        let (keyring, images_dir) = (Mutex::new(keyring), images.to_owned());
        let inner = Inner { store, puller, keyring, access, images_dir, collecting, configuration, events };
        Ok(Self(Arc::new(inner)))
    }

    /// Reads what another configuration names, without going by it yet. Blocks on the disk.
    pub(crate) fn sources(&self, config: &Config) -> anyhow::Result<Sources> {
        Sources::load(config, &self.0.images_dir)
    }

    /// Goes by another configuration from now on. What has begun goes on as it was.
    pub(crate) fn change(&self, config: &Config, sources: Sources) {
        self.0.puller.change(sources.registries, config.images.pulls);
        *self.0.keyring.lock().unwrap_or_else(PoisonError::into_inner) = sources.keyring;
        self.0.access.change(config.images.verification.clone());
        self.0.collecting.change(config.images.collection);
    }

    /// Makes an image available, as the pull policy says, and tells of it.
    ///
    /// # Errors
    /// In the kubelet's words.
    pub(crate) async fn ensure(&self, wanted: &Wanted<'_>) -> Result<ImageRef, Failure> {
        let this = &self.0;
        let name: ImageName = wanted.image.parse().map_err(|error| {
            let message = format!("Failed to apply default image tag {:?}: {error}", wanted.image);
            self.tell(wanted, EventType::Warning, "InspectFailed", message.clone());
            Failure::new("InvalidImageName", message)
        })?;
        let secrets = self.secrets(wanted.pod).await;
        if wanted.policy != ImagePullPolicy::Always
            && let Some(image) = self.present(wanted, &name).await?
        {
            if !this.access.must_pull(image.id, &name, &secrets.credentials(&name)).await {
                let message = format!(
                    "Container image \"{}\" already present on machine and can be accessed by the pod",
                    wanted.image
                );
                self.tell(wanted, EventType::Normal, "Pulled", message);
                this.collecting.used();
                return Ok(reference(&image, &name));
            }
            if wanted.policy == ImagePullPolicy::Never {
                let message = format!(
                    "Container image \"{}\" is present with pull policy of Never but does not have the proper auth to \
                     be accessed by the pod",
                    wanted.image
                );
                self.tell(wanted, EventType::Warning, "ErrImageNeverPull", message.clone());
                return Err(Failure::new("ErrImageNeverPull", message));
            }
        }
        if wanted.policy == ImagePullPolicy::Never {
            let message =
                format!("Container image \"{}\" is not present with pull policy of Never", wanted.image);
            self.tell(wanted, EventType::Warning, "ErrImageNeverPull", message.clone());
            return Err(Failure::new("ErrImageNeverPull", message));
        }
        self.pull(wanted, &name, &secrets).await
    }

    /// Makes the image of a pod's volume available, and notes that the pod has it: all containers of the pod get the one
    /// that the first of them has got.
    ///
    /// # Errors
    /// As [`NodeImages::ensure`].
    pub(crate) async fn ensure_volume(&self, volume: &Name, wanted: &Wanted<'_>) -> Result<(), Failure> {
        let (pod, name) = (wanted.pod.uid.clone(), volume.clone());
        let noted = self.of_store(move |store| store.volume_image(&pod, &name)).await?;
        if noted.is_some() {
            return Ok(());
        }
        let image = self.ensure(wanted).await.map_err(|failure| failure.of_image(wanted.image))?;
        let (pod, name) = (wanted.pod.uid.clone(), volume.clone());
        self.of_store(move |store| {
            let image = image.id.parse().map_err(|_| ImageError::NotFound(image.id.clone()))?;
            store.lease_volume(&image, &pod, &name)
        })
        .await?;
        Ok(())
    }

    async fn of_store<T: Send + 'static>(
        &self,
        work: impl FnOnce(&Store) -> Result<T, ImageError> + Send + 'static,
    ) -> Result<T, Failure> {
        let store = Arc::clone(&self.0.store);
        let problem = match tokio::task::spawn_blocking(move || work(&store)).await {
            Ok(Ok(done)) => return Ok(done),
            Ok(Err(error)) => error.to_string(),
            Err(error) => error.to_string(),
        };
        Err(Failure::new("ImageInspectError", problem))
    }

    /// Who may use which image.
    pub(super) fn access(&self) -> Access {
        self.0.access.clone()
    }

    /// The image of that name, if it is here.
    async fn present(&self, wanted: &Wanted<'_>, name: &ImageName) -> Result<Option<Image>, Failure> {
        let (store, wants) = (Arc::clone(&self.0.store), name.clone());
        // What lies in the directory of archives is about to be here.
        self.0.collecting.archives_are_imported().await;
        let found = tokio::task::spawn_blocking(move || store.resolve(&wants)).await;
        let problem = match found {
            Ok(Ok(found)) => return Ok(found),
            // What is damaged comes again, if it may.
            Ok(Err(error @ ImageError::Record { .. })) if wanted.policy != ImagePullPolicy::Never => {
                tracing::warn!(image = %name, %error, "a damaged image is pulled again");
                return Ok(None);
            }
            Ok(Err(error)) => error.to_string(),
            Err(error) => error.to_string(),
        };
        let message = format!("Failed to inspect image \"{}\": {problem}", wanted.image);
        self.tell(wanted, EventType::Warning, "InspectFailed", message.clone());
        Err(Failure::new("ImageInspectError", message))
    }

    async fn pull(
        &self,
        wanted: &Wanted<'_>,
        name: &ImageName,
        secrets: &PullSecrets,
    ) -> Result<ImageRef, Failure> {
        let image = wanted.image;
        self.tell(wanted, EventType::Normal, "Pulling", format!("Pulling image \"{image}\""));
        let keyring = self.0.keyring.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let lookup = keyring.lookup(name, secrets).await;
        let began = tokio::time::Instant::now();
        let mut pulled = self.wait_for_pull(wanted, name, lookup.found.clone()).await;
        if let Err((error, _)) = &pulled
            && error.is_disk_full()
            && self.0.collecting.make_room().await
        {
            pulled = self.wait_for_pull(wanted, name, lookup.found.clone()).await;
        }
        match pulled {
            Ok((pulled, waited)) => {
                let whole = began.elapsed();
                let message = format!(
                    "Successfully pulled image \"{image}\" in {} ({} including waiting). Image size: {} bytes.",
                    go_duration(whole.saturating_sub(waited)),
                    go_duration(whole),
                    pulled.image.size,
                );
                self.tell(wanted, EventType::Normal, "Pulled", message);
                self.0.collecting.pulled();
                Ok(reference(&pulled.image, name))
            }
            Err((error, _)) => {
                let problems = lookup.problems.iter().map(|problem| format!("; {problem}"));
                let said = format!("{error}{}", problems.collect::<String>());
                let message = format!("Failed to pull image \"{image}\": {said}");
                self.tell(wanted, EventType::Warning, "Failed", message);
                Err(match error.reason() {
                    reason @ "RegistryUnavailable" => Failure::new(
                        reason,
                        format!("image pull failed for {image} because the registry is unavailable: {said}"),
                    ),
                    reason => Failure::new(reason, said),
                })
            }
        }
    }

    /// Waits for a pull's end; beside it, how long it waited for its turn.
    async fn wait_for_pull(
        &self,
        wanted: &Wanted<'_>,
        name: &ImageName,
        shown: Vec<coracle_credentials::Found>,
    ) -> Result<(Pulled, Duration), (Arc<PullError>, Duration)> {
        let pull = self.0.puller.pull(name, shown);
        let mut progress = pull.progress();
        let mut ended = std::pin::pin!(pull.ended());
        let pulled = tokio::select! {
            pulled = &mut ended => pulled,
            () = sleep(PATIENCE) => {
                if progress.borrow().stage == Stage::Waiting {
                    let message = format!(
                        "Image \"{}\" waits for its turn to be pulled (maxParallelImagePulls, registryPullQPS)",
                        wanted.image
                    );
                    self.tell(wanted, EventType::Normal, "Pulling", message);
                }
                ended.await
            }
        };
        let waited = progress.borrow_and_update().waited;
        match pulled {
            Ok(pulled) => Ok((pulled, waited)),
            Err(error) => Err((error, waited)),
        }
    }

    /// What the pod shows.
    async fn secrets(&self, pod: &Pod) -> PullSecrets {
        if pod.spec.image_pull_secrets.is_empty() {
            return PullSecrets::default();
        }
        let configs = self.0.configuration.of(pod).await;
        let key = |name: &Name| ConfigKey {
            kind: ConfigKind::Secret,
            namespace: pod.key.namespace.clone(),
            name: name.clone(),
        };
        let names = pod.spec.image_pull_secrets.iter();
        let (found, missing): (Vec<_>, Vec<_>) =
            names.map(|name| (name, configs.objects.get(&key(name)))).partition(|(_, found)| found.is_some());
        if !missing.is_empty() {
            let missing: Vec<_> = missing.iter().map(|(name, _)| name.as_str()).collect();
            let message = format!(
                "Unable to retrieve some image pull secrets ({}); attempting to pull the image may not succeed.",
                missing.join(", ")
            );
            let event = PodEvent {
                kind: EventType::Warning,
                reason: "FailedToRetrieveImagePullSecret",
                message,
                container: None,
            };
            self.0.events.record(pod, event);
        }
        PullSecrets::new(found.into_iter().filter_map(|(_, found)| found.map(Arc::as_ref)))
    }

    fn tell(&self, wanted: &Wanted<'_>, kind: EventType, reason: &'static str, message: String) {
        let event = PodEvent { kind, reason, message, container: wanted.container };
        self.0.events.record(wanted.pod, event);
    }
}

/// The image as the worker has it. What a status shows as `imageID` is, as under containerd, the image by digest, by the
/// repository it was asked for where it is known there; without any the image's identifier.
fn reference(image: &Image, name: &ImageName) -> ImageRef {
    ImageRef { id: image.id.to_string(), shown: by_digest(image, Some(name)) }
}

/// What a status shows of an image that was asked for by this name.
pub(super) fn shown(image: &Image, name: &str) -> String {
    by_digest(image, name.parse().ok().as_ref())
}

/// An image's name with its digest, of the repository that was asked for where it is known by that.
fn by_digest(image: &Image, name: Option<&ImageName>) -> String {
    let same = |digest: &&ImageName| name.is_some_and(|name| digest.repository() == name.repository());
    let digest = image.repo_digests.iter().find(same).or(image.repo_digests.first());
    digest.map_or_else(|| image.id.to_string(), ToString::to_string)
}

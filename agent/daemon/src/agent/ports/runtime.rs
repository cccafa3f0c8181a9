//! The container runtime for pods: image, user and volumes put together for the sandbox.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io;
use std::net::IpAddr;
use std::os::fd::AsFd;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use coracle_controller::Configs;
use coracle_image::{
    Access, Digest, EnvEntry, Image, ImageError, Store, effective_process, resolve_user, verify_non_root,
};
use coracle_model::{
    Container, ContainerEdits, ContainerId, FileKeySelector, Pod, PodUid, Signal, VolumeMount, VolumeSource,
};
use coracle_pod::ports::{self, Failure, ImageRef, Observed, ObservedContainer, ObservedState, SandboxState};
use coracle_sandbox::{
    ContainerRequest, ContainerSnapshot, ContainerStage, ExecUser, RequestMount, Runtime, SandboxStage,
};
use coracle_volume::{PreparedMount, Volumes};

use super::configuration::{self, Sources};
use super::failure::{blocking, failure};
use super::naming::Naming;
use super::{Configuration, PodDirs};
use crate::agent::images::shown;
use crate::agent::network::{Attaching, PodNetwork};

/// The sandbox runtime, as pods need it.
pub(crate) struct RuntimePort {
    runtime: Runtime,
    network: PodNetwork,
    composer: Arc<Composer>,
}

/// Puts together what a container is made of.
struct Composer {
    store: Arc<Store>,
    volumes: Arc<Volumes>,
    dirs: PodDirs,
    configuration: Configuration,
    naming: Naming,
}

/// A container that is to be made.
struct Ordered {
    id: ContainerId,
    pod: Arc<Pod>,
    container: Container,
    attempt: u32,
    /// How many sandboxes the pod had before the one it is made in.
    sandbox: u32,
    /// The pod's own.
    addresses: Vec<IpAddr>,
    image: ImageRef,
    /// What its devices bring.
    edits: ContainerEdits,
}

/// The most a file of variables may have.
const MAX_ENV_FILE: u64 = 1 << 20;

// === impl RuntimePort ===

impl RuntimePort {
    pub(super) fn new(
        runtime: Runtime,
        network: PodNetwork,
        store: Arc<Store>,
        volumes: Arc<Volumes>,
        dirs: PodDirs,
        configuration: Configuration,
        naming: Naming,
    ) -> Self {
        let composer = Composer { store, volumes, dirs, configuration, naming };
        Self { runtime, network, composer: Arc::new(composer) }
    }
}

impl RuntimePort {
    /// Removes the writable layers, and leases, that a pod has of containers nobody knows any more, and what
    /// belongs to a sandbox that is gone: their
    /// creation or removal was cut off with an agent. To be called before the pod has a worker.
    pub(crate) async fn clear_layers(&self, pod: &PodUid) -> Result<(), Failure> {
        let snapshot = self.runtime.observe(pod);
        let gone = snapshot.sandbox == SandboxStage::Absent;
        let known = |id: &ContainerId| snapshot.containers.iter().any(|container| container.id == *id);
        let mut left = self.composer.layers(pod)?;
        left.retain(|id| !known(id));
        // As a rule there is nothing to be done, and nobody to be waited for.
        if !gone && left.is_empty() {
            return Ok(());
        }
        let (composer, uid) = (Arc::clone(&self.composer), pod.clone());
        blocking(move || {
            if gone {
                composer.naming.remove(&uid)?;
            }
            left.into_iter().try_for_each(|id| composer.remove_layer(&uid, id))
        })
        .await
    }
}

impl ports::Runtime for RuntimePort {
    async fn ensure_sandbox(&self, pod: &Arc<Pod>) -> Result<(), Failure> {
        const REASON: &str = "FailedCreatePodSandBox";
        if pod.spec.host.network {
            self.network.is_hosts(&pod.uid);
            return self.runtime.ensure_sandbox(pod).await.map_err(failure(REASON));
        }
        let mut turn = self.network.turn(&pod.uid).await;
        if self.runtime.observe(&pod.uid).sandbox != SandboxStage::Ready {
            // What one before it had: nothing is made of a pod that has two.
            turn = turn.del(&pod.uid, false).await?;
        }
        self.runtime.ensure_sandbox(pod).await.map_err(failure(REASON))?;
        let attempt = self.runtime.observe(&pod.uid).sandbox_attempt;
        if self.network.attached(&pod.uid, attempt).is_some() {
            return Ok(());
        }
        let netns = self.runtime.network_namespace(&pod.uid).map_err(failure(REASON))?;
        let dns = self.composer.naming.dns(pod)?;
        turn.add(Attaching { pod: Arc::clone(pod), attempt, netns, dns }).await.map(drop)
    }

    async fn create_container(
        &self,
        pod: &Arc<Pod>,
        container: &Container,
        attempt: u32,
        image: &ImageRef,
        edits: ContainerEdits,
    ) -> Result<ContainerId, Failure> {
        self.runtime.expect_start();
        let id = ContainerId::random();
        let (composer, uid) = (Arc::clone(&self.composer), pod.uid.clone());
        let configs = composer.configuration.of(pod).await;
        let observed = self.observe(&pod.uid);
        let ordered = Ordered {
            id,
            pod: Arc::clone(pod),
            container: container.clone(),
            attempt,
            sandbox: observed.sandbox_attempt,
            addresses: observed.addresses,
            image: image.clone(),
            edits,
        };
        let composed = blocking({
            let composer = Arc::clone(&composer);
            move || composer.compose(ordered, &configs)
        })
        .await;
        let created = match composed {
            Ok(request) => {
                self.runtime.create_container(request).await.map_err(failure("CreateContainerError"))
            }
            Err(error) => Err(error),
        };
        if created.is_err() {
            // What cannot be removed now goes with the pod.
            let _ = blocking(move || composer.remove_layer(&uid, id)).await;
        }
        created
    }

    async fn start_container(&self, pod: &PodUid, container: ContainerId) -> Result<(), Failure> {
        self.runtime.start_container(pod, container).await.map_err(failure("RunContainerError"))
    }

    async fn stop_container(
        &self,
        pod: &PodUid,
        container: ContainerId,
        grace: Duration,
    ) -> Result<(), Failure> {
        self.runtime.stop_container(pod, container, grace).await.map_err(failure("FailedKillContainer"))
    }

    async fn remove_container(&self, pod: &PodUid, container: ContainerId) -> Result<(), Failure> {
        let removed = self.runtime.remove_container(pod, container).await;
        removed.map_err(failure("FailedRemoveContainer"))?;
        let (composer, uid) = (Arc::clone(&self.composer), pod.clone());
        blocking(move || composer.remove_layer(&uid, container)).await
    }

    async fn remove_sandbox(&self, pod: &PodUid) -> Result<(), Failure> {
        // First of all, while its namespace is there. A failure keeps that.
        self.network.interrupt(pod).await;
        let turn = self.network.turn(pod).await.del(pod, true).await?;
        self.runtime.remove_sandbox(pod).await.map_err(failure("FailedKillPod"))?;
        drop(turn);
        self.network.see_to_the_end_of(pod);
        let (composer, uid) = (Arc::clone(&self.composer), pod.clone());
        blocking(move || {
            composer.naming.remove(&uid)?;
            composer.remove_layers(&uid)
        })
        .await?;
        self.network.forget(pod);
        Ok(())
    }

    fn observe(&self, pod: &PodUid) -> Observed {
        let snapshot = self.runtime.observe(pod);
        let attached = self.network.attached(pod, snapshot.sandbox_attempt);
        // A container was made once the sandbox was attached: whatever has become of the record of that, it runs.
        let is_used = snapshot.containers.iter().any(|one| one.sandbox_attempt == snapshot.sandbox_attempt);
        let sandbox = match snapshot.sandbox {
            SandboxStage::Ready if attached.is_none() && !is_used => SandboxState::Absent,
            SandboxStage::Absent => SandboxState::Absent,
            SandboxStage::Ready => SandboxState::Ready,
            SandboxStage::Dead => SandboxState::Dead,
        };
        Observed {
            addresses: attached.filter(|_| sandbox == SandboxState::Ready).unwrap_or_default(),
            sandbox,
            sandbox_attempt: snapshot.sandbox_attempt,
            containers: snapshot.containers.into_iter().map(observed).collect(),
        }
    }
}

fn observed(container: ContainerSnapshot) -> ObservedContainer {
    let state = match container.stage {
        ContainerStage::Created => ObservedState::Created,
        ContainerStage::Running { started_at } => ObservedState::Running { started_at },
        ContainerStage::Exited { exit_code, signal, reason, message, started_at, finished_at } => {
            ObservedState::Exited { exit_code, signal, reason, message, started_at, finished_at }
        }
    };
    ObservedContainer {
        id: container.id,
        name: container.name,
        attempt: container.attempt,
        sandbox_attempt: Some(container.sandbox_attempt),
        image_id: container.image_id,
        volume_images: container.volume_images,
        created_at: container.created_at,
        stop_signal: Signal::from_number(container.stop_signal),
        state,
    }
}

// === impl Composer ===

impl Composer {
    fn compose(&self, ordered: Ordered, configs: &Configs) -> Result<ContainerRequest, Failure> {
        let Ordered { id, pod, container, attempt, sandbox, addresses, image, mut edits } = ordered;
        let (pod, shown, image) = (&pod, image.shown.clone(), self.image(&image)?);
        let config = &image.document.config;
        verify_non_root(pod, &container, &config.user).map_err(failure("CreateContainerConfigError"))?;
        let default = |(name, value)| EnvEntry { name, value, expand: false };
        let mut environment: Vec<_> = edits.default_env.drain(..).map(default).collect();
        environment.extend(self.environment(pod, &container, configs, &addresses)?);
        let process = effective_process(&container, &environment, config, &self.naming.hostname(pod)?)
            .map_err(created)?;
        let stop_signal = match (container.lifecycle.stop_signal, process.stop_signal.as_deref()) {
            (Some(own), _) => own,
            (None, None) => Signal::TERM,
            (None, Some(text)) => text.parse().map_err(failure("CreateContainerError"))?,
        };
        let dir = self.dirs.container(&pod.uid, id);
        // Writable also where the specification wants it read-only: init makes it so,
        // after it has made the mount points in it.
        let rootfs = self.store.snapshot(&image, id, &dir, Access::Writable).map_err(created)?;
        let user = resolve_user(rootfs.as_fd(), pod, &container, &config.user).map_err(created)?;
        let mut env = process.env;
        if !env.iter().any(|(name, _)| name == "HOME") {
            env.push(("HOME".to_owned(), user.home));
        }
        let mut mounts = self.naming.mounts(pod, &container, sandbox, &addresses)?;
        let mut volume_images = BTreeMap::new();
        for mount in &container.volume_mounts {
            let prepared = self.volume(pod, mount, &mut volume_images)?;
            mounts.push(RequestMount { destination: mount.mount_path.clone(), mount: prepared.fd });
        }
        Ok(ContainerRequest {
            id,
            pod: Arc::clone(pod),
            attempt,
            image_id: shown,
            volume_images,
            args: process.args,
            env,
            cwd: process.cwd,
            user: ExecUser { uid: user.uid, gid: user.gid, additional_gids: user.additional_gids },
            stop_signal: stop_signal.number(),
            rootfs,
            state_dir: dir,
            mounts,
            edits,
            container,
        })
    }

    /// A container's mount of a volume; that of an image is noted in `images`.
    fn volume(
        &self,
        pod: &Pod,
        mount: &VolumeMount,
        images: &mut BTreeMap<String, String>,
    ) -> Result<PreparedMount, Failure> {
        let volume = pod.spec.volumes.iter().find(|volume| volume.name == mount.name);
        let Some((volume, VolumeSource::Image { reference, .. })) =
            volume.map(|volume| (volume, &volume.source))
        else {
            return self.volumes.mount(pod, mount).map_err(failure("CreateContainerConfigError"));
        };
        let noted = self.store.volume_image(&pod.uid, &volume.name).map_err(created)?;
        let image = noted.map(|image| self.store.get(&image)).transpose().map_err(created)?.flatten();
        let Some(image) = image else {
            let message =
                format!("the image of the volume {:?} is no longer in the store", volume.name.as_str());
            return Err(Failure::new("CreateContainerError", message));
        };
        let root = self.store.mount_image(&image).map_err(created)?;
        images.insert(volume.name.to_string(), shown(&image, reference));
        self.volumes.mount_image(mount, root).map_err(failure("CreateContainerError"))
    }

    /// The container's variables, with the values their sources give now.
    fn environment(
        &self,
        pod: &Pod,
        container: &Container,
        configs: &Configs,
        addresses: &[IpAddr],
    ) -> Result<Vec<EnvEntry>, Failure> {
        let read_file = |selector: &FileKeySelector| {
            let read = self.volumes.read_file(pod, &selector.volume, Path::new(&selector.path), MAX_ENV_FILE);
            read.map_err(|error| error.to_string())
        };
        let sources = Sources { pod, configs, node: &self.configuration.node.now(), addresses };
        configuration::resolve(container, sources, &read_file)
    }

    fn image(&self, image: &ImageRef) -> Result<Image, Failure> {
        let digest: Digest = image.id.parse().map_err(failure("CreateContainerError"))?;
        let found = self.store.get(&digest).map_err(created)?;
        found.ok_or_else(|| {
            Failure::new("CreateContainerError", format!("image {} is no longer in the store", image.id))
        })
    }

    fn remove_layer(&self, uid: &PodUid, id: ContainerId) -> Result<(), Failure> {
        let dir = self.dirs.container(uid, id);
        self.store.remove_snapshot(id, &dir).map_err(failure("FailedRemoveContainer"))?;
        // The termination message's file, or whatever a pod that may write to the node put in its place.
        let removed = match File::open(self.dirs.containers(uid)) {
            Ok(containers) => coracle_linux::remove_tree(containers.as_fd(), id.to_string().as_ref()),
            Err(error) => Err(error),
        };
        gone(removed, &dir)
    }

    fn remove_layers(&self, uid: &PodUid) -> Result<(), Failure> {
        for id in self.layers(uid)? {
            self.remove_layer(uid, id)?;
        }
        let dir = self.dirs.containers(uid);
        gone(fs::remove_dir(&dir), &dir)
    }

    /// The containers of a pod that have a writable layer.
    fn layers(&self, uid: &PodUid) -> Result<Vec<ContainerId>, Failure> {
        match fs::read_dir(self.dirs.containers(uid)) {
            Ok(entries) => {
                Ok(entries.flatten().filter_map(|entry| entry.file_name().to_str()?.parse().ok()).collect())
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Vec::new()),
            Err(error) => Err(failure("FailedKillPod")(error)),
        }
    }
}

fn created(error: ImageError) -> Failure {
    Failure::new("CreateContainerError", error.to_string())
}

/// What was not there is removed.
fn gone(result: io::Result<()>, path: &Path) -> Result<(), Failure> {
    match result {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            Err(Failure::new("FailedRemoveContainer", format!("cannot remove {}: {error}", path.display())))
        }
        _ => Ok(()),
    }
}

//! A pod as the node runs it.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::{
    Container, EphemeralContainer, ExtendedResource, Name, PodDns, PodSecurity, PodUid, Quantity,
    ResourceList, RestartPolicy, Volume, VolumeSource,
};

/// A pod: what is to run, fully defaulted and validated.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Pod {
    /// Unique over time. Two versions of one manifest are two pods with two UIDs.
    pub uid: PodUid,
    /// Namespace and name: at most one pod of a key runs at a time.
    pub key: PodKey,
    /// `metadata.labels`.
    pub labels: BTreeMap<String, String>,
    /// `metadata.annotations`, those the controller adds among them.
    pub annotations: BTreeMap<String, String>,
    /// What the pod is made of.
    pub spec: PodSpec,
    /// The Kubernetes object with its defaults, as JSON without `status`: what users are shown. It
    /// carries the fields that only a scheduler or control plane acts on. Never interpreted on the node.
    pub object: String,
}

/// Namespace and name of a pod.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct PodKey {
    /// `metadata.namespace`.
    pub namespace: Name,
    /// `metadata.name`.
    pub name: Name,
}

/// `pod.spec`, as far as the node acts on it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct PodSpec {
    /// Run one after another, each to completion, before the others start.
    pub init_containers: Vec<Container>,
    /// Run side by side. Never empty.
    pub containers: Vec<Container>,
    /// Added while the pod is there; never removed.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub ephemeral_containers: Vec<EphemeralContainer>,
    /// Names are unique within the pod.
    pub volumes: Vec<Volume>,
    /// When a container that ended is started again.
    pub restart_policy: RestartPolicy,
    /// Time between SIGTERM and SIGKILL, in whole seconds.
    pub termination_grace_period: Duration,
    /// The namespaces the pod shares with the host.
    pub host: HostNamespaces,
    /// The containers see each other's processes.
    pub share_process_namespace: bool,
    /// `spec.hostname`; the pod's name when absent.
    pub hostname: Option<Name>,
    /// How else the pod is named, and how it resolves names.
    #[serde(default)]
    pub dns: PodDns,
    /// `spec.securityContext`.
    pub security: PodSecurity,
    /// `spec.activeDeadlineSeconds`: so long after its start the pod is ended and has failed. At least 1 s.
    pub active_deadline: Option<Duration>,
    /// `spec.readinessGates`: types of conditions that have to be true for the pod to be ready.
    pub readiness_gates: Vec<String>,
    /// `spec.serviceAccountName`, which variables may tell; empty when not set.
    pub service_account: String,
    /// `spec.imagePullSecrets`: Secrets of the pod's namespace that its images are pulled with.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub image_pull_secrets: Vec<Name>,
    /// `spec.priority`: of pods that end with the node, those with less go first.
    pub priority: i32,
}

/// `hostNetwork`, `hostPID` and `hostIPC`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct HostNamespaces {
    /// The pod uses the host's network (and, as in other runtimes, its host name).
    pub network: bool,
    /// The containers see the host's processes.
    pub pid: bool,
    /// The pod uses the host's System V IPC and POSIX message queues.
    pub ipc: bool,
}

// === impl Pod ===

impl Pod {
    /// The pod's host name: `spec.hostname`, else its name, cut to the 63 characters a Linux host
    /// name's label may have, as the kubelet does.
    pub fn hostname(&self) -> &str {
        let name = self.spec.hostname.as_ref().unwrap_or(&self.key.name).as_str();
        name.get(..63).unwrap_or(name).trim_end_matches(['-', '.'])
    }

    /// Every container with its place: init containers first, ephemeral ones last, in order.
    pub fn all_containers(&self) -> impl Iterator<Item = &Container> {
        let ephemeral = self.spec.ephemeral_containers.iter().map(|one| &one.container);
        self.spec.init_containers.iter().chain(&self.spec.containers).chain(ephemeral)
    }

    /// The container of that name, init and ephemeral containers included.
    pub fn container(&self, name: &str) -> Option<&Container> {
        self.all_containers().find(|container| container.name == name)
    }

    /// The volumes of images that a container has mounted.
    pub fn image_volumes<'a>(&'a self, container: &'a Container) -> impl Iterator<Item = &'a Volume> {
        let is_mounted =
            |volume: &&Volume| container.volume_mounts.iter().any(|mount| mount.name == volume.name);
        let is_image = |volume: &&Volume| matches!(volume.source, VolumeSource::Image { .. });
        self.spec.volumes.iter().filter(is_image).filter(is_mounted)
    }

    /// The container whose pid namespace the one of that name joins: an ephemeral one with a target, unless all
    /// containers of the pod see each other's processes anyway.
    pub fn target_of(&self, name: &str) -> Option<&Name> {
        if self.spec.host.pid || self.spec.share_process_namespace {
            return None;
        }
        let one = self.spec.ephemeral_containers.iter().find(|one| one.container.name == *name)?;
        one.target.as_ref()
    }
}

// === impl PodSpec ===

impl PodSpec {
    /// A pod of these containers, with Kubernetes' defaults.
    pub fn new(containers: Vec<Container>) -> Self {
        Self {
            init_containers: Vec::new(),
            containers,
            ephemeral_containers: Vec::new(),
            volumes: Vec::new(),
            restart_policy: RestartPolicy::default(),
            termination_grace_period: Duration::from_secs(30),
            host: HostNamespaces::default(),
            share_process_namespace: false,
            hostname: None,
            dns: PodDns::default(),
            security: PodSecurity::default(),
            active_deadline: None,
            readiness_gates: Vec::new(),
            service_account: String::new(),
            image_pull_secrets: Vec::new(),
            priority: 0,
        }
    }

    /// Whether a container asks for devices of this resource.
    pub fn asks_for(&self, resource: &ExtendedResource) -> bool {
        let mut all = self.init_containers.iter().chain(&self.containers);
        all.any(|container| container.resources.extended.contains_key(resource))
    }

    /// How much of something the pod as a whole takes: its app containers and sidecars together or, where that is more,
    /// what one init container needs beside the sidecars that were started before it. What init containers had is used
    /// again.
    pub fn effective(&self, amount: impl Fn(&Container) -> u64) -> u64 {
        let (mut sidecars, mut initializing) = (0_u64, 0_u64);
        for init in &self.init_containers {
            initializing = initializing.max(sidecars.saturating_add(amount(init)));
            if init.is_sidecar() {
                sidecars = sidecars.saturating_add(amount(init));
            }
        }
        let apps = self.containers.iter().map(amount);
        apps.fold(sidecars, u64::saturating_add).max(initializing)
    }

    /// How much of something the containers may use together, from what their limits say: [`PodSpec::effective`]. `None`
    /// where one of them has no limit, which would else be limited by its neighbours'.
    pub fn limit(&self, amount: impl Fn(&ResourceList) -> u64) -> Option<u64> {
        let of = |container: &Container| amount(&container.resources.limits);
        let all_have = self.init_containers.iter().chain(&self.containers).all(|container| of(container) > 0);
        all_have.then(|| self.effective(of)).filter(|total| *total > 0)
    }

    /// The most memory the containers may use together, in bytes: [`PodSpec::limit`].
    pub fn memory_limit(&self) -> Option<u64> {
        self.limit(|list| list.memory.map_or(0, Quantity::units))
    }

    /// How many devices of each extended resource the pod as a whole takes: [`PodSpec::effective`].
    pub fn extended_resources(&self) -> BTreeMap<&ExtendedResource, u64> {
        let asked = |container: &Container, resource| {
            container.resources.extended.get(resource).copied().unwrap_or_default()
        };
        let all = self.init_containers.iter().chain(&self.containers);
        let resources: BTreeSet<_> = all.flat_map(|container| container.resources.extended.keys()).collect();
        let total = |resource| self.effective(|container| asked(container, resource));
        resources.into_iter().map(|resource| (resource, total(resource))).collect()
    }
}

// === impl PodKey ===

impl fmt::Display for PodKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.namespace, self.name)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_init_containers_had_is_used_again_and_what_sidecars_have_is_kept() {
        let gpu = ExtendedResource::new("example.com/gpu").unwrap();
        let container = |count: u64, sidecar: bool| {
            let mut container = Container::new(Name::label("c").unwrap(), "i");
            container.restart_policy = sidecar.then_some(RestartPolicy::Always);
            container.resources.extended.extend((count > 0).then(|| (gpu.clone(), count)));
            container
        };
        for (inits, apps, expected) in [
            (vec![], vec![1, 2], Some(3)),
            (vec![(2, false)], vec![1], Some(2)),
            (vec![(2, false), (1, false)], vec![1, 2], Some(3)),
            (vec![(1, true), (2, false)], vec![1], Some(3)),
            (vec![(2, false), (1, true)], vec![1], Some(2)),
            (vec![(1, true)], vec![1], Some(2)),
            (vec![(1, true)], vec![0], Some(1)),
            (vec![(0, true)], vec![0], None),
            (vec![], vec![u64::MAX, 1], Some(u64::MAX)),
        ] {
            let mut spec = PodSpec::new(apps.iter().map(|count| container(*count, false)).collect());
            spec.init_containers = inits.iter().map(|(count, sidecar)| container(*count, *sidecar)).collect();
            assert_eq!(spec.extended_resources().get(&gpu).copied(), expected, "{inits:?} {apps:?}");
        }
    }
}

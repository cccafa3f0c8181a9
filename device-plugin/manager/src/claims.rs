//! Who has which device.

use std::collections::{BTreeMap, BTreeSet};

use coracle_model::{ExtendedResource, Name, PodDevices, PodUid};
use serde::{Deserialize, Serialize};

use crate::answer::Answer;

/// What a container has of a resource.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Claim {
    pub(crate) devices: BTreeSet<String>,
    /// What the plugin said to do; none where that is not known any more.
    pub(crate) answer: Option<Answer>,
    /// Whether the plugin wants to be told before each start of the container.
    pub(crate) pre_start: bool,
}

/// By container and resource.
pub(crate) type Containers = BTreeMap<Name, BTreeMap<ExtendedResource, Claim>>;

/// What a pod has, or is being given.
#[derive(Clone, Debug)]
struct PodClaims {
    containers: Containers,
    /// Tells one attempt from another; none: it is settled, and on record.
    attempt: Option<u64>,
}

/// Who has which device.
#[derive(Debug, Default)]
pub(crate) struct Claims {
    pods: BTreeMap<PodUid, PodClaims>,
    /// How many pods have a device: more than one, only if a record said so.
    taken: BTreeMap<ExtendedResource, BTreeMap<String, BTreeSet<PodUid>>>,
    attempts: u64,
}

// === impl Claims ===

impl Claims {
    /// What a pod has. None, if it has nothing or is being given something.
    pub(crate) fn of(&self, pod: &PodUid) -> Option<&Containers> {
        self.pods.get(pod).filter(|pod| pod.attempt.is_none()).map(|pod| &pod.containers)
    }

    /// Whether the pod is being given something.
    pub(crate) fn is_under_way(&self, pod: &PodUid) -> bool {
        self.pods.get(pod).is_some_and(|pod| pod.attempt.is_some())
    }

    /// What all have.
    pub(crate) fn settled(&self) -> BTreeMap<PodUid, Containers> {
        let settled = self.pods.iter().filter(|(_, pod)| pod.attempt.is_none());
        settled.map(|(uid, pod)| (uid.clone(), pod.containers.clone())).collect()
    }

    pub(crate) fn is_taken(&self, resource: &ExtendedResource, device: &str) -> bool {
        self.taken.get(resource).is_some_and(|devices| devices.contains_key(device))
    }

    /// How many devices of a resource pods have.
    pub(crate) fn used(&self, resource: &ExtendedResource) -> u64 {
        self.taken.get(resource).map_or(0, BTreeMap::len) as u64
    }

    /// The pods that have devices of a resource.
    pub(crate) fn holders(&self, resource: &ExtendedResource) -> BTreeSet<PodUid> {
        let devices = self.taken.get(resource).into_iter().flat_map(BTreeMap::values);
        devices.flatten().cloned().collect()
    }

    /// Takes devices for a pod that has none. Answers the attempt, by which it is settled or undone.
    pub(crate) fn begin(&mut self, pod: &PodUid, containers: Containers) -> u64 {
        self.attempts += 1;
        self.enter(pod, containers, Some(self.attempts));
        self.attempts
    }

    /// What `begin` took is the pod's, with what plugins said to it. False, if it was taken back meanwhile.
    pub(crate) fn settle(&mut self, pod: &PodUid, attempt: u64, containers: Containers) -> bool {
        match self.pods.get_mut(pod) {
            Some(claims) if claims.attempt == Some(attempt) => {
                claims.attempt = None;
                claims.containers = containers;
                true
            }
            _ => false,
        }
    }

    /// Undoes what `begin` did, unless that is not there any more, or settled. Answers which resources that was of.
    pub(crate) fn undo(&mut self, pod: &PodUid, attempt: u64) -> Option<BTreeSet<ExtendedResource>> {
        let is_it = self.pods.get(pod).is_some_and(|claims| claims.attempt == Some(attempt));
        if is_it { self.remove(pod) } else { None }
    }

    /// Puts down what a pod has had before.
    pub(crate) fn restore(&mut self, pod: &PodUid, containers: Containers) {
        self.remove(pod);
        self.enter(pod, containers, None);
    }

    /// Takes back what a pod has, or is being given. Answers which resources that was of.
    pub(crate) fn remove(&mut self, pod: &PodUid) -> Option<BTreeSet<ExtendedResource>> {
        let claims = self.pods.remove(pod)?;
        let mut resources = BTreeSet::new();
        for (resource, claim) in claims.containers.into_values().flatten() {
            if let Some(taken) = self.taken.get_mut(&resource) {
                for device in &claim.devices {
                    if let Some(holders) = taken.get_mut(device) {
                        holders.remove(pod);
                        if holders.is_empty() {
                            taken.remove(device);
                        }
                    }
                }
                if taken.is_empty() {
                    self.taken.remove(&resource);
                }
            }
            resources.insert(resource);
        }
        Some(resources)
    }

    /// Puts down what the plugin says to devices that a pod has, if it still has them.
    pub(crate) fn answered(
        &mut self,
        pod: &PodUid,
        container: &Name,
        resource: &ExtendedResource,
        answer: Answer,
        pre_start: bool,
    ) {
        let claims = self.pods.get_mut(pod).and_then(|pod| pod.containers.get_mut(container));
        if let Some(claim) = claims.and_then(|container| container.get_mut(resource)) {
            claim.answer = Some(answer);
            claim.pre_start = pre_start;
        }
    }

    fn enter(&mut self, pod: &PodUid, containers: Containers, attempt: Option<u64>) {
        for (resource, claim) in containers.values().flatten() {
            let taken = self.taken.entry(resource.clone()).or_default();
            for device in &claim.devices {
                taken.entry(device.clone()).or_default().insert(pod.clone());
            }
        }
        self.pods.insert(pod.clone(), PodClaims { containers, attempt });
    }
}

/// The devices alone.
pub(crate) fn devices(containers: &Containers) -> PodDevices {
    let of = |claims: &BTreeMap<ExtendedResource, Claim>| {
        claims.iter().map(|(resource, claim)| (resource.clone(), claim.devices.clone())).collect()
    };
    containers.iter().map(|(name, claims)| (name.clone(), of(claims))).collect()
}

/// Claims of devices of which nothing else is known.
pub(crate) fn bare(devices: &PodDevices) -> Containers {
    let of = |resources: &BTreeMap<ExtendedResource, BTreeSet<String>>| {
        let claim = |devices: &BTreeSet<String>| Claim { devices: devices.clone(), ..Claim::default() };
        resources.iter().map(|(resource, devices)| (resource.clone(), claim(devices))).collect()
    };
    devices.iter().map(|(name, resources)| (name.clone(), of(resources))).collect()
}

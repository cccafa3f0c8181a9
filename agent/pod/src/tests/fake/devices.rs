//! Devices of plugins that are there when the test says so.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use coracle_model::{
    Container, ContainerEdits, DeviceHealth, ExtendedResource, Name, Pod, PodDevices, PodUid,
};

use super::{Fake, State, Verb};
use crate::ports::*;

/// What the node has of devices.
#[derive(Default)]
pub(crate) struct Inventory {
    /// What plugins have: each device, and whether it is healthy. A resource that is not here has no plugin.
    pub(crate) plugins: BTreeMap<ExtendedResource, BTreeMap<String, bool>>,
    /// Who was given what.
    pub(crate) given: BTreeMap<PodUid, PodDevices>,
}

pub(crate) fn gpu() -> ExtendedResource {
    ExtendedResource::new("example.com/gpu").unwrap()
}

impl Inventory {
    /// A plugin with so many healthy devices.
    pub(crate) fn plug(&mut self, count: usize) {
        self.plugins.insert(gpu(), (0..count).map(|number| (format!("gpu{number}"), true)).collect());
    }

    /// The devices of a resource that pods have, each as often as it is had.
    fn had<'a>(&'a self, resource: &'a ExtendedResource) -> impl Iterator<Item = (&'a PodUid, &'a String)> {
        self.given.iter().flat_map(move |(uid, pod)| {
            // What an init container had is used again.
            let ids: BTreeSet<_> = pod.values().filter_map(|of| of.get(resource)).flatten().collect();
            ids.into_iter().map(move |id| (uid, id))
        })
    }

    /// As the device manager does it: what init containers had is used again, what sidecars have is not.
    fn choose(&self, pod: &Pod) -> Allocation {
        let (mut chosen, mut kept) = (PodDevices::new(), BTreeSet::new());
        for container in pod.spec.init_containers.iter().chain(&pod.spec.containers) {
            for (resource, count) in &container.resources.extended {
                let Some(all) = self.plugins.get(resource) else {
                    return Allocation::Later(format!("no device plugin serves {resource}"));
                };
                let had: BTreeSet<_> = self.had(resource).map(|(_, id)| id).collect();
                let free = |id: &&String| !had.contains(id) && !kept.contains(*id);
                let healthy = all.iter().filter(|(_, healthy)| **healthy).map(|(id, _)| id);
                let ids: BTreeSet<_> = healthy.filter(free).take(*count as usize).cloned().collect();
                if (ids.len() as u64) < *count {
                    let message = format!("{} of {count} devices of {resource} are free", ids.len());
                    let refusal = Refusal { reason: format!("OutOf{resource}").into(), message };
                    let holders = self.had(resource).map(|(uid, _)| uid.clone()).collect();
                    return Allocation::Lacking { resource: resource.clone(), holders, refusal };
                }
                let is_init = pod.spec.init_containers.iter().any(|init| init.name == container.name);
                if !is_init || container.is_sidecar() {
                    kept.extend(ids.iter().cloned());
                }
                chosen.entry(container.name.clone()).or_default().insert(resource.clone(), ids);
            }
        }
        Allocation::Given(chosen)
    }
}

/// What a container's devices bring.
fn edits(state: &State, pod: &PodUid, container: &Name) -> ContainerEdits {
    let given = state.inventory.given.get(pod).and_then(|pod| pod.get(container)).into_iter().flatten();
    let env = given.map(|(resource, ids)| (resource.to_string(), format!("{ids:?}"))).collect();
    ContainerEdits { env, ..ContainerEdits::default() }
}

impl State {
    /// That a container is created with what was given to it, and only with that.
    pub(super) fn check_edits(&mut self, pod: &Pod, container: &Container, told: &ContainerEdits) {
        let asks = !container.resources.extended.is_empty();
        let expected = edits(self, &pod.uid, &container.name);
        let count = |(resource, count): (&ExtendedResource, &u64)| {
            let given = self.inventory.given.get(&pod.uid);
            let ids = given.and_then(|pod| pod.get(&container.name)?.get(resource));
            ids.is_some_and(|ids| ids.len() as u64 == *count)
        };
        let whole = container.resources.extended.iter().all(count);
        let on_record = self.records.get(&pod.uid).and_then(|record| record.devices.clone());
        let known = !asks || on_record.as_ref() == self.inventory.given.get(&pod.uid);
        let name = &container.name;
        self.check(*told == expected, || format!("{name} was created with {told:?} instead of {expected:?}"));
        self.check(whole, || format!("{name} was created without all its devices"));
        self.check(known, || format!("{name} was created while its devices were not on record"));
    }

    /// That no device is two pods', nor two containers' of one pod that run side by side.
    fn check_shares(&mut self) {
        let given = &self.inventory.given;
        let resources: BTreeSet<_> =
            given.values().flat_map(|pod| pod.values()).flat_map(|of| of.keys()).collect();
        let twice = resources.into_iter().find(|resource| {
            let mut seen = BTreeSet::new();
            self.inventory.had(resource).any(|(_, id)| !seen.insert(id))
        });
        let twice = twice.cloned();
        self.check(twice.is_none(), || format!("a device of {twice:?} was given twice"));
    }
}

impl Devices for Fake {
    async fn allocate(&self, pod: &Arc<Pod>) -> Result<Allocation, Failure> {
        self.call(Verb::Allocate, &pod.uid).await?;
        self.with(|state| {
            state.check_alive(&pod.uid, Verb::Allocate);
            let again = state.records.get(&pod.uid).is_some_and(|record| record.devices.is_some());
            state.check(!again, || format!("{} asks again for devices that it has on record", pod.uid));
            if let Some(given) = state.inventory.given.get(&pod.uid) {
                return Ok(Allocation::Given(given.clone()));
            }
            let allocation = state.inventory.choose(pod);
            if let Allocation::Given(devices) = &allocation {
                state.inventory.given.insert(pod.uid.clone(), devices.clone());
                state.check_shares();
            }
            Ok(allocation)
        })
    }

    async fn prepare(&self, pod: &Arc<Pod>, container: &Container) -> Result<ContainerEdits, Failure> {
        self.call(Verb::Prepare, &container.name).await?;
        Ok(self.with(|state| edits(state, &pod.uid, &container.name)))
    }

    async fn release_devices(&self, pod: &PodUid) -> Result<(), Failure> {
        self.call(Verb::ReleaseDevices, pod).await?;
        self.with(|state| {
            state.inventory.given.remove(pod);
            let quiet = state.host(pod).observed == Observed::default();
            state.check(quiet, || format!("devices of {pod} were released while it had a sandbox"));
        });
        Ok(())
    }

    fn health(&self, resource: &ExtendedResource, device: &str) -> DeviceHealth {
        self.with(|state| match state.inventory.plugins.get(resource).map(|all| all.get(device)) {
            Some(Some(true)) => DeviceHealth::Healthy,
            Some(_) => DeviceHealth::Unhealthy,
            None => DeviceHealth::Unknown,
        })
    }
}

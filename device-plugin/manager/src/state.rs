//! What a manager knows: one lock over all of it, held for as long as something is looked up or put down.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use coracle_model::{DeviceHealth, ExtendedResource, PodSpec};
use tokio::task::AbortHandle;

use crate::changes::Listeners;
use crate::choose::{Choice, Offer, Preferences, Topology, choose};
use crate::claims::Claims;
use crate::endpoint::Endpoint;
use crate::error::AllocateError;
use crate::inventory::{Amount, Devices, amount};
use crate::options::Deadlines;

/// How many resources a node may have. Whoever registers is trusted to run on it, not to be right.
const MOST_RESOURCES: usize = 256;

/// What the manager and its tasks share.
pub(crate) struct Shared {
    pub(crate) state: Mutex<State>,
    pub(crate) topology: Topology,
    pub(crate) deadlines: Deadlines,
    pub(crate) plugin_dir: PathBuf,
}

pub(crate) struct State {
    resources: BTreeMap<ExtendedResource, Resource>,
    pub(crate) claims: Claims,
    pub(crate) listeners: Listeners,
    /// Counts changes of what belongs into the checkpoint.
    pub(crate) version: u64,
    endpoints: u64,
}

/// What is known of a resource.
struct Resource {
    devices: Devices,
    /// Which endpoint serves it, of those there were.
    endpoint: u64,
    plugin: Plugin,
    /// The task of the endpoint.
    task: Option<AbortHandle>,
}

/// What there is of a plugin.
enum Plugin {
    /// It has registered, and not named its devices yet.
    Coming,
    /// It serves.
    Here(Arc<Endpoint>),
    /// It did, and may come back.
    Gone,
}

/// Why a plugin is not taken up.
#[derive(Debug, thiserror::Error)]
#[error("the node has {MOST_RESOURCES} resources of device plugins, and takes up no further one")]
pub(crate) struct TooMany;

// === impl Shared ===

impl Shared {
    /// A thread that panicked while it held the lock has changed single values, each whole.
    pub(crate) fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

// === impl State ===

impl State {
    /// No plugin yet, and what pods have from before.
    pub(crate) fn new(claims: Claims) -> Self {
        Self { resources: BTreeMap::new(), claims, listeners: Listeners::default(), version: 1, endpoints: 0 }
    }

    /// Takes up a plugin, instead of the one that served the resource. What that one named stays, until this one has.
    pub(crate) fn register(&mut self, name: &ExtendedResource) -> Result<u64, TooMany> {
        if !self.resources.contains_key(name) && self.resources.len() >= MOST_RESOURCES {
            return Err(TooMany);
        }
        self.endpoints += 1;
        let resource = self.resources.entry(name.clone()).or_insert_with(|| Resource {
            devices: Devices::new(),
            endpoint: 0,
            plugin: Plugin::Coming,
            task: None,
        });
        resource.endpoint = self.endpoints;
        resource.plugin = Plugin::Coming;
        if let Some(old) = resource.task.take() {
            old.abort();
        }
        self.listeners.tell(name);
        Ok(self.endpoints)
    }

    /// Whose task it is that serves the endpoint, so that it ends with it.
    pub(crate) fn served_by(&mut self, name: &ExtendedResource, endpoint: u64, task: AbortHandle) {
        match self.endpoint(name, endpoint) {
            Some(resource) => resource.task = Some(task),
            None => task.abort(),
        }
    }

    /// The resource, if this is its endpoint still.
    fn endpoint(&mut self, name: &ExtendedResource, endpoint: u64) -> Option<&mut Resource> {
        self.resources.get_mut(name).filter(|resource| resource.endpoint == endpoint)
    }

    /// A plugin named its devices. Answers whether anything is different now.
    pub(crate) fn listed(&mut self, name: &ExtendedResource, by: &Arc<Endpoint>, devices: Devices) -> bool {
        let Some(resource) = self.endpoint(name, by.id) else { return false };
        let same = resource.devices == devices && matches!(resource.plugin, Plugin::Here(_));
        if !same {
            resource.devices = devices;
            resource.plugin = Plugin::Here(by.clone());
            self.listeners.tell(name);
        }
        !same
    }

    /// No device of it works, as far as anybody knows; `gone` with its plugin.
    pub(crate) fn unhealthy(&mut self, name: &ExtendedResource, endpoint: u64, gone: bool) {
        let Some(resource) = self.endpoint(name, endpoint) else { return };
        for device in resource.devices.values_mut() {
            device.healthy = false;
        }
        if gone {
            resource.plugin = Plugin::Gone;
        }
        self.listeners.tell(name);
    }

    /// The plugin did not come back.
    pub(crate) fn forget(&mut self, name: &ExtendedResource, endpoint: u64) {
        if self.endpoint(name, endpoint).is_some() {
            self.resources.remove(name);
            self.listeners.tell(name);
        }
    }

    /// Ends the tasks of all endpoints.
    pub(crate) fn end(&mut self) {
        for resource in self.resources.values_mut() {
            if let Some(task) = resource.task.take() {
                task.abort();
            }
        }
    }

    /// The endpoint that serves a resource.
    pub(crate) fn serving(&self, name: &ExtendedResource) -> Option<Arc<Endpoint>> {
        match &self.resources.get(name)?.plugin {
            Plugin::Here(endpoint) => Some(endpoint.clone()),
            Plugin::Coming | Plugin::Gone => None,
        }
    }

    /// What the node has of each resource.
    pub(crate) fn inventory(&self) -> BTreeMap<ExtendedResource, Amount> {
        self.resources.iter().map(|(name, resource)| (name.clone(), amount(&resource.devices))).collect()
    }

    /// The devices of each resource.
    pub(crate) fn devices(&self) -> impl Iterator<Item = (&ExtendedResource, &Devices)> {
        self.resources.iter().map(|(name, resource)| (name, &resource.devices))
    }

    pub(crate) fn health(&self, name: &ExtendedResource, device: &str) -> DeviceHealth {
        let Some(resource) = self.resources.get(name) else { return DeviceHealth::Unknown };
        match (&resource.plugin, resource.devices.get(device)) {
            (_, Some(device)) if device.healthy => DeviceHealth::Healthy,
            (Plugin::Here(_), _) => DeviceHealth::Unhealthy,
            // As in the kubelet: a plugin that was there and is not leaves its devices unhealthy.
            (_, Some(_)) => DeviceHealth::Unhealthy,
            (_, None) => DeviceHealth::Unknown,
        }
    }

    /// Chooses devices for a pod that has none.
    pub(crate) fn choose(
        &self,
        spec: &PodSpec,
        topology: Topology,
        preferences: &Preferences,
    ) -> Result<Choice, AllocateError> {
        let mut offers = BTreeMap::new();
        for (name, count) in spec.extended_resources() {
            let missing = |why| AllocateError::Missing { resource: name.clone(), why };
            let resource = self.resources.get(name);
            let endpoint = match resource.map(|resource| &resource.plugin) {
                Some(Plugin::Here(endpoint)) => endpoint,
                // Nothing is asked of it.
                _ if count == 0 => continue,
                Some(Plugin::Coming) => {
                    return Err(missing("it has registered, and not named its devices yet"));
                }
                Some(Plugin::Gone) => {
                    return Err(missing("it has stopped to answer, and not registered again"));
                }
                None => return Err(missing("none has registered")),
            };
            let Some(resource) = resource else { continue };
            let offer = Offer {
                devices: &resource.devices,
                prefers: endpoint.options.get_preferred_allocation_available,
                pre_start: endpoint.options.pre_start_required,
            };
            offers.insert(name.clone(), offer);
        }
        choose(spec, &offers, &self.claims, topology, preferences)
    }
}

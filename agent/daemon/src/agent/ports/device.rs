//! Devices for pods: the device manager's answers in a pod's terms, and what CDI names stand for.

use std::collections::BTreeSet;
use std::sync::Arc;

use coracle_cdi::{QualifiedName, Registry, devices_of_annotations};
use coracle_device_manager::{AllocateError, Answer};
use coracle_model::{Container, ContainerEdits, DeviceHealth, ExtendedResource, Pod, PodUid};
use coracle_pod::ports::{Allocation, Devices, Failure, Refusal};

use super::failure::{blocking, failure};
use crate::agent::devices::NodeDevices;

/// The device manager, as pods need it.
pub(crate) struct DevicePort {
    devices: NodeDevices,
    cdi: Arc<Registry>,
}

// === impl DevicePort ===

impl DevicePort {
    pub(crate) fn new(devices: NodeDevices, cdi: Registry) -> Self {
        Self { devices, cdi: Arc::new(cdi) }
    }

    /// The pods that have devices of what this one asks for.
    fn holders(&self, pod: &Pod) -> BTreeSet<PodUid> {
        let Ok(manager) = self.devices.manager() else { return BTreeSet::new() };
        let resources = pod.spec.extended_resources();
        resources.into_keys().flat_map(|resource| manager.holders(resource)).collect()
    }
}

impl Devices for DevicePort {
    async fn allocate(&self, pod: &Arc<Pod>) -> Result<Allocation, Failure> {
        let manager = match self.devices.manager() {
            Ok(manager) => manager,
            Err(why) => return Ok(Allocation::Later(why.to_owned())),
        };
        // Of those before the answer as well: one that has ended since is why it is worth to wait.
        let before = self.holders(pod);
        let error = match manager.allocate(pod).await {
            Ok(devices) => return Ok(Allocation::Given(devices)),
            Err(error) => error,
        };
        let message = error.to_string();
        Ok(match error {
            AllocateError::Missing { .. } => Allocation::Later(message),
            AllocateError::Insufficient { resource, .. } => {
                let mut holders = self.holders(pod);
                holders.extend(before);
                let refusal = Refusal { reason: format!("OutOf{resource}").into(), message };
                Allocation::Lacking { resource, holders, refusal }
            }
            AllocateError::Topology => {
                Allocation::Refused(Refusal { reason: "TopologyAffinityError".into(), message })
            }
            AllocateError::Plugin { .. } => {
                Allocation::Refused(Refusal { reason: "UnexpectedAdmissionError".into(), message })
            }
            AllocateError::Busy | AllocateError::Checkpoint { .. } => {
                return Err(Failure::new("UnexpectedAdmissionError", message));
            }
        })
    }

    async fn prepare(&self, pod: &Arc<Pod>, container: &Container) -> Result<ContainerEdits, Failure> {
        const REASON: &str = "CreateContainerConfigError";
        let manager = self.devices.manager().map_err(failure(REASON))?;
        let Answer { mut edits, cdi } =
            manager.prepare(pod, &container.name).await.map_err(failure(REASON))?;
        // What a plugin says is the node's, and the pod's own goes before it, as under the kubelet.
        edits.default_env.append(&mut edits.env);
        let mut names = Vec::new();
        for name in cdi {
            names.push(name.parse::<QualifiedName>().map_err(failure(REASON))?);
        }
        // What is named there as well, for runtimes that do not know the other, is one device.
        let annotated = devices_of_annotations(&edits.annotations).map_err(failure(REASON))?;
        let more: Vec<_> = annotated.into_iter().filter(|name| !names.contains(name)).collect();
        names.extend(more);
        if !names.is_empty() {
            let registry = Arc::clone(&self.cdi);
            let resolve = move || registry.resolve(&names).map_err(failure("CreateContainerError"));
            edits.append(blocking(resolve).await?);
        }
        Ok(edits)
    }

    async fn release_devices(&self, pod: &PodUid) -> Result<(), Failure> {
        match self.devices.manager() {
            Ok(manager) => manager.release(pod).await.map_err(failure("FailedSync")),
            // What is on record of it goes with its record.
            Err(_) => Ok(()),
        }
    }

    fn health(&self, resource: &ExtendedResource, device: &str) -> DeviceHealth {
        self.devices.manager().map_or(DeviceHealth::Unknown, |manager| manager.health(resource, device))
    }
}

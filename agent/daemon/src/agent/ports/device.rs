//! Devices for pods.

use std::sync::Arc;

use coracle_model::{Container, ContainerEdits, DeviceHealth, ExtendedResource, Pod, PodUid};
use coracle_pod::ports::{Allocation, Devices, Failure};

/// The device manager, as pods need it.
pub(crate) struct DevicePort;

impl Devices for DevicePort {
    async fn allocate(&self, pod: &Arc<Pod>) -> Result<Allocation, Failure> {
        let resources = pod.spec.extended_resources();
        let names: Vec<_> = resources.keys().map(|resource| resource.as_str()).collect();
        Ok(Allocation::Later(format!("no device plugin serves {} on this node", names.join(", "))))
    }

    async fn prepare(&self, pod: &Arc<Pod>, container: &Container) -> Result<ContainerEdits, Failure> {
        let message = format!("container {} of pod {} was given no devices", container.name, pod.key);
        Err(Failure::new("CreateContainerConfigError", message))
    }

    async fn release_devices(&self, _: &PodUid) -> Result<(), Failure> {
        Ok(())
    }

    fn health(&self, _: &ExtendedResource, _: &str) -> DeviceHealth {
        DeviceHealth::Unknown
    }
}

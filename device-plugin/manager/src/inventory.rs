//! What devices there are.

use std::collections::BTreeMap;

use coracle_device_api::deviceplugin as api;

use crate::numa::NumaNodes;

/// How many devices a plugin may name.
const MOST_DEVICES: usize = 16 * 1024;
/// How long the name of one may be. The API says 63 octets; plugins of partitions and replicas say more.
const LONGEST_ID: usize = 253;

/// Devices of a resource by identifier.
pub(crate) type Devices = BTreeMap<String, Device>;

/// A device, as its plugin says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Device {
    pub(crate) healthy: bool,
    /// Which nodes it is near to; none where nothing was said.
    pub(crate) numa: NumaNodes,
}

/// What a node has of a resource.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Amount {
    /// All devices a plugin named.
    pub capacity: u64,
    /// Those that are healthy.
    pub allocatable: u64,
}

/// The devices a plugin names, and what is wrong with some of them.
///
/// # Errors
/// There are more than may be: none of them counts.
pub(crate) fn read(response: api::ListAndWatchResponse) -> Result<(Devices, Option<String>), String> {
    let named = response.devices.len();
    if named > MOST_DEVICES {
        return Err(format!("it names {named} devices, and may name {MOST_DEVICES}"));
    }
    let mut devices = Devices::new();
    let mut problem = None;
    for device in response.devices {
        let id = device.id;
        if id.is_empty() || id.len() > LONGEST_ID || id.chars().any(char::is_control) {
            problem = Some(format!("{id:?} is no name of a device"));
            continue;
        }
        // Whatever is not said to be healthy is not.
        let healthy = device.health == api::HEALTHY;
        let nodes = device.topology.map(|topology| topology.nodes).unwrap_or_default();
        let numa = nodes.iter().map(|node| node.id).collect();
        let new = Device { healthy, numa };
        devices
            .entry(id)
            .and_modify(|old| {
                problem = Some("it names a device twice".to_owned());
                // If one of the two is wrong, then that it works.
                old.healthy &= new.healthy;
            })
            .or_insert(new);
    }
    Ok((devices, problem))
}

pub(crate) fn amount(devices: &Devices) -> Amount {
    let healthy = devices.values().filter(|device| device.healthy).count();
    Amount { capacity: devices.len() as u64, allocatable: healthy as u64 }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn device(id: &str, health: &str) -> api::Device {
        api::Device { id: id.to_owned(), health: health.to_owned(), topology: None }
    }

    #[test]
    fn what_a_plugin_names_is_checked() {
        let topology = api::TopologyInfo { nodes: vec![api::NumaNode { id: 1 }, api::NumaNode { id: -1 }] };
        let named = vec![
            api::Device { topology: Some(topology), ..device("a", "Healthy") },
            device("b", "Unhealthy"),
            device("c", "healthy"),
            device("d", "Healthy"),
            device("d", "Unhealthy"),
            device("", "Healthy"),
            device("a\nb", "Healthy"),
            device(&"x".repeat(254), "Healthy"),
        ];
        let (devices, problem) = read(api::ListAndWatchResponse { devices: named }).unwrap();
        let healthy: Vec<_> = devices.iter().map(|(id, device)| (id.as_str(), device.healthy)).collect();
        assert_eq!(healthy, [("a", true), ("b", false), ("c", false), ("d", false)]);
        assert_eq!(devices["a"].numa, [1].into_iter().collect());
        assert!(problem.is_some());
        assert_eq!(amount(&devices), Amount { capacity: 4, allocatable: 1 });
        let many = vec![device("a", "Healthy"); MOST_DEVICES + 1];
        assert!(read(api::ListAndWatchResponse { devices: many }).is_err());
    }
}

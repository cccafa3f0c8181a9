//! Devices that were there: a kubelet is told that they are unhealthy, and not that they never were.

use std::collections::{BTreeMap, BTreeSet};

use crate::device::Resource;

/// So many devices of a resource that are gone are remembered: a device that comes under a new name each time shall not
/// fill memory.
const MOST_GONE: usize = 256;

/// What was seen.
#[derive(Default)]
pub(crate) struct Memory {
    resources: BTreeMap<String, Resource>,
}

// === impl Memory ===

impl Memory {
    /// What is there now and what was there before, in order of name.
    pub(crate) fn complete(&mut self, now: Vec<Resource>) -> Vec<Resource> {
        let mut now: BTreeMap<String, Resource> = now.into_iter().map(|it| (it.name.clone(), it)).collect();
        for (name, before) in std::mem::take(&mut self.resources) {
            let resource =
                now.entry(name).or_insert_with(|| Resource { devices: Vec::new(), ..before.clone() });
            let there: BTreeSet<&str> = resource.devices.iter().map(|it| it.id.as_str()).collect();
            let mut gone: Vec<_> =
                before.devices.into_iter().filter(|it| !there.contains(it.id.as_str())).collect();
            gone.truncate(MOST_GONE);
            for device in &mut gone {
                device.unhealthy = Some("it is not there any more".to_owned());
            }
            resource.devices.extend(gone);
            resource.devices.sort_by(|a, b| a.id.cmp(&b.id));
        }
        self.resources.clone_from(&now);
        now.into_values().collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::device::{Device, Grant};

    fn resource(name: &str, ids: impl IntoIterator<Item = impl Into<String>>) -> Resource {
        let device = |id: String| Device {
            id,
            unhealthy: None,
            numa: None,
            place: Vec::new(),
            grant: Grant::default(),
        };
        Resource::new(name, ids.into_iter().map(|id| device(id.into())).collect(), 1)
    }

    fn health(found: &[Resource]) -> Vec<(&str, bool)> {
        found.iter().flat_map(|it| &it.devices).map(|it| (it.id.as_str(), it.unhealthy.is_none())).collect()
    }

    #[test]
    fn what_is_gone_is_unhealthy_until_it_is_back() {
        let mut memory = Memory::default();
        memory.complete(vec![resource("a.b/c", ["x", "y"])]);
        assert_eq!(
            health(&memory.complete(vec![resource("a.b/c", ["y", "z"])])),
            [("x", false), ("y", true), ("z", true)]
        );
        assert_eq!(health(&memory.complete(Vec::new())), [("x", false), ("y", false), ("z", false)]);
        assert_eq!(
            health(&memory.complete(vec![resource("a.b/c", ["x"])])),
            [("x", true), ("y", false), ("z", false)]
        );
    }

    #[test]
    fn names_that_never_come_back_do_not_add_up() {
        let mut memory = Memory::default();
        for round in 0..10 {
            memory.complete(vec![resource("a.b/c", (0..100).map(|number| format!("{round}-{number}")))]);
        }
        let all = memory.complete(Vec::<Resource>::new());
        assert!(health(&all).len() <= MOST_GONE + 100);
    }
}

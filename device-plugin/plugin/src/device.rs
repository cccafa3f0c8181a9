//! Devices as every source of them describes them, and as they are offered.

use std::collections::BTreeMap;

use coracle_model::{DeviceNode, EditMount};

/// Between the name of a device and the number of its share: NVIDIA's way, which monitors know.
const SHARE: &str = "::";

/// One device of a resource.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Device {
    /// Unique in its resource, and the same after a restart.
    pub(crate) id: String,
    /// Why it cannot be used, if so.
    pub(crate) unhealthy: Option<String>,
    /// The NUMA node it hangs at.
    pub(crate) numa: Option<u32>,
    /// Where in the tree of PCI bridges it is: the components of its path in sysfs.
    pub(crate) place: Vec<String>,
    /// What a container gets of it.
    pub(crate) grant: Grant,
}

/// What a container gets of a device.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Grant {
    /// Qualified names of CDI devices.
    pub(crate) cdi: Vec<String>,
    /// Device nodes, of which kind, mode and owner are the host's.
    pub(crate) nodes: Vec<DeviceNode>,
    /// Files.
    pub(crate) mounts: Vec<EditMount>,
    /// Variables.
    pub(crate) env: BTreeMap<String, String>,
}

/// A resource: what one socket serves.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Resource {
    /// Such as `nvidia.com/gpu`.
    pub(crate) name: String,
    /// In order of id.
    pub(crate) devices: Vec<Device>,
    /// In how many shares each device is offered.
    pub(crate) shares: u32,
    /// Whether a container may have one share only.
    pub(crate) one_share_only: bool,
    /// How close pairs of devices are beyond what their places tell, by ids in order: NVLinks.
    pub(crate) links: BTreeMap<(String, String), u32>,
}

/// A node that is the same in the container, with what may be done with it.
pub(crate) fn node(path: &str, host_path: &str, permissions: &str) -> DeviceNode {
    DeviceNode {
        path: path.to_owned(),
        host_path: host_path.to_owned(),
        kind: None,
        permissions: permissions.to_owned(),
        file_mode: None,
        uid: None,
        gid: None,
        is_users: false,
    }
}

// === impl Resource ===

impl Resource {
    /// A resource whose devices are nobody else's.
    pub(crate) fn new(name: impl Into<String>, mut devices: Vec<Device>, shares: u32) -> Self {
        devices.sort_by(|a, b| a.id.cmp(&b.id));
        devices.dedup_by(|a, b| a.id == b.id);
        Self { name: name.into(), devices, shares, one_share_only: false, links: BTreeMap::new() }
    }

    /// The ids a kubelet is told, of each device in turn.
    pub(crate) fn offered(&self) -> impl Iterator<Item = (String, &Device)> {
        let ids = |device: &Device| -> Vec<String> {
            match self.shares {
                0 | 1 => vec![device.id.clone()],
                shares => (0..shares).map(|share| format!("{}{SHARE}{share}", device.id)).collect(),
            }
        };
        self.devices.iter().flat_map(move |device| ids(device).into_iter().map(move |id| (id, device)))
    }

    /// The device a kubelet means by an id.
    pub(crate) fn device(&self, id: &str) -> Option<&Device> {
        let name = if self.shares > 1 {
            let (name, share) = id.rsplit_once(SHARE)?;
            let number: u32 = share.parse().ok()?;
            // Only as it was told: `+1` and `01` are numbers too.
            (number < self.shares && number.to_string() == share).then_some(name)?
        } else {
            id
        };
        let at = self.devices.binary_search_by(|device| device.id.as_str().cmp(name)).ok()?;
        self.devices.get(at)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    pub(crate) fn plain(id: &str) -> Device {
        Device { id: id.to_owned(), unhealthy: None, numa: None, place: Vec::new(), grant: Grant::default() }
    }

    #[test]
    fn shares_have_numbers() {
        let shared = Resource::new("a.b/c", vec![plain("y"), plain("x::z")], 2);
        let ids: Vec<_> = shared.offered().map(|(id, _)| id).collect();
        assert_eq!(ids, ["x::z::0", "x::z::1", "y::0", "y::1"]);
        assert_eq!(shared.device("x::z::1").map(|it| it.id.as_str()), Some("x::z"));
        for id in ["y", "y::2", "y::+1", "y::01", "y::", "z::0", "", "::0"] {
            assert_eq!(shared.device(id), None, "{id}");
        }
        let whole = Resource::new("a.b/c", vec![plain("x::z")], 1);
        assert_eq!(whole.device("x::z").map(|it| it.id.as_str()), Some("x::z"));
        assert_eq!(whole.device("x::z::0"), None);
    }
}

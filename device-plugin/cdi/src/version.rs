//! The versions of CDI, and which a specification's fields need.

use std::fmt;

use crate::spec::{Edits, Spec};

/// A released version.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Version {
    /// The first with a tag.
    V0_3_0,
    /// The type of mounts.
    V0_4_0,
    /// `hostPath` of device nodes; names of devices that begin with a digit.
    V0_5_0,
    /// Annotations; dots in the class.
    V0_6_0,
    /// `intelRdt`, `additionalGids`.
    V0_7_0,
    /// Nothing in specifications.
    V0_8_0,
    /// Nothing in specifications.
    V1_0_0,
    /// `netDevices`; `schemata` and `enableMonitoring` of `intelRdt`.
    V1_1_0,
}

const ALL: [(Version, &str); 8] = [
    (Version::V0_3_0, "0.3.0"),
    (Version::V0_4_0, "0.4.0"),
    (Version::V0_5_0, "0.5.0"),
    (Version::V0_6_0, "0.6.0"),
    (Version::V0_7_0, "0.7.0"),
    (Version::V0_8_0, "0.8.0"),
    (Version::V1_0_0, "1.0.0"),
    (Version::V1_1_0, "1.1.0"),
];

// === impl Version ===

impl Version {
    /// The version of that name, if there is one.
    pub fn parse(text: &str) -> Option<Self> {
        ALL.iter().find(|(_, name)| *name == text).map(|(version, _)| *version)
    }

    /// What can stand in `cdiVersion`.
    pub fn names() -> impl Iterator<Item = &'static str> {
        ALL.iter().map(|(_, name)| *name)
    }

    /// As it stands in `cdiVersion`.
    pub fn as_str(self) -> &'static str {
        ALL.iter().find(|(version, _)| *version == self).map_or("", |(_, name)| name)
    }
}

impl fmt::Display for Version {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// The lowest version that has everything a specification uses.
pub fn needed_version(spec: &Spec) -> Version {
    let dotted = spec.kind.split_once('/').is_some_and(|(_, class)| class.contains('.'));
    let annotated =
        !spec.annotations.is_empty() || spec.devices.iter().any(|device| !device.annotations.is_empty());
    let numbered =
        spec.devices.iter().any(|device| !device.name.starts_with(|c: char| c.is_ascii_alphabetic()));
    let all = spec.devices.iter().map(|device| &device.container_edits).chain([&spec.container_edits]);
    let mut needed = all.map(of_edits).max().unwrap_or(Version::V0_3_0);
    if dotted || annotated {
        needed = needed.max(Version::V0_6_0);
    }
    if numbered {
        needed = needed.max(Version::V0_5_0);
    }
    needed
}

fn of_edits(edits: &Edits) -> Version {
    let rdt = edits.intel_rdt.as_ref();
    if !edits.net_devices.is_empty()
        || rdt.is_some_and(|rdt| rdt.enable_monitoring || !rdt.schemata.is_empty())
    {
        return Version::V1_1_0;
    }
    if rdt.is_some() || !edits.additional_gids.is_empty() {
        return Version::V0_7_0;
    }
    if edits.device_nodes.iter().any(|node| !node.host_path.is_empty()) {
        return Version::V0_5_0;
    }
    if edits.mounts.iter().any(|mount| !mount.kind.is_empty()) {
        return Version::V0_4_0;
    }
    Version::V0_3_0
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::spec::{Device, DeviceNode, IntelRdt, Mount, NetDevice};

    fn device(name: &str, edits: Edits) -> Spec {
        let device = Device { name: name.to_owned(), container_edits: edits, ..Device::default() };
        Spec { kind: "vendor.com/class".to_owned(), devices: vec![device], ..Spec::default() }
    }

    #[test]
    fn each_field_needs_the_version_it_came_with() {
        let plain = || Edits { env: vec!["A=b".to_owned()], ..Edits::default() };
        let annotations = [("a".to_owned(), String::new())];
        let cases = [
            (device("one", plain()), Version::V0_3_0),
            (
                device(
                    "one",
                    Edits { mounts: vec![Mount { kind: "tmpfs".to_owned(), ..Mount::default() }], ..plain() },
                ),
                Version::V0_4_0,
            ),
            (device("0", plain()), Version::V0_5_0),
            (
                device(
                    "one",
                    Edits {
                        device_nodes: vec![DeviceNode {
                            host_path: "/dev/x".to_owned(),
                            ..DeviceNode::default()
                        }],
                        ..plain()
                    },
                ),
                Version::V0_5_0,
            ),
            (Spec { kind: "vendor.com/c.d".to_owned(), ..device("one", plain()) }, Version::V0_6_0),
            (Spec { annotations: annotations.into(), ..device("one", plain()) }, Version::V0_6_0),
            (device("one", Edits { additional_gids: vec![5], ..plain() }), Version::V0_7_0),
            (device("one", Edits { intel_rdt: Some(IntelRdt::default()), ..plain() }), Version::V0_7_0),
            (device("one", Edits { net_devices: vec![NetDevice::default()], ..plain() }), Version::V1_1_0),
            (
                Spec {
                    container_edits: Edits {
                        intel_rdt: Some(IntelRdt { enable_monitoring: true, ..IntelRdt::default() }),
                        ..Edits::default()
                    },
                    ..device("one", plain())
                },
                Version::V1_1_0,
            ),
        ];
        for (spec, needed) in cases {
            assert_eq!(needed_version(&spec), needed, "{spec:?}");
        }
    }

    #[test]
    fn versions_are_known_by_their_exact_names() {
        for name in Version::names() {
            assert_eq!(Version::parse(name).map(Version::as_str), Some(name));
        }
        for other in ["", "0.5", "v0.5.0", "0.9.0", "2.0.0", "1.0.0-rc1"] {
            assert_eq!(Version::parse(other), None, "{other}");
        }
        assert!(Version::V1_0_0 > Version::V0_8_0);
    }
}

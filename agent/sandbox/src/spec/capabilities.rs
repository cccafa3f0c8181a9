//! The capabilities of a container.

use std::collections::BTreeSet;

use coracle_model::ContainerSecurity;

/// What a container has that asks for nothing: the set Docker, containerd and CRI-O share.
const DEFAULT: [&str; 14] = [
    "AUDIT_WRITE",
    "CHOWN",
    "DAC_OVERRIDE",
    "FOWNER",
    "FSETID",
    "KILL",
    "MKNOD",
    "NET_BIND_SERVICE",
    "NET_RAW",
    "SETFCAP",
    "SETGID",
    "SETPCAP",
    "SETUID",
    "SYS_CHROOT",
];

/// Names without `CAP_`.
pub(crate) type CapabilitySet = BTreeSet<String>;

/// What a container gets, and what it asked for that this host cannot give.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Granted {
    pub(crate) set: CapabilitySet,
    pub(crate) refused: CapabilitySet,
}

/// The bounding, effective and permitted set of a container on a host whose own bounding set is `host`.
///
/// As containerd does it: `ALL` of `add` first, then `ALL` of `drop`, which takes that away again, then single
/// names of `add`, then those of `drop`. So `drop: [ALL]` leaves the names that are added, and not `ALL`.
/// `privileged` is everything the host has.
pub(crate) fn granted(security: &ContainerSecurity, host: &CapabilitySet) -> Granted {
    if security.privileged {
        return Granted { set: host.clone(), refused: CapabilitySet::new() };
    }
    let names = |list: &[String]| {
        list.iter()
            .map(|name| name.strip_prefix("CAP_").unwrap_or(name).to_owned())
            .collect::<CapabilitySet>()
    };
    let (add, drop) = (names(&security.capabilities.add), names(&security.capabilities.drop));
    let mut set: CapabilitySet = match (add.contains("ALL"), drop.contains("ALL")) {
        (_, true) => CapabilitySet::new(),
        (true, false) => host.clone(),
        (false, false) => DEFAULT.map(str::to_owned).into(),
    };
    set.extend(add.into_iter().filter(|name| name != "ALL"));
    set.retain(|name| !drop.contains(name));
    let refused = set.difference(host).cloned().collect();
    set.retain(|name| host.contains(name));
    Granted { set, refused }
}

#[cfg(test)]
mod tests {
    use coracle_model::Capabilities;

    use super::*;

    fn set(names: &[&str]) -> CapabilitySet {
        names.iter().map(|name| (*name).to_owned()).collect()
    }

    fn ask(add: &[&str], drop: &[&str]) -> ContainerSecurity {
        let list = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect();
        ContainerSecurity {
            capabilities: Capabilities { add: list(add), drop: list(drop) },
            ..ContainerSecurity::default()
        }
    }

    #[test]
    fn add_and_drop() {
        let mut host = set(&DEFAULT);
        host.extend(set(&["NET_ADMIN", "SYS_ADMIN"]));
        let of = |add: &[&str], drop: &[&str]| granted(&ask(add, drop), &host);
        assert_eq!(of(&[], &[]).set, set(&DEFAULT));
        assert_eq!(of(&[], &["ALL"]).set, set(&[]));
        assert_eq!(of(&["NET_BIND_SERVICE"], &["ALL"]).set, set(&["NET_BIND_SERVICE"]));
        assert_eq!(of(&["CAP_NET_ADMIN"], &["ALL"]).set, set(&["NET_ADMIN"]));
        assert_eq!(of(&["ALL"], &[]).set, host);
        assert_eq!(of(&["ALL"], &["ALL"]).set, set(&[]));
        assert_eq!(of(&["ALL", "NET_ADMIN"], &["ALL"]).set, set(&["NET_ADMIN"]));
        assert!(!of(&["ALL"], &["CHOWN"]).set.contains("CHOWN"));
        assert!(!of(&[], &["CHOWN"]).set.contains("CHOWN"));
        assert!(!of(&["CHOWN"], &["CHOWN"]).set.contains("CHOWN"));
    }

    #[test]
    fn what_the_host_lacks_is_refused_and_named() {
        let host = set(&DEFAULT);
        let granted = granted(&ask(&["SYS_RESOURCE"], &[]), &host);
        assert_eq!((granted.set, granted.refused), (set(&DEFAULT), set(&["SYS_RESOURCE"])));
    }
}

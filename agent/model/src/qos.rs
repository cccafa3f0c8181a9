//! Quality of service classes.

use serde::{Deserialize, Serialize};

use crate::{PodSpec, ResourceList};

/// `status.qosClass`, which also names the cgroup a pod lives under.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum QosClass {
    /// Every container's requests equal its limits for cpu and memory.
    Guaranteed,
    /// Some request or limit is set.
    Burstable,
    /// None is.
    BestEffort,
}

/// The class Kubernetes gives a pod: only cpu and memory count, a zero amount counts as unset.
pub fn qos_class(spec: &PodSpec) -> QosClass {
    let set =
        |list: &ResourceList| [list.cpu, list.memory].into_iter().flatten().any(|amount| !amount.is_zero());
    let mut any = false;
    let mut guaranteed = true;
    for container in spec.init_containers.iter().chain(&spec.containers) {
        let (requests, limits) = (&container.resources.requests, &container.resources.limits);
        any |= set(requests) || set(limits);
        let pinned = |request, limit: Option<crate::Quantity>| {
            limit.is_some_and(|limit| !limit.is_zero() && request == Some(limit))
        };
        guaranteed &= pinned(requests.cpu, limits.cpu) && pinned(requests.memory, limits.memory);
    }
    match (any, guaranteed) {
        (false, _) => QosClass::BestEffort,
        (true, true) => QosClass::Guaranteed,
        (true, false) => QosClass::Burstable,
    }
}

// === impl QosClass ===

impl QosClass {
    /// Kubernetes' word.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Guaranteed => "Guaranteed",
            Self::Burstable => "Burstable",
            Self::BestEffort => "BestEffort",
        }
    }
}

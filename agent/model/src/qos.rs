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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Quantity, Resources};

    fn list(cpu: &str, memory: &str) -> ResourceList {
        let amount = |text: &str| (!text.is_empty()).then(|| text.parse::<Quantity>().unwrap());
        ResourceList { cpu: amount(cpu), memory: amount(memory), ..ResourceList::default() }
    }

    /// `resources` of each container: requests and limits, each cpu and memory.
    fn class(containers: &[[(&str, &str); 2]]) -> QosClass {
        let container = |[requests, limits]: &[(&str, &str); 2]| crate::Container {
            resources: Resources {
                requests: list(requests.0, requests.1),
                limits: list(limits.0, limits.1),
                ..Resources::default()
            },
            ..crate::Container::new(crate::Name::label("c").unwrap(), "i")
        };
        let (init, main) = containers.split_at(containers.len() - 1);
        let mut spec = PodSpec::new(main.iter().map(container).collect());
        spec.init_containers = init.iter().map(container).collect();
        qos_class(&spec)
    }

    #[test]
    fn classes_are_those_kubernetes_gives() {
        let none = [("", ""), ("", "")];
        let full = [("1", "1Gi"), ("1000m", "1024Mi")];
        for (containers, expected) in [
            (vec![none], QosClass::BestEffort),
            (vec![[("0", "0"), ("0", "0")]], QosClass::BestEffort),
            (vec![full], QosClass::Guaranteed),
            (vec![full, full], QosClass::Guaranteed),
            (vec![none, full], QosClass::Burstable),
            (vec![full, none], QosClass::Burstable),
            (vec![[("1", ""), ("1", "")]], QosClass::Burstable),
            (vec![[("1", "1Gi"), ("2", "1Gi")]], QosClass::Burstable),
            (vec![[("1", "1Gi"), ("", "")]], QosClass::Burstable),
            (vec![[("", ""), ("0", "1Gi")]], QosClass::Burstable),
        ] {
            assert_eq!(class(&containers), expected, "{containers:?}");
        }
    }
}

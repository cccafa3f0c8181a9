//! `oom_score_adj` of a container.

use coracle_model::{Container, PodSpec, QosClass, qos_class};

/// The priority of the class `system-node-critical`: what has it or more goes last, whatever it has requested.
const NODE_CRITICAL: i32 = 2_000_001_000;

/// Of what is to be killed last.
const LAST: i32 = -997;
/// Of what is to be killed first.
const FIRST: i32 = 1000;

/// The value the kubelet gives, from -1000 to 1000: the larger, the sooner the kernel kills it when the
/// host runs out of memory. `memory_capacity` is the host's memory in bytes.
///
/// Guaranteed and node-critical pods are nearly exempt, best-effort ones go first, and in between it is the better
/// the larger the part of the host's memory a container has requested. A sidecar goes no sooner than the app
/// container that has requested the least: the pod would be without it while its containers run.
pub(crate) fn score_adj(pod: &PodSpec, container: &Container, memory_capacity: u64) -> i32 {
    if pod.priority >= NODE_CRITICAL {
        return LAST;
    }
    match qos_class(pod) {
        QosClass::Guaranteed => LAST,
        QosClass::BestEffort => FIRST,
        QosClass::Burstable => {
            let mut value = by_request(container, memory_capacity);
            // An app container's own restart policy may be Always as well.
            let inits = &pod.init_containers;
            if container.is_sidecar() && inits.iter().any(|init| init.name == container.name) {
                let apps = pod.containers.iter().map(|app| by_request(app, memory_capacity));
                value = apps.max().map_or(value, |most_exposed| value.min(most_exposed));
            }
            // Never as protected as a guaranteed container, never as exposed as a best-effort one.
            value.clamp(FIRST + LAST, FIRST - 1)
        }
    }
}

fn by_request(container: &Container, memory_capacity: u64) -> i32 {
    let request = container.resources.requests.memory.map_or(0, |memory| memory.units());
    let share = u128::from(request) * 1000 / u128::from(memory_capacity.max(1));
    FIRST - i32::try_from(share.min(1000)).unwrap_or(1000)
}

#[cfg(test)]
mod tests {
    use coracle_model::{Name, RestartPolicy};

    use super::*;

    const CAPACITY: u64 = 1000 << 20;

    fn container(name: &str, request: &str) -> Container {
        let mut container = Container::new(Name::label(name).unwrap(), "image");
        container.resources.requests.memory = (!request.is_empty()).then(|| request.parse().unwrap());
        container
    }

    fn sidecar(request: &str) -> Container {
        Container { restart_policy: Some(RestartPolicy::Always), ..container("sidecar", request) }
    }

    fn guaranteed() -> Container {
        let mut container = container("app", "100Mi");
        container.resources.requests.cpu = Some("1".parse().unwrap());
        container.resources.limits = container.resources.requests.clone();
        container
    }

    #[test]
    fn the_larger_the_request_the_later() {
        for (request, expected) in
            [("1", 999), ("100Mi", 900), ("500Mi", 500), ("999Mi", 3), ("4000Mi", 3), ("", 1000)]
        {
            let pod = PodSpec::new(vec![container("app", request)]);
            assert_eq!(score_adj(&pod, &pod.containers[0], CAPACITY), expected, "{request:?}");
        }
        let pod = PodSpec::new(vec![guaranteed()]);
        assert_eq!(score_adj(&pod, &pod.containers[0], CAPACITY), -997);
    }

    #[test]
    fn what_is_critical_to_the_node_goes_last_whatever_it_has_requested() {
        for app in [container("app", ""), container("app", "100Mi"), guaranteed()] {
            let mut pod = PodSpec::new(vec![app]);
            pod.priority = 2_000_001_000;
            assert_eq!(score_adj(&pod, &pod.containers[0], CAPACITY), -997);
        }
        let mut pod = PodSpec::new(vec![container("app", "100Mi")]);
        // system-cluster-critical: another node may take it.
        pod.priority = 2_000_000_000;
        assert_eq!(score_adj(&pod, &pod.containers[0], CAPACITY), 900);
    }

    #[test]
    fn a_sidecar_goes_no_sooner_than_the_app_container_that_has_requested_least() {
        for (own, apps, expected) in [
            ("", ["300Mi", "200Mi"], 800),
            ("100Mi", ["300Mi", "200Mi"], 800),
            ("500Mi", ["300Mi", "200Mi"], 500),
            ("100Mi", ["300Mi", ""], 900),
            ("", ["300Mi", ""], 999),
        ] {
            let [first, second] = apps;
            let mut pod = PodSpec::new(vec![container("first", first), container("second", second)]);
            pod.init_containers = vec![container("init", ""), sidecar(own)];
            assert_eq!(score_adj(&pod, &pod.init_containers[1], CAPACITY), expected, "{own:?} {apps:?}");
            assert_eq!(score_adj(&pod, &pod.init_containers[0], CAPACITY), 999, "no sidecar");
            // One that is always started again is no sidecar for that.
            pod.containers[1].restart_policy = Some(RestartPolicy::Always);
            pod.containers[1].resources = container("second", "100Mi").resources;
            assert_eq!(score_adj(&pod, &pod.containers[1], CAPACITY), 900);
        }
    }
}

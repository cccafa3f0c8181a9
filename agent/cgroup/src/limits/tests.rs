use coracle_model::{Name, ResourceList, Resources, RestartPolicy};

use super::*;

#[test]
fn cpu_shares_as_the_kubelet_computes_them() {
    for (milli, shares) in
        [(0, 2), (1, 2), (2, 2), (3, 3), (100, 102), (250, 256), (1000, 1024), (300_000, 262_144)]
    {
        assert_eq!(cpu_shares(milli), shares, "{milli}m");
    }
    assert_eq!(cpu_shares(u64::MAX), MAX_CPU_SHARES);
}

#[test]
fn cpu_quotas_as_the_kubelet_computes_them() {
    for (milli, quota) in [
        (0, None),
        (1, Some(1000)),
        (5, Some(1000)),
        (10, Some(1000)),
        (11, Some(1100)),
        (500, Some(50_000)),
        (2000, Some(200_000)),
    ] {
        assert_eq!(cpu_quota_us(milli), quota, "{milli}m");
    }
}

#[test]
fn cpu_weights_as_the_oci_runtimes_compute_them() {
    for (shares, weight) in [
        (0, 1),
        (1, 1),
        (2, 1),
        (3, 2),
        (102, 17),
        (1024, 100),
        (2048, 174),
        (262_143, 10_000),
        (262_144, 10_000),
    ] {
        assert_eq!(cpu_weight(shares), weight, "{shares} shares");
    }
    assert_eq!(cpu_weight(u64::MAX), 10_000);
    let weights: Vec<u64> = (2..=MAX_CPU_SHARES).map(cpu_weight).collect();
    assert!(weights.is_sorted(), "more shares must never weigh less");
}

#[test]
fn a_container_is_told_its_own_amounts() {
    let none = container_limits(&container(["", ""], ["", ""]));
    assert_eq!(none, Limits { cpu_shares: Some(2), ..Limits::default() });

    let all = container_limits(&container(["250m", "64Mi"], ["500m", "128Mi"]));
    assert_eq!(
        all,
        Limits {
            cpu_shares: Some(256),
            cpu_quota_us: Some(50_000),
            memory: Some(128 * 1024 * 1024),
            pids: None
        }
    );

    let limit_only = container_limits(&container(["", ""], ["1", ""]));
    assert_eq!(limit_only.cpu_shares, Some(1024), "a missing request equals the limit");
    let zero_request = container_limits(&container(["0", ""], ["1", "0"]));
    assert_eq!(zero_request.cpu_shares, Some(2), "a request of zero stays zero");
    assert_eq!(zero_request.memory, None, "a limit of zero is none");
}

#[test]
fn a_pod_is_limited_only_where_every_container_is() {
    let limited = container(["100m", "10Mi"], ["200m", "20Mi"]);
    let cpu_only = container(["100m", ""], ["300m", ""]);

    let both = pod_limits(&spec(vec![], vec![limited.clone(), cpu_only.clone()]), Some(64));
    assert_eq!(
        both,
        Limits { cpu_shares: Some(204), cpu_quota_us: Some(50_000), memory: None, pids: Some(64) }
    );

    let with_init = pod_limits(&spec(vec![container(["", ""], ["", ""])], vec![limited.clone()]), None);
    assert_eq!(with_init.cpu_quota_us, None, "an init container without a limit lifts the pod's");
    assert_eq!(with_init.memory, None);

    let best_effort = pod_limits(&spec(vec![], vec![container(["", ""], ["", ""])]), Some(7));
    assert_eq!(best_effort, Limits { cpu_shares: Some(2), pids: Some(7), ..Limits::default() });
}

#[test]
fn a_large_init_container_widens_the_pod() {
    let guaranteed = container(["500m", "10Mi"], ["500m", "10Mi"]);
    let large = container(["2", "100Mi"], ["2", "100Mi"]);
    let limits = pod_limits(&spec(vec![large], vec![guaranteed.clone(), guaranteed]), None);
    assert_eq!(
        limits,
        Limits {
            cpu_shares: Some(2048),
            cpu_quota_us: Some(200_000),
            memory: Some(100 * 1024 * 1024),
            pids: None
        }
    );
}

#[test]
fn sidecars_have_their_share_beside_the_app_containers() {
    let of = |amount: [&str; 2]| container(amount, amount);
    let sidecar = Container { restart_policy: Some(RestartPolicy::Always), ..of(["250m", "20Mi"]) };
    let limits = |init| pod_limits(&spec(init, vec![of(["500m", "10Mi"])]), None);
    let together = Limits {
        cpu_shares: Some(768),
        cpu_quota_us: Some(75_000),
        memory: Some(30 * 1024 * 1024),
        pids: None,
    };
    assert_eq!(limits(vec![sidecar.clone()]), together);
    // An init container after the sidecar runs beside it, one before it does not.
    let init = of(["500m", "15Mi"]);
    let widened = Limits { memory: Some(35 * 1024 * 1024), ..together };
    assert_eq!(limits(vec![sidecar.clone(), init.clone()]), widened);
    assert_eq!(limits(vec![init, sidecar]), together);
}

fn list([cpu, memory]: [&str; 2]) -> ResourceList {
    let quantity = |text: &str| (!text.is_empty()).then(|| text.parse().unwrap());
    ResourceList { cpu: quantity(cpu), memory: quantity(memory), ..ResourceList::default() }
}

fn container(requests: [&str; 2], limits: [&str; 2]) -> Container {
    Container {
        resources: Resources { requests: list(requests), limits: list(limits), ..Resources::default() },
        ..Container::new(Name::label("c").unwrap(), "i")
    }
}

fn spec(init_containers: Vec<Container>, containers: Vec<Container>) -> PodSpec {
    PodSpec { init_containers, ..PodSpec::new(containers) }
}

//! `spec`.

use coracle_document::{Faults, Path};
use std::collections::HashSet;
use std::time::Duration;

use coracle_model::{HostNamespaces, Name, PodSecurity, PodSpec, RestartPolicy, validate_subdomain};
use k8s_openapi::api::core::v1;

use super::{container, dns, filled, or_default, priority, security, volume, word};
use crate::syntax;

pub(super) fn convert(spec: &mut v1::PodSpec, path: &Path<'_>, faults: &mut Faults) -> Option<PodSpec> {
    let v1::PodSpec {
        active_deadline_seconds,
        affinity: _,
        automount_service_account_token,
        containers,
        dns_config,
        dns_policy,
        enable_service_links,
        ephemeral_containers,
        eviction_responders: _,
        host_aliases,
        host_ipc,
        host_network,
        host_pid,
        host_users,
        hostname,
        hostname_override,
        image_pull_secrets,
        init_containers,
        node_name: _,
        node_selector: _,
        os,
        overhead,
        preemption_policy: _,
        priority,
        priority_class_name,
        readiness_gates,
        resource_claims,
        resources,
        restart_policy,
        runtime_class_name,
        scheduler_name,
        scheduling_gates,
        scheduling_group: _,
        security_context,
        service_account,
        service_account_name,
        set_hostname_as_fqdn,
        share_process_namespace,
        subdomain,
        termination_grace_period_seconds,
        tolerations: _,
        topology_spread_constraints: _,
        volumes,
    } = spec;

    for (there, field, detail) in [
        (
            *automount_service_account_token == Some(true),
            "automountServiceAccountToken",
            "no API server is joined that could issue a token",
        ),
        (*host_users == Some(false), "hostUsers", "user namespaces"),
        (filled(overhead.as_ref()), "overhead", ""),
        (filled(resource_claims.as_ref()), "resourceClaims", ""),
        (resources.is_some(), "resources", "resources of the pod as a whole; set those of its containers"),
        (filled(runtime_class_name.as_ref()), "runtimeClassName", ""),
        (
            filled(scheduling_gates.as_ref()),
            "schedulingGates",
            "there is no scheduler that could open the gates",
        ),
    ] {
        faults.not_yet_if(there, &path.child(field), detail);
    }

    if filled(ephemeral_containers.as_ref()) {
        let detail = "cannot be set on create: `coracle debug` adds one to a pod that is there";
        faults.forbidden(&path.child("ephemeralContainers"), detail);
    }
    check_os(os.as_ref(), path, faults);
    enable_service_links.get_or_insert(true);
    or_default(scheduler_name, "default-scheduler");

    let restart_policy = word(
        or_default(restart_policy, "Always"),
        &[
            ("Always", RestartPolicy::Always),
            ("OnFailure", RestartPolicy::OnFailure),
            ("Never", RestartPolicy::Never),
        ],
        &path.child("restartPolicy"),
        faults,
    );

    let grace = *termination_grace_period_seconds.get_or_insert(30);
    let termination_grace_period = u64::try_from(grace).map(Duration::from_secs).ok();
    if termination_grace_period.is_none() {
        let grace_path = path.child("terminationGracePeriodSeconds");
        faults.invalid_plain(&grace_path, grace, "must be greater than or equal to 0");
    }

    let active_deadline = active_deadline_seconds.and_then(|seconds| {
        let deadline = u64::try_from(seconds).ok().filter(|_| (1..=i32::MAX.into()).contains(&seconds));
        if deadline.is_none() {
            let deadline_path = path.child("activeDeadlineSeconds");
            let detail = "must be between 1 and 2147483647, inclusive";
            faults.invalid_plain(&deadline_path, seconds, detail);
        }
        deadline.map(Duration::from_secs)
    });
    let gates_path = path.child("readinessGates");
    let readiness_gates = readiness_gates.as_deref().unwrap_or_default().iter().enumerate();
    let readiness_gates = readiness_gates
        .map(|(index, v1::PodReadinessGate { condition_type })| {
            if let Err(detail) = syntax::qualified_name(condition_type) {
                faults.invalid(&gates_path.index(index).child("conditionType"), condition_type, detail);
            }
            condition_type.clone()
        })
        .collect();
    let image_pull_secrets = pull_secrets(image_pull_secrets.as_deref().unwrap_or_default(), path, faults);
    let service_account = service_account_name_of(service_account_name, service_account, path, faults);
    let priority = priority::resolve(priority, priority_class_name.as_deref(), path, faults);

    let hostname = match hostname.as_deref() {
        None | Some("") => None,
        Some(text) => {
            Name::label(text).map_err(|error| faults.invalid(&path.child("hostname"), text, error)).ok()
        }
    };

    let host = HostNamespaces {
        network: host_network.unwrap_or(false),
        pid: host_pid.unwrap_or(false),
        ipc: host_ipc.unwrap_or(false),
    };
    let share_process_namespace = share_process_namespace.unwrap_or(false);
    if share_process_namespace && host.pid {
        faults.invalid_plain(
            &path.child("shareProcessNamespace"),
            true,
            "ShareProcessNamespace and HostPID cannot both be enabled",
        );
    }

    let dns = dns::convert(
        &dns::Fields {
            policy: or_default(dns_policy, "ClusterFirst"),
            config: dns_config.as_ref(),
            host_aliases: host_aliases.as_deref().unwrap_or_default(),
            subdomain: subdomain.as_deref(),
            hostname_as_fqdn: *set_hostname_as_fqdn == Some(true),
            hostname_override: hostname_override.as_deref(),
            host_network: host.network,
        },
        path,
        faults,
    );

    let security: PodSecurity = security::pod(
        security_context.get_or_insert_with(Default::default),
        &path.child("securityContext"),
        faults,
    );

    let every = containers.iter().chain(init_containers.as_deref().unwrap_or_default());
    let all: HashSet<String> = every.map(|container| container.name.clone()).collect();
    let volumes = volume::convert_all(volumes.as_deref_mut().unwrap_or_default(), &all, path, faults);
    let mut place = container::Place {
        volumes: &volumes.names,
        all: &all,
        host,
        grace: Some(grace).filter(|grace| *grace >= 0),
        for_linux: os.is_some(),
        names: HashSet::new(),
        ports: HashSet::new(),
    };
    if containers.is_empty() {
        faults.required(&path.child("containers"), "");
    }
    // Kubernetes looks at the containers first, so that of two of one name the init container is blamed.
    let containers = container::convert_all(containers, &path.child("containers"), &mut place, faults);
    let init_containers = container::convert_init(
        init_containers.as_deref_mut().unwrap_or_default(),
        &path.child("initContainers"),
        &mut place,
        faults,
    );

    Some(PodSpec {
        init_containers: init_containers?,
        volumes: volumes.converted?,
        restart_policy: restart_policy?,
        termination_grace_period: termination_grace_period?,
        host,
        share_process_namespace,
        hostname,
        dns: dns?,
        security,
        active_deadline,
        readiness_gates,
        service_account,
        image_pull_secrets,
        priority,
        ..PodSpec::new(containers?)
    })
}

/// `serviceAccountName`, or what stands under its old name; the API server writes it under both.
fn service_account_name_of(
    name: &mut Option<String>,
    old: &mut Option<String>,
    path: &Path<'_>,
    faults: &mut Faults,
) -> String {
    let given = [&*name, &*old].into_iter().flatten().find(|name| !name.is_empty()).cloned();
    let Some(given) = given else { return String::new() };
    if let Err(error) = validate_subdomain(&given) {
        faults.invalid(&path.child("serviceAccountName"), &given, error);
    }
    *name = Some(given.clone());
    *old = Some(given.clone());
    given
}

/// As in the kubelet one without a name is passed over.
fn pull_secrets(secrets: &[v1::LocalObjectReference], path: &Path<'_>, faults: &mut Faults) -> Vec<Name> {
    let list = path.child("imagePullSecrets");
    let named = secrets.iter().enumerate().filter(|(_, secret)| !secret.name.is_empty());
    named
        .filter_map(|(index, secret)| {
            let invalid = |error| faults.invalid(&list.index(index).child("name"), &secret.name, error);
            Name::subdomain(&*secret.name).map_err(invalid).ok()
        })
        .collect()
}

fn check_os(os: Option<&v1::PodOS>, path: &Path<'_>, faults: &mut Faults) {
    let Some(v1::PodOS { name }) = os else { return };
    let (os_path, field) = (path.child("os"), "name");
    let name_path = os_path.child(field);
    match name.as_str() {
        "linux" => {}
        "windows" => faults.push(&name_path, "not supported: this is a Linux node"),
        "" => faults.required(&name_path, ""),
        other => faults.unsupported_value(&name_path, other, &["linux", "windows"]),
    }
}

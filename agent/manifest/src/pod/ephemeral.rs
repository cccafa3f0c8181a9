//! One entry of `spec.ephemeralContainers`, for a pod that is there.

use coracle_document::{Faults, Path};
use std::collections::{HashMap, HashSet};

use coracle_model::{Container, EphemeralContainer, Name, Pod};
use k8s_openapi::api::core::v1;

use super::container::{self, Place};
use super::filled;
use super::volume::VolumeKind;

/// In the API server's words: what is about a container that serves, which this one does not.
const FORBIDDEN: &str = "cannot be set for an Ephemeral Container";

/// Defaults and checks the container and takes it into the model. `path` is its own.
pub(crate) fn convert(
    ephemeral: v1::EphemeralContainer,
    pod: &Pod,
    path: &Path<'_>,
    faults: &mut Faults,
) -> Option<EphemeralContainer> {
    let (mut wire, target) = split(ephemeral, path, faults);
    let target = target.filter(|name| !name.is_empty());
    let spec = &pod.spec;
    let mut others = spec.init_containers.iter().chain(&spec.containers);
    if let Some(name) = &target
        && !others.any(|other| other.name == **name)
    {
        faults.not_found(&path.child("targetContainerName"), name);
    }
    let volumes = spec.volumes.iter().map(|volume| (volume.name.to_string(), VolumeKind::of(&volume.source)));
    let volumes: HashMap<_, _> = volumes.collect();
    let names: HashSet<_> = pod.all_containers().map(|other| other.name.to_string()).collect();
    let all = names.iter().cloned().chain([wire.name.clone()]).collect();
    let mut place = Place {
        volumes: &volumes,
        all: &all,
        host: spec.host,
        grace: i64::try_from(spec.termination_grace_period.as_secs()).ok(),
        for_linux: true,
        names,
        ports: HashSet::new(),
    };
    let converted = container::convert(&mut wire, path, &mut place, faults)?;
    Some(EphemeralContainer {
        container: Container { restart_policy: None, ..converted },
        target: target.as_deref().and_then(|name| Name::label(name).ok()),
        object: write(wire, target, path, faults)?,
    })
}

/// The fields it has in common with other containers, and its target. What it may not have is refused.
fn split(
    ephemeral: v1::EphemeralContainer,
    path: &Path<'_>,
    faults: &mut Faults,
) -> (v1::Container, Option<String>) {
    let v1::EphemeralContainer {
        args,
        command,
        env,
        env_from,
        image,
        image_pull_policy,
        lifecycle,
        liveness_probe,
        name,
        ports,
        readiness_probe,
        resize_policy,
        resources,
        restart_policy,
        restart_policy_rules,
        security_context,
        startup_probe,
        stdin,
        stdin_once,
        target_container_name,
        termination_message_path,
        termination_message_policy,
        tty,
        volume_devices,
        volume_mounts,
        working_dir,
    } = ephemeral;
    let asks = |resources: &v1::ResourceRequirements| *resources != v1::ResourceRequirements::default();
    for (there, field) in [
        (filled(ports.as_ref()), "ports"),
        (resources.as_ref().is_some_and(asks), "resources"),
        (filled(resize_policy.as_ref()), "resizePolicy"),
        (liveness_probe.is_some(), "livenessProbe"),
        (readiness_probe.is_some(), "readinessProbe"),
        (startup_probe.is_some(), "startupProbe"),
        (lifecycle.is_some(), "lifecycle"),
        (restart_policy.is_some(), "restartPolicy"),
        (filled(restart_policy_rules.as_ref()), "restartPolicyRules"),
    ] {
        faults.forbidden_if(there, &path.child(field), FORBIDDEN);
    }
    let mounts = path.child("volumeMounts");
    for (index, mount) in volume_mounts.iter().flatten().enumerate() {
        for (there, field) in [
            (filled(mount.sub_path.as_ref()), "subPath"),
            (filled(mount.sub_path_expr.as_ref()), "subPathExpr"),
        ] {
            faults.forbidden_if(there, &mounts.index(index).child(field), FORBIDDEN);
        }
    }
    let container = v1::Container {
        args,
        command,
        env,
        env_from,
        image,
        image_pull_policy,
        name,
        security_context,
        stdin,
        stdin_once,
        termination_message_path,
        termination_message_policy,
        tty,
        volume_devices,
        volume_mounts,
        working_dir,
        ..v1::Container::default()
    };
    (container, target_container_name)
}

/// The object as users are shown it, with its defaults.
fn write(
    wire: v1::Container,
    target_container_name: Option<String>,
    path: &Path<'_>,
    faults: &mut Faults,
) -> Option<String> {
    let shown = v1::EphemeralContainer {
        args: wire.args,
        command: wire.command,
        env: wire.env,
        env_from: wire.env_from,
        image: wire.image,
        image_pull_policy: wire.image_pull_policy,
        name: wire.name,
        resources: wire.resources,
        security_context: wire.security_context,
        stdin: wire.stdin,
        stdin_once: wire.stdin_once,
        target_container_name,
        termination_message_path: wire.termination_message_path,
        termination_message_policy: wire.termination_message_policy,
        tty: wire.tty,
        volume_devices: wire.volume_devices,
        volume_mounts: wire.volume_mounts,
        working_dir: wire.working_dir,
        ..v1::EphemeralContainer::default()
    };
    let refuse = |error| faults.push(path, format!("the container cannot be written as JSON: {error}"));
    serde_json::to_string(&shown).map_err(refuse).ok()
}

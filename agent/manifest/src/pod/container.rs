//! `spec.containers` and `spec.initContainers`.

use coracle_document::{Faults, Path};
use std::collections::{HashMap, HashSet};
use std::net::IpAddr;

use coracle_model::{
    Container, HostNamespaces, ImagePullPolicy, Name, Protocol, TERMINATION_MESSAGE_PATH,
    TerminationMessagePolicy,
};
use k8s_openapi::api::core::v1;

use super::volume::VolumeKind;
use super::{
    check_nul, collect, environment, filled, lifecycle, mount, or_default, port, probe, resources, restart,
    security, word,
};

/// What a container's checks need to know of its pod.
pub(super) struct Place<'a> {
    /// The pod's volumes by name.
    pub(super) volumes: &'a HashMap<String, VolumeKind>,
    /// The names of all containers.
    pub(super) all: &'a HashSet<String>,
    pub(super) host: HostNamespaces,
    /// `spec.terminationGracePeriodSeconds`; `None` when it is wrong.
    pub(super) grace: Option<i64>,
    /// `spec.os` says that the pod is for Linux.
    pub(super) for_linux: bool,
    /// Names of the containers seen so far.
    pub(super) names: HashSet<String>,
    /// Ports of the host taken so far.
    pub(super) ports: HashSet<(Protocol, Option<IpAddr>, u16)>,
}

/// `None` when one of them has a fault that leaves nothing to convert.
pub(super) fn convert_all(
    containers: &mut [v1::Container],
    list: &Path<'_>,
    place: &mut Place<'_>,
    faults: &mut Faults,
) -> Option<Vec<Container>> {
    collect(
        containers
            .iter_mut()
            .enumerate()
            .map(|(index, container)| convert(container, &list.index(index), place, faults)),
    )
}

/// Init containers run one after another and before the others: their ports do not meet. Those that end
/// have nothing that is probed, and nobody stops them.
pub(super) fn convert_init(
    containers: &mut [v1::Container],
    list: &Path<'_>,
    place: &mut Place<'_>,
    faults: &mut Faults,
) -> Option<Vec<Container>> {
    collect(containers.iter_mut().enumerate().map(|(index, container)| {
        place.ports.clear();
        let path = list.index(index);
        if container.restart_policy.as_deref() != Some("Always") {
            for (there, field) in [
                (container.lifecycle.is_some(), "lifecycle"),
                (container.liveness_probe.is_some(), "livenessProbe"),
                (container.readiness_probe.is_some(), "readinessProbe"),
                (container.startup_probe.is_some(), "startupProbe"),
            ] {
                let detail = "may not be set for init containers without restartPolicy=Always";
                faults.forbidden_if(there, &path.child(field), detail);
            }
        }
        convert(container, &path, place, faults)
    }))
}

pub(super) fn convert(
    container: &mut v1::Container,
    path: &Path<'_>,
    place: &mut Place<'_>,
    faults: &mut Faults,
) -> Option<Container> {
    let v1::Container {
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
        // Says how a running container's resources may be changed; the API for that is not there.
        resize_policy: _,
        resources,
        restart_policy,
        restart_policy_rules,
        security_context,
        startup_probe,
        stdin,
        stdin_once,
        termination_message_path,
        termination_message_policy,
        tty,
        volume_devices,
        volume_mounts,
        working_dir,
    } = container;

    faults.not_yet_if(filled(volume_devices.as_ref()), &path.child("volumeDevices"), "");

    let name = container_name(name, path, place, faults);
    let image = image_name(image.as_deref(), path, faults);
    let image_pull_policy =
        pull_policy(image_pull_policy, image.unwrap_or_default(), &path.child("imagePullPolicy"), faults);
    let command = texts(command.as_deref(), &path.child("command"), faults);
    let args = texts(args.as_deref(), &path.child("args"), faults);
    let working_dir = working_directory(working_dir.as_deref(), path, faults);
    let env_from =
        environment::convert_from(env_from.as_deref().unwrap_or_default(), &path.child("envFrom"), faults);
    let env = environment::convert(env.as_deref_mut().unwrap_or_default(), &path.child("env"), place, faults);
    let ports =
        port::convert_all(ports.as_deref_mut().unwrap_or_default(), &path.child("ports"), place, faults);
    let resources = resources::convert(resources.get_or_insert_default(), &path.child("resources"), faults);
    let security = security_context
        .as_ref()
        .map(|context| security::container(context, &path.child("securityContext"), faults))
        .unwrap_or_default();
    let volume_mounts = mount::convert_all(
        volume_mounts.as_deref().unwrap_or_default(),
        security.privileged,
        &path.child("volumeMounts"),
        place,
        faults,
    );
    let probes = probe::convert_all(
        startup_probe.as_mut(),
        liveness_probe.as_mut(),
        readiness_probe.as_mut(),
        path,
        faults,
    );
    let lifecycle = lifecycle::convert(lifecycle.as_mut(), &path.child("lifecycle"), place, faults);
    let restart = restart::convert(
        restart_policy.as_deref(),
        restart_policy_rules.as_deref().unwrap_or_default(),
        path,
        faults,
    );
    let termination_message_path =
        message_path(or_default(termination_message_path, TERMINATION_MESSAGE_PATH), path, faults);
    let termination_message_policy = word(
        or_default(termination_message_policy, "File"),
        &[
            ("FallbackToLogsOnError", TerminationMessagePolicy::FallbackToLogsOnError),
            ("File", TerminationMessagePolicy::File),
        ],
        &path.child("terminationMessagePolicy"),
        faults,
    );

    let (restart_policy, restart_rules) = restart?;
    Some(Container {
        image_pull_policy: image_pull_policy?,
        command,
        args,
        working_dir,
        env_from: env_from?,
        env: env?,
        ports: ports?,
        resources: resources?,
        volume_mounts: volume_mounts?,
        security,
        stdin: stdin.unwrap_or(false),
        stdin_once: stdin_once.unwrap_or(false),
        tty: tty.unwrap_or(false),
        termination_message_path,
        termination_message_policy: termination_message_policy?,
        probes: probes?,
        lifecycle: lifecycle?,
        restart_policy,
        restart_rules,
        ..Container::new(name?, image?)
    })
}

fn container_name(name: &str, path: &Path<'_>, place: &mut Place<'_>, faults: &mut Faults) -> Option<Name> {
    let path = path.child("name");
    if name.is_empty() {
        faults.required(&path, "");
        return None;
    }
    if !place.names.insert(name.to_owned()) {
        faults.duplicate(&path, name);
    }
    Name::label(name).map_err(|error| faults.invalid(&path, name, error)).ok()
}

fn image_name<'i>(image: Option<&'i str>, path: &Path<'_>, faults: &mut Faults) -> Option<&'i str> {
    let path = path.child("image");
    let image = image.unwrap_or_default();
    if image.is_empty() {
        faults.required(&path, "");
        return None;
    }
    if image.trim() != image {
        faults.invalid(&path, image, "must not have leading or trailing whitespace");
    }
    check_nul(image, &path, faults);
    Some(image)
}

/// When an image is pulled, with Kubernetes' default.
pub(super) fn pull_policy(
    policy: &mut Option<String>,
    image: &str,
    path: &Path<'_>,
    faults: &mut Faults,
) -> Option<ImagePullPolicy> {
    word(
        or_default(policy, default_pull_policy(image)),
        &[
            ("Always", ImagePullPolicy::Always),
            ("IfNotPresent", ImagePullPolicy::IfNotPresent),
            ("Never", ImagePullPolicy::Never),
        ],
        path,
        faults,
    )
}

/// `Always` for an image that is named by `:latest` or by no tag and no digest.
fn default_pull_policy(image: &str) -> &'static str {
    let (name, digest) = match image.split_once('@') {
        Some((name, _)) => (name, true),
        None => (image, false),
    };
    // A colon before the last slash belongs to the registry's port.
    let tag = name.rsplit('/').next().and_then(|last| last.split_once(':')).map(|(_, tag)| tag);
    match tag {
        Some("latest") => "Always",
        None if !digest => "Always",
        _ => "IfNotPresent",
    }
}

fn texts(list: Option<&[String]>, path: &Path<'_>, faults: &mut Faults) -> Option<Vec<String>> {
    let list = list.filter(|list| !list.is_empty())?;
    for (index, text) in list.iter().enumerate() {
        check_nul(text, &path.index(index), faults);
    }
    Some(list.to_vec())
}

fn working_directory(directory: Option<&str>, path: &Path<'_>, faults: &mut Faults) -> Option<String> {
    let directory = directory.filter(|directory| !directory.is_empty())?;
    let path = path.child("workingDir");
    check_nul(directory, &path, faults);
    if !directory.starts_with('/') {
        faults.invalid(&path, directory, "must be an absolute path");
    }
    Some(directory.to_owned())
}

/// A file is mounted there, as a volume is: a relative path begins at the container's root.
fn message_path(written: &str, path: &Path<'_>, faults: &mut Faults) -> String {
    let path = path.child("terminationMessagePath");
    check_nul(written, &path, faults);
    if mount::is_root(written) {
        faults.invalid(&path, written, "must not be the container's root");
    }
    mount::absolute(written)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_pull_policy_follows_the_tag() {
        for (image, policy) in [
            ("nginx", "Always"),
            ("nginx:latest", "Always"),
            ("nginx:1.27", "IfNotPresent"),
            ("localhost:5000/nginx", "Always"),
            ("localhost:5000/nginx:1", "IfNotPresent"),
            ("nginx@sha256:abc", "IfNotPresent"),
            ("nginx:latest@sha256:abc", "Always"),
        ] {
            assert_eq!(default_pull_policy(image), policy, "{image}");
        }
    }
}

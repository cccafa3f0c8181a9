//! `spec.containers` and `spec.initContainers`.

use std::collections::HashSet;
use std::net::IpAddr;
use std::path::PathBuf;

use coracle_model::{
    Container, ContainerPort, EnvValue, EnvVar, HostNamespaces, ImagePullPolicy, MountPropagation, Name,
    Protocol, TERMINATION_MESSAGE_PATH, TerminationMessagePolicy, VolumeMount,
};
use k8s_openapi::api::core::v1;

use super::{check_nul, collect, filled, resources, security, word};
use crate::error::Faults;
use crate::path::Path;
use crate::syntax;

/// What a container's checks need to know of its pod.
pub(super) struct Place<'a> {
    /// Names of the pod's volumes.
    pub(super) volumes: &'a HashSet<String>,
    pub(super) host: HostNamespaces,
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

/// Init containers run one after another and before the others: their ports do not meet.
pub(super) fn convert_init(
    containers: &mut [v1::Container],
    list: &Path<'_>,
    place: &mut Place<'_>,
    faults: &mut Faults,
) -> Option<Vec<Container>> {
    collect(containers.iter_mut().enumerate().map(|(index, container)| {
        place.ports.clear();
        convert(container, &list.index(index), place, faults)
    }))
}

fn convert(
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

    for (there, field, detail) in [
        (filled(env_from.as_ref()), "envFrom", ""),
        (lifecycle.is_some(), "lifecycle", ""),
        (liveness_probe.is_some(), "livenessProbe", ""),
        (readiness_probe.is_some(), "readinessProbe", ""),
        (restart_policy.is_some(), "restartPolicy", "sidecars and restart rules of single containers"),
        (filled(restart_policy_rules.as_ref()), "restartPolicyRules", ""),
        (startup_probe.is_some(), "startupProbe", ""),
        (filled(volume_devices.as_ref()), "volumeDevices", ""),
    ] {
        faults.not_yet_if(there, &path.child(field), detail);
    }

    let name = container_name(name, path, place, faults);
    let image = image_name(image.as_deref(), path, faults);
    let image_pull_policy = word(
        image_pull_policy.get_or_insert_with(|| default_pull_policy(image.unwrap_or_default()).to_owned()),
        &[
            ("Always", ImagePullPolicy::Always),
            ("IfNotPresent", ImagePullPolicy::IfNotPresent),
            ("Never", ImagePullPolicy::Never),
        ],
        &path.child("imagePullPolicy"),
        faults,
    );
    let command = texts(command.as_deref(), &path.child("command"), faults);
    let args = texts(args.as_deref(), &path.child("args"), faults);
    let working_dir = working_directory(working_dir.as_deref(), path, faults);
    let env = environment(env.as_deref().unwrap_or_default(), &path.child("env"), faults);
    let ports = port_list(ports.as_deref_mut().unwrap_or_default(), &path.child("ports"), place, faults);
    let resources = resources::convert(resources.get_or_insert_default(), &path.child("resources"), faults);
    let security = security_context
        .as_ref()
        .map(|context| security::container(context, &path.child("securityContext"), faults))
        .unwrap_or_default();
    let volume_mounts = mounts(
        volume_mounts.as_deref().unwrap_or_default(),
        security.privileged,
        &path.child("volumeMounts"),
        place,
        faults,
    );
    let termination_message_path = message_path(
        termination_message_path.get_or_insert_with(|| TERMINATION_MESSAGE_PATH.to_owned()),
        path,
        faults,
    );
    let termination_message_policy =
        message_policy(termination_message_policy.get_or_insert_with(|| "File".to_owned()), path, faults);

    Some(Container {
        image_pull_policy: image_pull_policy?,
        command,
        args,
        working_dir,
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

fn environment(env: &[v1::EnvVar], list: &Path<'_>, faults: &mut Faults) -> Option<Vec<EnvVar>> {
    let mut converted = Some(Vec::with_capacity(env.len()));
    for (index, variable) in env.iter().enumerate() {
        let path = list.index(index);
        let v1::EnvVar { name, value, value_from } = variable;
        let name_path = path.child("name");
        if name.is_empty() {
            faults.required(&name_path, "");
        } else if let Err(detail) = syntax::env_name(name) {
            faults.invalid(&name_path, name, detail);
        }
        if value_from.is_some() {
            faults.not_yet(&path.child("valueFrom"), "give a value");
            converted = None;
        }
        let value = value.as_deref().unwrap_or_default();
        check_nul(value, &path.child("value"), faults);
        if let Some(converted) = &mut converted {
            converted.push(EnvVar { name: name.clone(), value: EnvValue::Literal(value.to_owned()) });
        }
    }
    converted
}

fn port_list(
    ports: &mut [v1::ContainerPort],
    list: &Path<'_>,
    place: &mut Place<'_>,
    faults: &mut Faults,
) -> Option<Vec<ContainerPort>> {
    let mut names = HashSet::new();
    let mut converted = Vec::with_capacity(ports.len());
    for (index, port) in ports.iter_mut().enumerate() {
        let path = list.index(index);
        if let Some(name) = port.name.as_deref().filter(|name| !name.is_empty()) {
            let name_path = path.child("name");
            if let Err(detail) = syntax::port_name(name) {
                faults.invalid(&name_path, name, detail);
            } else if !names.insert(name.to_owned()) {
                faults.duplicate(&name_path, name);
            }
        }
        let port = container_port(port, &path, place, faults);
        converted.push(port);
    }
    collect(converted)
}

fn container_port(
    port: &mut v1::ContainerPort,
    path: &Path<'_>,
    place: &mut Place<'_>,
    faults: &mut Faults,
) -> Option<ContainerPort> {
    let v1::ContainerPort { container_port, host_ip, host_port, name, protocol } = port;
    let protocol = word(
        protocol.get_or_insert_with(|| "TCP".to_owned()),
        &[("SCTP", Protocol::Sctp), ("TCP", Protocol::Tcp), ("UDP", Protocol::Udp)],
        &path.child("protocol"),
        faults,
    );
    let container_path = path.child("containerPort");
    let number = if *container_port == 0 {
        faults.required(&container_path, "");
        None
    } else {
        port_number(*container_port, &container_path, faults)
    };
    let address = match host_ip.as_deref() {
        None | Some("") => None,
        Some(text) => text
            .parse::<IpAddr>()
            .map_err(|_| {
                let detail = "must be a valid IP address, (e.g. 10.9.8.7 or 2001:db8::ffff)";
                faults.invalid(&path.child("hostIP"), text, detail);
            })
            .ok(),
    };
    if place.host.network && host_port.unwrap_or(0) == 0 {
        *host_port = Some(*container_port);
    }
    let host_path = path.child("hostPort");
    let host_number = match *host_port {
        None | Some(0) => None,
        Some(wanted) => {
            if !place.host.network {
                faults.not_yet(
                    &host_path,
                    "hostPort needs a pod network; hostNetwork pods have their ports on the host",
                );
            } else if wanted != *container_port {
                let detail = "must match `hostPort` when `hostNetwork` is true";
                faults.invalid_plain(&container_path, *container_port, detail);
            }
            // The same number as the container's port has been judged above.
            if wanted == *container_port { number } else { port_number(wanted, &host_path, faults) }
        }
    };
    if let (Some(number), Some(protocol)) = (host_number, protocol)
        && !place.ports.insert((protocol, address, number))
    {
        let word = match protocol {
            Protocol::Tcp => "TCP",
            Protocol::Udp => "UDP",
            Protocol::Sctp => "SCTP",
        };
        let address = host_ip.as_deref().unwrap_or_default();
        faults.duplicate(&host_path, &format!("{word}/{address}/{number}"));
    }
    Some(ContainerPort {
        name: name.clone().filter(|name| !name.is_empty()),
        container_port: number?,
        host_port: host_number,
        host_ip: address,
        protocol: protocol?,
    })
}

fn port_number(number: i32, path: &Path<'_>, faults: &mut Faults) -> Option<u16> {
    match u16::try_from(number) {
        Ok(port) if port != 0 => Some(port),
        _ => {
            faults.invalid_plain(path, number, "must be between 1 and 65535, inclusive");
            None
        }
    }
}

fn mounts(
    mounts: &[v1::VolumeMount],
    privileged: bool,
    list: &Path<'_>,
    place: &Place<'_>,
    faults: &mut Faults,
) -> Option<Vec<VolumeMount>> {
    let mut targets = HashSet::new();
    let mut converted = Vec::with_capacity(mounts.len());
    for (index, mount) in mounts.iter().enumerate() {
        let path = list.index(index);
        if !mount.mount_path.is_empty() && !targets.insert(&mount.mount_path) {
            faults.invalid(&path.child("mountPath"), &mount.mount_path, "must be unique");
        }
        let mount = volume_mount(mount, privileged, &path, place, faults);
        converted.push(mount);
    }
    collect(converted)
}

fn volume_mount(
    mount: &v1::VolumeMount,
    privileged: bool,
    path: &Path<'_>,
    place: &Place<'_>,
    faults: &mut Faults,
) -> Option<VolumeMount> {
    let v1::VolumeMount {
        bind_mount_options,
        mount_path,
        mount_propagation,
        name,
        read_only,
        recursive_read_only,
        sub_path,
        sub_path_expr,
    } = mount;

    let bind_path = path.child("bindMountOptions");
    faults.not_yet_if(filled(bind_mount_options.as_ref()), &bind_path, "");
    faults.not_yet_if(filled(sub_path_expr.as_ref()), &path.child("subPathExpr"), "use subPath");
    let recursive_path = path.child("recursiveReadOnly");
    match recursive_read_only.as_deref() {
        None | Some("Disabled") => {}
        Some("Enabled" | "IfPossible") => faults.not_yet(&recursive_path, "Disabled is what this node does"),
        Some(other) => {
            faults.unsupported_value(&recursive_path, other, &["Disabled", "Enabled", "IfPossible"]);
        }
    }

    let name_path = path.child("name");
    let volume = if name.is_empty() {
        faults.required(&name_path, "");
        None
    } else if !place.volumes.contains(name) {
        faults.not_found(&name_path, name);
        None
    } else {
        // A volume whose name is no label has been reported at the volume.
        Name::label(&**name).ok()
    };

    let target_path = path.child("mountPath");
    check_nul(mount_path, &target_path, faults);
    if mount_path.is_empty() {
        faults.required(&target_path, "");
    } else if mount_path.contains(':') {
        faults.invalid(&target_path, mount_path, "must not contain ':'");
    } else if mount_path.split('/').all(|part| part.is_empty() || part == ".") {
        faults.invalid(&target_path, mount_path, "must not be the container's root");
    }

    let sub = sub_path.as_deref().filter(|sub| !sub.is_empty());
    if let Some(sub) = sub {
        let sub_path = path.child("subPath");
        check_nul(sub, &sub_path, faults);
        if let Err(detail) = syntax::descending_path(sub) {
            faults.invalid(&sub_path, sub, detail);
        }
    }

    let propagation_path = path.child("mountPropagation");
    let propagation = match mount_propagation.as_deref() {
        None => Some(MountPropagation::None),
        Some(text) => word(
            text,
            &[
                ("Bidirectional", MountPropagation::Bidirectional),
                ("HostToContainer", MountPropagation::HostToContainer),
                ("None", MountPropagation::None),
            ],
            &propagation_path,
            faults,
        ),
    };
    if propagation == Some(MountPropagation::Bidirectional) && !privileged {
        faults.forbidden(
            &propagation_path,
            "Bidirectional mount propagation is available only to privileged containers",
        );
    }

    // The kubelet takes a relative path from the container's root.
    let absolute = if mount_path.starts_with('/') { mount_path.clone() } else { format!("/{mount_path}") };
    Some(VolumeMount {
        name: volume?,
        mount_path: absolute,
        sub_path: sub.map(PathBuf::from),
        read_only: read_only.unwrap_or(false),
        propagation: propagation?,
    })
}

fn message_path(written: &str, path: &Path<'_>, faults: &mut Faults) -> String {
    if written != TERMINATION_MESSAGE_PATH {
        let detail = "termination messages; leave the field out";
        faults.not_yet(&path.child("terminationMessagePath"), detail);
    }
    written.to_owned()
}

fn message_policy(written: &str, path: &Path<'_>, faults: &mut Faults) -> Option<TerminationMessagePolicy> {
    let path = path.child("terminationMessagePolicy");
    let policy = word(
        written,
        &[
            ("FallbackToLogsOnError", TerminationMessagePolicy::FallbackToLogsOnError),
            ("File", TerminationMessagePolicy::File),
        ],
        &path,
        faults,
    )?;
    if policy == TerminationMessagePolicy::FallbackToLogsOnError {
        faults.not_yet(&path, "termination messages; leave the field out");
    }
    Some(policy)
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

//! What is read and checked, and not served by the node yet.
//!
//! A field is accepted once the node acts on it, and not before: one that was taken and ignored would be
//! a lie. Everything here is refused by name. **Whoever makes the node serve a feature deletes its line.**

use coracle_model::{ConfigKind, TERMINATION_MESSAGE_PATH};
use k8s_openapi::api::core::v1;

use crate::document::{Document, Kind};
use crate::error::{Fault, Faults};
use crate::path::{FieldPath, Path, Segment};
use crate::pod::filled;

/// A field, whether it asks for anything, and what to say beside that it is not supported yet.
type Gate<T> = (&'static str, fn(&T) -> bool, &'static str);

/// Kinds of objects.
const KINDS: &[Kind] = &[Kind::Config(ConfigKind::ConfigMap), Kind::Config(ConfigKind::Secret)];

const SPEC: &[Gate<v1::PodSpec>] = &[
    ("activeDeadlineSeconds", |it| it.active_deadline_seconds.is_some(), ""),
    ("readinessGates", |it| filled(it.readiness_gates.as_ref()), ""),
];

const POD_SECURITY: &[Gate<v1::PodSecurityContext>] = &[
    ("fsGroup", |it| it.fs_group.is_some(), "ownership of volumes"),
    (
        "supplementalGroupsPolicy",
        |it| it.supplemental_groups_policy.as_deref() == Some("Strict"),
        "Merge is what this node does",
    ),
];

const VOLUME: &[Gate<v1::Volume>] = &[
    ("configMap", |it| it.config_map.is_some(), "this node serves hostPath and emptyDir volumes"),
    ("downwardAPI", |it| it.downward_api.is_some(), "this node serves hostPath and emptyDir volumes"),
    ("projected", |it| it.projected.is_some(), "this node serves hostPath and emptyDir volumes"),
    ("secret", |it| it.secret.is_some(), "this node serves hostPath and emptyDir volumes"),
];

/// Of init containers only: `Always` makes one a sidecar.
const INIT_CONTAINER: &[Gate<v1::Container>] =
    &[("restartPolicy", |it| it.restart_policy.is_some(), "sidecars and restart rules of single containers")];

/// Of the containers that are no init containers.
const APP_CONTAINER: &[Gate<v1::Container>] =
    &[("restartPolicy", |it| it.restart_policy.is_some(), "sidecars and restart rules of single containers")];

/// Of both.
const CONTAINER: &[Gate<v1::Container>] = &[
    ("envFrom", |it| filled(it.env_from.as_ref()), ""),
    ("livenessProbe", |it| it.liveness_probe.is_some(), ""),
    ("readinessProbe", |it| it.readiness_probe.is_some(), ""),
    ("restartPolicyRules", |it| filled(it.restart_policy_rules.as_ref()), ""),
    ("startupProbe", |it| it.startup_probe.is_some(), ""),
    (
        "terminationMessagePath",
        |it| it.termination_message_path.as_deref() != Some(TERMINATION_MESSAGE_PATH),
        "termination messages; leave the field out",
    ),
    (
        "terminationMessagePolicy",
        |it| it.termination_message_policy.as_deref() == Some("FallbackToLogsOnError"),
        "termination messages; leave the field out",
    ),
];

const LIFECYCLE: &[Gate<v1::Lifecycle>] = &[
    ("postStart", |it| it.post_start.is_some(), ""),
    ("preStop", |it| it.pre_stop.is_some(), ""),
    ("stopSignal", |it| it.stop_signal.is_some(), "the image's STOPSIGNAL is sent"),
];

/// Of `env[].valueFrom`.
const VARIABLE: &[Gate<v1::EnvVarSource>] = &[
    ("configMapKeyRef", |it| it.config_map_key_ref.is_some(), "give a value"),
    ("fieldRef", |it| it.field_ref.is_some(), "give a value"),
    ("fileKeyRef", |it| it.file_key_ref.is_some(), "give a value"),
    ("resourceFieldRef", |it| it.resource_field_ref.is_some(), "give a value"),
    ("secretKeyRef", |it| it.secret_key_ref.is_some(), "give a value"),
];

/// Which kinds the node takes, for a message.
pub(crate) fn accepted_kinds() -> String {
    let served = Kind::ALL.into_iter().filter(|kind| !KINDS.contains(kind));
    let words: Vec<_> = served.map(|kind| format!("v1 {}", kind.as_str())).collect();
    format!("this node accepts {} and v1 List", words.join(", "))
}

/// Refuses a document whose kind is not served.
pub(crate) fn check_kind(document: &Document<'_>, faults: &mut Faults) {
    if KINDS.contains(&document.kind) {
        let kind = [Segment::Field("kind".to_owned())];
        let at = Some(document.node.locate(&FieldPath(kind.to_vec())));
        let path = FieldPath(document.prefix.iter().cloned().chain(kind).collect());
        let what = document.kind.as_str();
        let message = format!("{what} manifests are not supported yet: {}", accepted_kinds());
        faults.add(Fault { path, at, message });
    }
}

/// Refuses what is not served of a pod. Defaults stand in it already.
pub(crate) fn check_pod(pod: &v1::Pod, faults: &mut Faults) {
    let Some(spec) = &pod.spec else { return };
    let root = Path::ROOT;
    let path = root.child("spec");
    check(SPEC, spec, &path, faults);
    if let Some(security) = &spec.security_context {
        check(POD_SECURITY, security, &path.child("securityContext"), faults);
    }
    let volumes = path.child("volumes");
    for (index, volume) in spec.volumes.iter().flatten().enumerate() {
        check(VOLUME, volume, &volumes.index(index), faults);
    }
    let list = path.child("initContainers");
    for (index, container) in spec.init_containers.iter().flatten().enumerate() {
        check_container(INIT_CONTAINER, container, &list.index(index), faults);
    }
    let list = path.child("containers");
    for (index, container) in spec.containers.iter().enumerate() {
        check_container(APP_CONTAINER, container, &list.index(index), faults);
    }
}

fn check_container(
    gates: &[Gate<v1::Container>],
    container: &v1::Container,
    path: &Path<'_>,
    faults: &mut Faults,
) {
    check(gates, container, path, faults);
    check(CONTAINER, container, path, faults);
    if let Some(lifecycle) = &container.lifecycle {
        check(LIFECYCLE, lifecycle, &path.child("lifecycle"), faults);
    }
    let list = path.child("env");
    for (index, variable) in container.env.iter().flatten().enumerate() {
        if let Some(source) = &variable.value_from {
            check(VARIABLE, source, &list.index(index).child("valueFrom"), faults);
        }
    }
}

fn check<T>(gates: &[Gate<T>], object: &T, path: &Path<'_>, faults: &mut Faults) {
    for (field, there, detail) in gates {
        faults.not_yet_if(there(object), &path.child(field), detail);
    }
}

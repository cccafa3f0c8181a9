//! What is read and checked, and not served by the node yet.
//!
//! A field is accepted once the node acts on it, and not before: one that was taken and ignored would be
//! a lie. Everything here is refused by name. **Whoever makes the node serve a feature deletes its line.**

use coracle_model::TERMINATION_MESSAGE_PATH;
use k8s_openapi::api::core::v1;

use crate::error::Faults;
use crate::path::Path;
use crate::pod::filled;

/// A field, whether it asks for anything, and what to say beside that it is not supported yet.
type Gate<T> = (&'static str, fn(&T) -> bool, &'static str);

const SPEC: &[Gate<v1::PodSpec>] = &[
    ("activeDeadlineSeconds", |it| it.active_deadline_seconds.is_some(), ""),
    ("readinessGates", |it| filled(it.readiness_gates.as_ref()), ""),
];

/// Of init containers only: `Always` makes one a sidecar.
const INIT_CONTAINER: &[Gate<v1::Container>] =
    &[("restartPolicy", |it| it.restart_policy.is_some(), "sidecars and restart rules of single containers")];

/// Of the containers that are no init containers.
const APP_CONTAINER: &[Gate<v1::Container>] =
    &[("restartPolicy", |it| it.restart_policy.is_some(), "sidecars and restart rules of single containers")];

/// Of both.
const CONTAINER: &[Gate<v1::Container>] = &[
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

/// Refuses what is not served of a pod. Defaults stand in it already.
pub(crate) fn check_pod(pod: &v1::Pod, faults: &mut Faults) {
    let Some(spec) = &pod.spec else { return };
    let root = Path::ROOT;
    let path = root.child("spec");
    check(SPEC, spec, &path, faults);
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
}

fn check<T>(gates: &[Gate<T>], object: &T, path: &Path<'_>, faults: &mut Faults) {
    for (field, there, detail) in gates {
        faults.not_yet_if(there(object), &path.child(field), detail);
    }
}

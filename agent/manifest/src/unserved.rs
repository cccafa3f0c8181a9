//! What is read and checked, and not served by the node yet.
//!
//! A field is accepted once the node acts on it, and not before: one that was taken and ignored would be
//! a lie. Everything here is refused by name. **Whoever makes the node serve a feature deletes its line.**

use coracle_model::TERMINATION_MESSAGE_PATH;
use k8s_openapi::api::core::v1;

use crate::error::Faults;
use crate::path::Path;

/// A field, whether it asks for anything, and what to say beside that it is not supported yet.
type Gate<T> = (&'static str, fn(&T) -> bool, &'static str);

const CONTAINER: &[Gate<v1::Container>] = &[
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

/// Refuses what is not served of a pod. Defaults stand in it already.
pub(crate) fn check_pod(pod: &v1::Pod, faults: &mut Faults) {
    let Some(spec) = &pod.spec else { return };
    let root = Path::ROOT;
    let path = root.child("spec");
    let list = path.child("initContainers");
    for (index, container) in spec.init_containers.iter().flatten().enumerate() {
        check_container(container, &list.index(index), faults);
    }
    let list = path.child("containers");
    for (index, container) in spec.containers.iter().enumerate() {
        check_container(container, &list.index(index), faults);
    }
}

fn check_container(container: &v1::Container, path: &Path<'_>, faults: &mut Faults) {
    check(CONTAINER, container, path, faults);
}

fn check<T>(gates: &[Gate<T>], object: &T, path: &Path<'_>, faults: &mut Faults) {
    for (field, there, detail) in gates {
        faults.not_yet_if(there(object), &path.child(field), detail);
    }
}

//! `metadata` of a pod.

use coracle_document::{Faults, Path};
use coracle_model::{BANDWIDTH_ANNOTATIONS, PodUid, parse_bandwidth};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;

use crate::metadata::{self, Metadata};

const APP_ARMOR: &str = "container.apparmor.security.beta.kubernetes.io/";

pub(super) fn convert(
    metadata: &mut ObjectMeta,
    path: &Path<'_>,
    faults: &mut Faults,
) -> Option<(Metadata, Option<PodUid>)> {
    if metadata.deletion_timestamp.is_some() {
        faults.forbidden(&path.child("deletionTimestamp"), "a pod that is being deleted cannot be started");
    }
    let uid = match metadata.uid.as_deref() {
        None | Some("") => None,
        Some(text) => match text.parse::<PodUid>() {
            Ok(uid) => Some(uid),
            Err(_) => {
                let detail =
                    "must be 1 to 63 letters, digits, '-', '_' or '.', and begin with a letter or digit";
                faults.invalid(&path.child("uid"), text, detail);
                None
            }
        },
    };
    let metadata = metadata::convert(metadata, path, faults)?;
    let annotations_path = path.child("annotations");
    for (key, value) in &metadata.annotations {
        // The form before 1.30 of a request for confinement, still honoured by Kubernetes.
        faults.not_yet_if(
            key.starts_with(APP_ARMOR) && value != "unconfined",
            &annotations_path.key(key),
            "AppArmor profiles; leave the annotation out, or set it to unconfined",
        );
        // The kubelet says so when it starts the pod, and never starts it.
        if BANDWIDTH_ANNOTATIONS.contains(&key.as_str())
            && let Err(detail) = parse_bandwidth(value)
        {
            faults.invalid(&annotations_path.key(key), value, detail);
        }
    }
    Some((metadata, uid))
}

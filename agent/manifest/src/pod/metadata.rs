//! `metadata`.

use std::collections::BTreeMap;

use coracle_model::{Name, PodKey, PodUid};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;

use super::syntax;
use crate::error::Faults;
use crate::path::Path;

/// Kubernetes' bound on all annotations of an object together.
const ANNOTATION_BYTES: usize = 256 * 1024;

const APP_ARMOR: &str = "container.apparmor.security.beta.kubernetes.io/";

/// Who the pod is.
pub(crate) struct Metadata {
    pub(crate) key: PodKey,
    pub(crate) labels: BTreeMap<String, String>,
    pub(crate) annotations: BTreeMap<String, String>,
}

pub(super) fn convert(
    metadata: &mut ObjectMeta,
    path: &Path<'_>,
    faults: &mut Faults,
) -> Option<(Metadata, Option<PodUid>)> {
    let ObjectMeta {
        annotations,
        creation_timestamp: _,
        deletion_grace_period_seconds: _,
        deletion_timestamp,
        finalizers: _,
        generate_name,
        generation,
        labels,
        managed_fields,
        name,
        namespace,
        owner_references: _,
        resource_version: _,
        self_link,
        uid,
    } = metadata;

    // Bookkeeping of an API server, several times as large as the pod itself.
    *managed_fields = None;
    *self_link = None;
    generation.get_or_insert(1);

    if deletion_timestamp.is_some() {
        faults.forbidden(&path.child("deletionTimestamp"), "a pod that is being deleted cannot be started");
    }

    let name_path = path.child("name");
    let name = match name.as_deref() {
        None | Some("") if generate_name.is_some() => {
            faults.required(&name_path, "generateName is resolved by an API server; give a name");
            None
        }
        None | Some("") => {
            faults.required(&name_path, "name or generateName is required");
            None
        }
        Some(name) => Name::subdomain(name).map_err(|error| faults.invalid(&name_path, name, error)).ok(),
    };

    if namespace.as_deref().unwrap_or_default().is_empty() {
        *namespace = Some("default".to_owned());
    }
    let namespace = namespace.as_deref().unwrap_or_default();
    let namespace = Name::label(namespace)
        .map_err(|error| faults.invalid(&path.child("namespace"), namespace, error))
        .ok();

    let uid = match uid.as_deref() {
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

    let labels_path = path.child("labels");
    let labels = labels.clone().unwrap_or_default();
    for (key, value) in &labels {
        if let Err(error) = syntax::qualified_name(key) {
            faults.invalid(&labels_path, key, error);
        }
        if let Err(error) = syntax::label_value(value) {
            faults.invalid(&labels_path, value, error);
        }
    }

    let annotations_path = path.child("annotations");
    let annotations = annotations.clone().unwrap_or_default();
    for (key, value) in &annotations {
        // The form before 1.30 of a request for confinement, still honoured by Kubernetes.
        faults.not_yet_if(
            key.starts_with(APP_ARMOR) && value != "unconfined",
            &annotations_path.key(key),
            "AppArmor profiles; leave the annotation out, or set it to unconfined",
        );
        // Unlike a label's, an annotation's key is compared in lower case.
        if let Err(error) = syntax::qualified_name(&key.to_lowercase()) {
            faults.invalid(&annotations_path, key, error);
        }
    }
    if annotations.iter().map(|(key, value)| key.len() + value.len()).sum::<usize>() > ANNOTATION_BYTES {
        faults.push(&annotations_path, format!("Too long: may not be more than {ANNOTATION_BYTES} bytes"));
    }

    let key = PodKey { namespace: namespace?, name: name? };
    Some((Metadata { key, labels, annotations }, uid))
}

//! `metadata`, as every kind of object has it.

use coracle_document::{Faults, Path};
use std::collections::BTreeMap;

use coracle_model::Name;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;

use crate::syntax;

/// Kubernetes' bound on all annotations of an object together.
const ANNOTATION_BYTES: usize = 256 * 1024;

/// Who an object is.
pub(crate) struct Metadata {
    pub(crate) namespace: Name,
    pub(crate) name: Name,
    pub(crate) labels: BTreeMap<String, String>,
    pub(crate) annotations: BTreeMap<String, String>,
}

/// Defaults in place and checks what the API server checks of any object with a namespace. Not `uid` and
/// `deletionTimestamp`, which mean something for some kinds only.
pub(crate) fn convert(metadata: &mut ObjectMeta, path: &Path<'_>, faults: &mut Faults) -> Option<Metadata> {
    let ObjectMeta {
        annotations,
        creation_timestamp: _,
        deletion_grace_period_seconds: _,
        deletion_timestamp: _,
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
        uid: _,
    } = metadata;

    // Bookkeeping of an API server, several times as large as a pod itself.
    *managed_fields = None;
    *self_link = None;
    generation.get_or_insert(1);

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
    for key in annotations.keys() {
        // Unlike a label's, an annotation's key is compared in lower case.
        if let Err(error) = syntax::qualified_name(&key.to_lowercase()) {
            faults.invalid(&annotations_path, key, error);
        }
    }
    if annotations.iter().map(|(key, value)| key.len() + value.len()).sum::<usize>() > ANNOTATION_BYTES {
        faults.too_long(&annotations_path, ANNOTATION_BYTES);
    }

    Some(Metadata { namespace: namespace?, name: name?, labels, annotations })
}

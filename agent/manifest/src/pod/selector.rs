//! `fieldRef` and `resourceFieldRef`: what a pod is told of itself.

use coracle_document::{Faults, Path};
use std::collections::HashSet;

use coracle_model::{Name, PodField, Quantity, ResourceField};
use k8s_openapi::api::core::v1;

use super::or_default;
use crate::syntax;

/// Where the answer goes: not everything may be told everywhere.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Place {
    Variable,
    File,
}

/// Fields that the API knows by path, and of which neither a variable nor a file is made.
const OTHERS: [&str; 3] = ["spec.restartPolicy", "spec.schedulerName", "status.phase"];

/// In the order of Kubernetes' messages.
const VARIABLES: [(&str, PodField); 9] = [
    ("metadata.name", PodField::Name),
    ("metadata.namespace", PodField::Namespace),
    ("metadata.uid", PodField::Uid),
    ("spec.nodeName", PodField::NodeName),
    ("spec.serviceAccountName", PodField::ServiceAccountName),
    ("status.hostIP", PodField::HostIp),
    ("status.hostIPs", PodField::HostIps),
    ("status.podIP", PodField::PodIp),
    ("status.podIPs", PodField::PodIps),
];
const FILES: [(&str, PodField); 5] = [
    ("metadata.annotations", PodField::Annotations),
    ("metadata.labels", PodField::Labels),
    ("metadata.name", PodField::Name),
    ("metadata.namespace", PodField::Namespace),
    ("metadata.uid", PodField::Uid),
];

const RESOURCES: [&str; 6] = [
    "limits.cpu",
    "limits.ephemeral-storage",
    "limits.memory",
    "requests.cpu",
    "requests.ephemeral-storage",
    "requests.memory",
];

/// What amounts of bytes are divided by: 1 and the powers of 1000 and 1024 that have a suffix.
const BYTES: &str = "1, 1k, 1M, 1G, 1T, 1P, 1E, 1Ki, 1Mi, 1Gi, 1Ti, 1Pi, 1Ei";

pub(super) fn field(
    selector: &mut v1::ObjectFieldSelector,
    place: Place,
    path: &Path<'_>,
    faults: &mut Faults,
) -> Option<PodField> {
    let v1::ObjectFieldSelector { api_version, field_path } = selector;
    let version = or_default(api_version, "v1");
    let written = path.child("fieldPath");
    if field_path.is_empty() {
        faults.required(&written, "");
        return None;
    }
    let mut unknown = |detail: &str| {
        faults.invalid(&written, field_path, format_args!("error converting fieldPath: {detail}"));
        None
    };
    if version != "v1" {
        return unknown(&format!("unsupported pod version: {version}"));
    }
    if let Some((map, key)) = subscript(field_path) {
        let checked = match map {
            "metadata.labels" => syntax::qualified_name(key),
            // Kubernetes compares the keys of annotations in lower case.
            "metadata.annotations" => syntax::qualified_name(&key.to_lowercase()),
            _ => return unknown(&format!("field label does not support subscript: {field_path}")),
        };
        return match checked {
            Ok(()) if map == "metadata.labels" => Some(PodField::Label(key.to_owned())),
            Ok(()) => Some(PodField::Annotation(key.to_owned())),
            Err(detail) => {
                faults.invalid(path, key, detail);
                None
            }
        };
    }
    // The name that spec.nodeName had before v1 was v1.
    let field = if field_path == "spec.host" { "spec.nodeName" } else { field_path.as_str() };
    let mut every = VARIABLES.iter().chain(&FILES).map(|(name, _)| *name).chain(OTHERS);
    if !every.any(|name| name == field) {
        return unknown(&format!("field label not supported: {field_path}"));
    }
    let allowed = match place {
        Place::Variable => &VARIABLES[..],
        Place::File => &FILES[..],
    };
    let found = allowed.iter().find(|(name, _)| *name == field).map(|(_, field)| field.clone());
    if found.is_none() {
        let names: Vec<_> = allowed.iter().map(|(name, _)| *name).collect();
        faults.unsupported_value(&written, field, &names);
    }
    found
}

/// `metadata.labels['app']` as `metadata.labels` and `app`.
fn subscript(path: &str) -> Option<(&str, &str)> {
    path.strip_suffix("']")?.split_once("['").filter(|(map, _)| !map.is_empty())
}

/// `containers` are the names of the pod's.
pub(super) fn resource(
    selector: &v1::ResourceFieldSelector,
    place: Place,
    containers: &HashSet<String>,
    path: &Path<'_>,
    faults: &mut Faults,
) -> Option<ResourceField> {
    let v1::ResourceFieldSelector { container_name, divisor, resource } = selector;
    let container = container_name.as_deref().filter(|name| !name.is_empty());
    let name_path = path.child("containerName");
    let container = match container {
        None if place == Place::File => {
            faults.required(&name_path, "");
            None
        }
        None => Some(None),
        // Kubernetes notices when it starts the container, and tries again for ever.
        Some(name) if !containers.contains(name) => {
            faults.not_found(&name_path, name);
            None
        }
        // A container whose name is no label has been reported at the container.
        Some(name) => Name::label(name).ok().map(Some),
    };
    let amount = match resource.split_once('.') {
        _ if resource.is_empty() => {
            faults.required(&path.child("resource"), "");
            None
        }
        Some((list @ ("limits" | "requests"), name))
            if name.starts_with("hugepages-") || RESOURCES.contains(&resource.as_str()) =>
        {
            Some((list == "limits", name))
        }
        _ => {
            faults.unsupported_value(&path.child("resource"), resource, &RESOURCES);
            None
        }
    };
    let divisor_path = path.child("divisor");
    let divisor = match divisor.as_ref().map(|text| (text, text.0.parse::<Quantity>())) {
        None => Some(Quantity::from_units(1)),
        Some((text, Err(error))) => {
            faults.invalid(&divisor_path, &text.0, error);
            None
        }
        Some((_, Ok(divisor))) if divisor.is_zero() => Some(Quantity::from_units(1)),
        Some((_, Ok(divisor))) => match amount.map(|(_, name)| refused_divisor(name, divisor)) {
            Some(Some(detail)) => {
                faults.invalid(&divisor_path, resource, detail);
                None
            }
            _ => Some(divisor),
        },
    };
    let (limit, name) = amount?;
    Some(ResourceField { container: container?, limit, resource: name.to_owned(), divisor: divisor? })
}

/// What Kubernetes says of a divisor it does not take for a resource.
fn refused_divisor(resource: &str, divisor: Quantity) -> Option<String> {
    let of_cpu = [1, 1000].map(Quantity::from_milli).contains(&divisor);
    let power = |base: u64| (0..=6).any(|exponent| divisor == Quantity::from_units(base.pow(exponent)));
    let of_bytes = power(1000) || power(1024);
    let what = match resource {
        "cpu" if of_cpu => return None,
        "cpu" => {
            return Some("only divisor's values 1m and 1 are supported with the cpu resource".to_owned());
        }
        _ if of_bytes => return None,
        "memory" => "memory",
        "ephemeral-storage" => "local ephemeral storage",
        _ => "hugepages",
    };
    Some(format!("only divisor's values {BYTES} are supported with the {what} resource"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn subscripts() {
        assert_eq!(subscript("metadata.labels['a']"), Some(("metadata.labels", "a")));
        assert_eq!(subscript("a['b']['c']"), Some(("a", "b']['c")));
        for other in ["metadata.labels", "['a']", "a['b'", "a[b]", "a'b']"] {
            assert_eq!(subscript(other), None, "{other}");
        }
    }

    #[test]
    fn divisors() {
        for (resource, good, bad) in [
            ("cpu", &["1", "1m", "1000m"][..], &["2", "10m", "1k"][..]),
            ("memory", &["1", "1k", "1E", "1Ki", "1Ei"], &["1m", "2", "10", "2Ki"]),
            ("hugepages-2Mi", &["1Mi"], &["2Mi"]),
        ] {
            for text in good {
                assert_eq!(refused_divisor(resource, text.parse().unwrap()), None, "{resource} {text}");
            }
            for text in bad {
                assert!(refused_divisor(resource, text.parse().unwrap()).is_some(), "{resource} {text}");
            }
        }
    }
}

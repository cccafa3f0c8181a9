//! Where variables and files come from, in kubectl's words. Values of objects are not shown.

use std::collections::BTreeMap;

use coracle_model::Quantity;
use coracle_server::client::{Container, EnvVarSource, Pod, ResourceFieldRef, Volume};
use serde_json::Value;

/// The objects whose every key is a variable, a line each, in columns.
pub(super) fn environment_from(container: &Container) -> Vec<String> {
    let rows: Vec<[String; 3]> = container
        .env_from
        .iter()
        .map(|from| {
            let (kind, object) = match (&from.config_map_ref, &from.secret_ref) {
                (Some(map), _) => ("ConfigMap", map.clone()),
                (None, secret) => ("Secret", secret.clone().unwrap_or_default()),
            };
            let prefix = match from.prefix.as_str() {
                "" => String::new(),
                prefix => format!(" with prefix '{prefix}'"),
            };
            [object.name, format!("{kind}{prefix}"), format!("Optional: {}", object.optional)]
        })
        .collect();
    let width = |column: usize| rows.iter().map(|row| row[column].len()).max().unwrap_or_default() + 2;
    let (first, second) = (width(0), width(1));
    rows.iter().map(|[name, kind, optional]| format!("{name:<first$}{kind:<second$}{optional}")).collect()
}

/// The variables, each with its value or where that comes from.
pub(super) fn environment<'a>(pod: &Pod, container: &'a Container) -> Vec<(&'a str, String)> {
    let value = |source: &EnvVarSource| {
        if let Some(field) = &source.field_ref {
            format!("{} ({}:{})", of_pod(pod, &field.field_path), field.api_version, field.field_path)
        } else if let Some(field) = &source.resource_field_ref {
            format!("{} ({})", of_container(container, field), field.resource)
        } else if let Some(key) = &source.secret_key_ref {
            format!("<set to the key '{}' in secret '{}'>  Optional: {}", key.key, key.name, key.optional)
        } else if let Some(key) = &source.config_map_key_ref {
            format!("<set to the key '{}' of config map '{}'>  Optional: {}", key.key, key.name, key.optional)
        } else if let Some(file) = &source.file_key_ref {
            format!(
                "<set to the key '{}' of file '{}' in volume '{}'>  Optional: {}",
                file.key, file.path, file.volume_name, file.optional
            )
        } else {
            String::new()
        }
    };
    let variables = container.env.iter().map(|variable| {
        (variable.name.as_str(), variable.value_from.as_ref().map_or_else(|| variable.value.clone(), value))
    });
    variables.collect()
}

/// What of the pod's metadata a field is; what else it may be is not known before it runs.
fn of_pod(pod: &Pod, path: &str) -> String {
    let metadata = &pod.metadata;
    let entry = |map: &BTreeMap<String, String>, prefix: &str| {
        let key = path.strip_prefix(prefix)?.strip_prefix("['")?.strip_suffix("']")?;
        map.get(key).cloned()
    };
    match path {
        "metadata.name" => metadata.name.clone(),
        "metadata.namespace" => metadata.namespace.clone(),
        "metadata.uid" => metadata.uid.clone(),
        _ => entry(&metadata.labels, "metadata.labels")
            .or_else(|| entry(&metadata.annotations, "metadata.annotations"))
            .unwrap_or_default(),
    }
}

/// The amount, divided; where the container has no limit, whose it is then.
fn of_container(container: &Container, field: &ResourceFieldRef) -> String {
    let (list, name) = match field.resource.split_once('.') {
        Some(("limits", name)) => (&container.resources.limits, name),
        Some(("requests", name)) => (&container.resources.requests, name),
        _ => return String::new(),
    };
    let quantity = |text: &str| text.parse::<Quantity>().ok().filter(|amount| !amount.is_zero());
    let amount = list.get(name).and_then(Value::as_str).and_then(quantity);
    match amount {
        Some(amount) => {
            let divisor = quantity(&field.divisor).unwrap_or(Quantity::from_units(1));
            amount.divide(divisor, name == "cpu").to_string()
        }
        None if field.resource.starts_with("limits.") => "node allocatable".to_owned(),
        None => "0".to_owned(),
    }
}

/// Whether a volume is made of configuration.
pub(super) fn is_source(volume: &Volume) -> bool {
    volume.config_map.is_some()
        || volume.secret.is_some()
        || volume.downward_api.is_some()
        || volume.projected.is_some()
}

/// What it is made of.
pub(super) fn volume(volume: &Volume) -> Vec<(&'static str, String)> {
    if let Some(map) = &volume.config_map {
        return vec![
            ("Type", "ConfigMap (a volume populated by a ConfigMap)".to_owned()),
            ("Name", map.name.clone()),
            ("Optional", map.optional.to_string()),
        ];
    }
    if let Some(secret) = &volume.secret {
        return vec![
            ("Type", "Secret (a volume populated by a Secret)".to_owned()),
            ("SecretName", secret.secret_name.clone()),
            ("Optional", secret.optional.to_string()),
        ];
    }
    if let Some(downward) = &volume.downward_api {
        let items = downward.items.iter().map(|file| {
            let of = file.field_ref.as_ref().map(|field| field.field_path.as_str());
            let of = of.or(file.resource_field_ref.as_ref().map(|field| field.resource.as_str()));
            format!("{} -> {}", of.unwrap_or_default(), file.path)
        });
        let kind = "DownwardAPI (a volume populated by information about the pod)".to_owned();
        return vec![("Type", kind), ("Items", items.collect::<Vec<_>>().join("\n"))];
    }
    let kind = "Projected (a volume that contains injected data from multiple sources)".to_owned();
    let mut fields = vec![("Type", kind)];
    for source in volume.projected.iter().flat_map(|projected| &projected.sources) {
        let object = match (&source.secret, &source.config_map) {
            (Some(secret), _) => Some(("SecretName", secret)),
            (None, map) => map.as_ref().map(|map| ("ConfigMapName", map)),
        };
        if let Some((title, object)) = object {
            fields.push((title, object.name.clone()));
            fields.push(("Optional", object.optional.to_string()));
        }
        if source.downward_api.is_some() {
            fields.push(("DownwardAPI", true.to_string()));
        }
    }
    fields
}

//! A container's variables.

use coracle_image::EnvEntry;
use coracle_model::{ConfigKind, Container, EnvFrom, EnvValue, FileKeySelector, KeySelector, env_file_value};
use coracle_pod::ports::Failure;

use super::{ReadFile, Sources, field, resource};

/// The container's `envFrom` and `env` with the values their sources give now. A later entry of one name
/// counts. Only literal values are still to be expanded.
pub(in super::super) fn resolve(
    container: &Container,
    sources: Sources<'_>,
    read_file: ReadFile<'_>,
) -> Result<Vec<EnvEntry>, Failure> {
    let failed = |message: String| Failure::new("CreateContainerConfigError", message);
    let mut entries = Vec::new();
    for from in &container.env_from {
        entries.extend(every_key(from, sources).map_err(failed)?);
    }
    for variable in &container.env {
        let name = variable.name.clone();
        let value = match &variable.value {
            EnvValue::Literal(value) => {
                entries.push(EnvEntry { name, value: value.clone(), expand: true });
                continue;
            }
            EnvValue::Field(of_pod) => field::value(of_pod, sources).map(Some),
            EnvValue::Resource(of_container) => resource::value(of_container, container, sources).map(Some),
            EnvValue::ConfigMapKey(selector) => key(ConfigKind::ConfigMap, selector, sources),
            EnvValue::SecretKey(selector) => key(ConfigKind::Secret, selector, sources),
            EnvValue::FileKey(selector) => file_key(selector, read_file),
        };
        if let Some(value) = value.map_err(failed)? {
            entries.push(EnvEntry { name, value, expand: false });
        }
    }
    Ok(entries)
}

/// One variable for every key of an object. `binaryData` of a ConfigMap gives none.
fn every_key(from: &EnvFrom, sources: Sources<'_>) -> Result<Vec<EnvEntry>, String> {
    let Some(object) = sources.object(from.kind, &from.name, from.optional)? else {
        return Ok(Vec::new());
    };
    let entry = |(key, value): (&String, &std::sync::Arc<[u8]>)| {
        let value =
            text(value).map_err(|problem| unusable(key, from.kind, from.name.as_str(), sources, problem))?;
        Ok(EnvEntry { name: format!("{}{key}", from.prefix), value, expand: false })
    };
    object.data.iter().map(entry).collect()
}

fn key(kind: ConfigKind, selector: &KeySelector, sources: Sources<'_>) -> Result<Option<String>, String> {
    let Some(object) = sources.object(kind, &selector.name, selector.optional)? else { return Ok(None) };
    match object.data.get(&selector.key) {
        Some(value) => text(value)
            .map(Some)
            .map_err(|problem| unusable(&selector.key, kind, selector.name.as_str(), sources, problem)),
        None if selector.optional => Ok(None),
        None => Err(format!(
            "couldn't find key {} in {} {}/{}",
            selector.key,
            kind.as_str(),
            sources.pod.key.namespace,
            selector.name
        )),
    }
}

fn file_key(selector: &FileKeySelector, read_file: ReadFile<'_>) -> Result<Option<String>, String> {
    let FileKeySelector { volume, path, key, optional } = selector;
    let Some(content) = read_file(selector)? else {
        return match optional {
            true => Ok(None),
            false => Err(format!("couldn't parse env file: there is no file {path:?} in volume {volume:?}")),
        };
    };
    let found = text(&content)
        .map_err(str::to_owned)
        .and_then(|content| env_file_value(&content, key))
        .map_err(|problem| format!("couldn't parse env file: {path:?} in volume {volume:?}: {problem}"))?;
    if found.is_none() && !optional {
        return Err(format!(
            "environment variable key {key:?} not found in file {path:?} of volume {volume:?}"
        ));
    }
    Ok(found)
}

fn unusable(key: &str, kind: ConfigKind, name: &str, sources: Sources<'_>, problem: &str) -> String {
    format!(
        "key {key} in {} {}/{name} cannot be a variable: {problem}",
        kind.as_str(),
        sources.pod.key.namespace
    )
}

/// What `execve(2)` takes, and a runtime's interface.
fn text(value: &[u8]) -> Result<String, &'static str> {
    if value.contains(&0) {
        return Err("its value holds a NUL byte");
    }
    std::str::from_utf8(value).map(str::to_owned).map_err(|_| "its value is not UTF-8 text")
}

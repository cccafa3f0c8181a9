//! `env` and `envFrom` of a container.

use coracle_document::{Faults, Path};
use coracle_model::{ConfigKind, EnvFrom, EnvValue, EnvVar, FileKeySelector, KeySelector, Name};
use k8s_openapi::api::core::v1;

use super::container::Place;
use super::selector::{self, Place as Told};
use super::volume::VolumeKind;
use super::{check_nul, collect};
use crate::syntax;

pub(super) fn convert(
    env: &mut [v1::EnvVar],
    list: &Path<'_>,
    place: &Place<'_>,
    faults: &mut Faults,
) -> Option<Vec<EnvVar>> {
    collect(env.iter_mut().enumerate().map(|(index, variable)| {
        let path = list.index(index);
        let v1::EnvVar { name, value, value_from } = variable;
        let name_path = path.child("name");
        if name.is_empty() {
            faults.required(&name_path, "");
        } else if let Err(detail) = syntax::env_name(name) {
            faults.invalid(&name_path, name, detail);
        }
        let text = value.as_deref().unwrap_or_default();
        let value = match value_from {
            Some(source) => {
                value_from_source(source, !text.is_empty(), &path.child("valueFrom"), place, faults)?
            }
            None => {
                check_nul(text, &path.child("value"), faults);
                EnvValue::Literal(text.to_owned())
            }
        };
        Some(EnvVar { name: name.clone(), value })
    }))
}

fn value_from_source(
    source: &mut v1::EnvVarSource,
    has_value: bool,
    path: &Path<'_>,
    place: &Place<'_>,
    faults: &mut Faults,
) -> Option<EnvValue> {
    let v1::EnvVarSource { config_map_key_ref, field_ref, file_key_ref, resource_field_ref, secret_key_ref } =
        source;
    let mut sources = Vec::new();
    if let Some(selector) = field_ref {
        let field = selector::field(selector, Told::Variable, &path.child("fieldRef"), faults);
        sources.push(field.map(EnvValue::Field));
    }
    if let Some(selector) = resource_field_ref {
        let path = path.child("resourceFieldRef");
        let resource = selector::resource(selector, Told::Variable, place.all, &path, faults);
        sources.push(resource.map(EnvValue::Resource));
    }
    if let Some(v1::ConfigMapKeySelector { key, name, optional }) = config_map_key_ref {
        let selected = object_key(name, key, *optional, &path.child("configMapKeyRef"), faults);
        sources.push(selected.map(EnvValue::ConfigMapKey));
    }
    if let Some(v1::SecretKeySelector { key, name, optional }) = secret_key_ref {
        let selected = object_key(name, key, *optional, &path.child("secretKeyRef"), faults);
        sources.push(selected.map(EnvValue::SecretKey));
    }
    if let Some(selector) = file_key_ref {
        let selected = file_key(selector, &path.child("fileKeyRef"), place, faults);
        sources.push(selected.map(EnvValue::FileKey));
    }
    let refuse = |faults: &mut Faults, detail: &str| {
        faults.invalid(path, "", detail);
        None
    };
    match sources.len() {
        0 => refuse(
            faults,
            "must specify one of: `fieldRef`, `resourceFieldRef`, `configMapKeyRef`, `secretKeyRef` or `fileKeyRef`",
        ),
        _ if has_value => refuse(faults, "may not be specified when `value` is not empty"),
        1 => sources.pop().flatten(),
        _ => refuse(faults, "may not have more than one field specified at a time"),
    }
}

fn object_key(
    name: &str,
    key: &str,
    optional: Option<bool>,
    path: &Path<'_>,
    faults: &mut Faults,
) -> Option<KeySelector> {
    let name = Name::subdomain(name).map_err(|error| faults.invalid(&path.child("name"), name, error)).ok();
    let key_path = path.child("key");
    if key.is_empty() {
        faults.required(&key_path, "");
    } else if let Err(detail) = syntax::config_key(key) {
        faults.invalid(&key_path, key, detail);
    }
    Some(KeySelector { name: name?, key: key.to_owned(), optional: optional.unwrap_or(false) })
}

fn file_key(
    selector: &v1::FileKeySelector,
    path: &Path<'_>,
    place: &Place<'_>,
    faults: &mut Faults,
) -> Option<FileKeySelector> {
    let v1::FileKeySelector { key, optional, path: file, volume_name } = selector;
    let key_path = path.child("key");
    if key.is_empty() {
        faults.required(&key_path, "");
    } else if let Err(detail) = syntax::env_name(key) {
        faults.invalid(&key_path, key, detail);
    }
    let file_path = path.child("path");
    check_nul(file, &file_path, faults);
    if file.is_empty() {
        faults.required(&file_path, "");
    } else if let Err(detail) = syntax::local_path(file) {
        faults.invalid(&file_path, file, detail);
    }
    let volume_path = path.child("volumeName");
    let volume = match place.volumes.get(volume_name) {
        _ if volume_name.is_empty() => {
            faults.required(&volume_path, "");
            None
        }
        None => {
            faults.not_found(&volume_path, volume_name);
            None
        }
        Some(kind) if *kind != VolumeKind::EmptyDir => {
            faults.invalid(&volume_path, volume_name, "the volume must be an emptyDir");
            None
        }
        // A volume whose name is no label has been reported at the volume.
        Some(_) => Name::label(&**volume_name).ok(),
    };
    Some(FileKeySelector {
        volume: volume?,
        path: file.clone(),
        key: key.clone(),
        optional: optional.unwrap_or(false),
    })
}

pub(super) fn convert_from(
    sources: &[v1::EnvFromSource],
    list: &Path<'_>,
    faults: &mut Faults,
) -> Option<Vec<EnvFrom>> {
    collect(sources.iter().enumerate().map(|(index, source)| {
        let path = list.index(index);
        let v1::EnvFromSource { config_map_ref, prefix, secret_ref } = source;
        let prefix = prefix.as_deref().unwrap_or_default();
        if let Err(detail) = syntax::env_name(prefix) {
            faults.invalid(&path.child("prefix"), prefix, detail);
        }
        let config_map = config_map_ref.as_ref().map(|source| {
            let v1::ConfigMapEnvSource { name, optional } = source;
            (ConfigKind::ConfigMap, "configMapRef", name, optional)
        });
        let secret = secret_ref.as_ref().map(|source| {
            let v1::SecretEnvSource { name, optional } = source;
            (ConfigKind::Secret, "secretRef", name, optional)
        });
        let mut objects = config_map.into_iter().chain(secret).map(|(kind, field, name, optional)| {
            let name = object_name(name, &path.child(field).child("name"), faults)?;
            Some(EnvFrom { prefix: prefix.to_owned(), kind, name, optional: optional.unwrap_or(false) })
        });
        let (first, second) = (objects.next(), objects.next());
        match (first, second) {
            (Some(only), None) => only,
            (None, _) => {
                faults.invalid(&path, "", "must specify one of: `configMapRef` or `secretRef`");
                None
            }
            (Some(_), Some(_)) => {
                faults.invalid(&path, "", "may not have more than one field specified at a time");
                None
            }
        }
    }))
}

/// The name of a ConfigMap or Secret.
pub(super) fn object_name(name: &str, path: &Path<'_>, faults: &mut Faults) -> Option<Name> {
    if name.is_empty() {
        faults.required(path, "");
        return None;
    }
    Name::subdomain(name).map_err(|error| faults.invalid(path, name, error)).ok()
}

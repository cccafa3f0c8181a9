//! Volumes whose files the node writes: `configMap`, `secret`, `downwardAPI` and `projected`.

use coracle_document::{Faults, Path};
use std::collections::HashSet;

use coracle_model::{
    ConfigKind, DownwardFile, DownwardValue, KeyToPath, ProjectedVolume, Projection, VolumeSource,
};
use k8s_openapi::api::core::v1;

use super::environment::object_name;
use super::selector::{self, Place};
use super::{check_nul, collect};
use crate::syntax;

const DEFAULT_MODE: i32 = 0o644;

pub(super) fn config_map(
    source: &mut v1::ConfigMapVolumeSource,
    path: &Path<'_>,
    faults: &mut Faults,
) -> Option<VolumeSource> {
    let v1::ConfigMapVolumeSource { default_mode, default_user, items, name, optional } = source;
    let default_mode = defaults(default_mode, *default_user, path, faults);
    let name = object_name(name, &path.child("name"), faults);
    let items = key_items(items.as_deref(), path, None, faults);
    let optional = optional.unwrap_or(false);
    let object = Projection::Object { kind: ConfigKind::ConfigMap, name: name?, items: items?, optional };
    volume(default_mode, vec![object])
}

pub(super) fn secret(
    source: &mut v1::SecretVolumeSource,
    path: &Path<'_>,
    faults: &mut Faults,
) -> Option<VolumeSource> {
    let v1::SecretVolumeSource { default_mode, default_user, items, optional, secret_name } = source;
    let default_mode = defaults(default_mode, *default_user, path, faults);
    let name = object_name(secret_name.as_deref().unwrap_or_default(), &path.child("secretName"), faults);
    let items = key_items(items.as_deref(), path, None, faults);
    let optional = optional.unwrap_or(false);
    let object = Projection::Object { kind: ConfigKind::Secret, name: name?, items: items?, optional };
    volume(default_mode, vec![object])
}

pub(super) fn downward_api(
    source: &mut v1::DownwardAPIVolumeSource,
    containers: &HashSet<String>,
    path: &Path<'_>,
    faults: &mut Faults,
) -> Option<VolumeSource> {
    let v1::DownwardAPIVolumeSource { default_mode, default_user, items } = source;
    let default_mode = defaults(default_mode, *default_user, path, faults);
    let files = downward_items(items.as_deref_mut(), containers, path, None, faults);
    volume(default_mode, vec![Projection::Downward(files?)])
}

pub(super) fn projected(
    source: &mut v1::ProjectedVolumeSource,
    containers: &HashSet<String>,
    path: &Path<'_>,
    faults: &mut Faults,
) -> Option<VolumeSource> {
    let v1::ProjectedVolumeSource { default_mode, default_user, sources } = source;
    let default_mode = defaults(default_mode, *default_user, path, faults);
    let list = path.child("sources");
    let mut taken = HashSet::new();
    let sources = sources.as_deref_mut().unwrap_or_default().iter_mut().enumerate();
    let sources = collect(
        sources.map(|(index, source)| projection(source, containers, &list.index(index), &mut taken, faults)),
    );
    // A source may be empty; then there is nothing of it.
    volume(default_mode, sources?.into_iter().flatten().collect())
}

fn projection(
    source: &mut v1::VolumeProjection,
    containers: &HashSet<String>,
    path: &Path<'_>,
    taken: &mut HashSet<String>,
    faults: &mut Faults,
) -> Option<Option<Projection>> {
    let v1::VolumeProjection {
        cluster_trust_bundle,
        config_map,
        downward_api,
        pod_certificate,
        secret,
        service_account_token,
    } = source;
    let mut found = Vec::new();
    if let Some(v1::SecretProjection { items, name, optional }) = secret {
        let path = path.child("secret");
        found.push(object(ConfigKind::Secret, name, items.as_deref(), *optional, &path, taken, faults));
    }
    if let Some(v1::ConfigMapProjection { items, name, optional }) = config_map {
        let path = path.child("configMap");
        found.push(object(ConfigKind::ConfigMap, name, items.as_deref(), *optional, &path, taken, faults));
    }
    if let Some(v1::DownwardAPIProjection { items }) = downward_api {
        let path = path.child("downwardAPI");
        let files = downward_items(items.as_deref_mut(), containers, &path, Some(taken), faults);
        found.push(files.map(Projection::Downward));
    }
    for (there, field, detail) in [
        (cluster_trust_bundle.is_some(), "clusterTrustBundle", "no API server is joined that could have one"),
        (pod_certificate.is_some(), "podCertificate", "no API server is joined that could have one signed"),
        (
            service_account_token.is_some(),
            "serviceAccountToken",
            "no API server is joined that could issue a token",
        ),
    ] {
        if there {
            faults.not_yet(&path.child(field), detail);
            found.push(None);
        }
    }
    if found.len() > 1 {
        faults.forbidden(path, "may not specify more than 1 volume type per source");
        return None;
    }
    match found.pop() {
        None => Some(None),
        Some(projection) => projection.map(Some),
    }
}

fn object(
    kind: ConfigKind,
    name: &str,
    items: Option<&[v1::KeyToPath]>,
    optional: Option<bool>,
    path: &Path<'_>,
    taken: &mut HashSet<String>,
    faults: &mut Faults,
) -> Option<Projection> {
    let name = object_name(name, &path.child("name"), faults);
    let items = key_items(items, path, Some(taken), faults);
    Some(Projection::Object { kind, name: name?, items: items?, optional: optional.unwrap_or(false) })
}

fn volume(default_mode: Option<u32>, sources: Vec<Projection>) -> Option<VolumeSource> {
    Some(VolumeSource::Projected(ProjectedVolume { default_mode: default_mode?, sources }))
}

/// `defaultMode`, defaulted in place; `defaultUser` is refused.
fn defaults(mode: &mut Option<i32>, user: Option<i64>, path: &Path<'_>, faults: &mut Faults) -> Option<u32> {
    faults.not_yet_if(user.is_some(), &path.child("defaultUser"), "files belong to root");
    file_mode(*mode.get_or_insert(DEFAULT_MODE), &path.child("defaultMode"), faults)
}

fn file_mode(mode: i32, path: &Path<'_>, faults: &mut Faults) -> Option<u32> {
    match u32::try_from(mode) {
        Ok(allowed) if allowed <= 0o777 => Some(allowed),
        _ => {
            faults.invalid_plain(path, mode, "must be a number between 0 and 0777 (octal), both inclusive");
            None
        }
    }
}

/// The mode of one file, if it has one of its own.
fn own_mode(mode: Option<i32>, path: &Path<'_>, faults: &mut Faults) -> Option<Option<u32>> {
    match mode {
        None => Some(None),
        Some(mode) => file_mode(mode, &path.child("mode"), faults).map(Some),
    }
}

/// `taken` are the paths that other sources of the same volume have named.
fn key_items(
    items: Option<&[v1::KeyToPath]>,
    object: &Path<'_>,
    mut taken: Option<&mut HashSet<String>>,
    faults: &mut Faults,
) -> Option<Vec<KeyToPath>> {
    let list = object.child("items");
    collect(items.unwrap_or_default().iter().enumerate().map(|(index, item)| {
        let at = list.index(index);
        let v1::KeyToPath { key, mode, path, user } = item;
        faults.not_yet_if(user.is_some(), &at.child("user"), "files belong to root");
        if key.is_empty() {
            faults.required(&at.child("key"), "");
        }
        file_path(path, &at, taken.as_deref_mut(), faults);
        let mode = own_mode(*mode, &at, faults)?;
        Some(KeyToPath { key: key.clone(), path: path.clone(), mode })
    }))
}

fn downward_items(
    items: Option<&mut [v1::DownwardAPIVolumeFile]>,
    containers: &HashSet<String>,
    object: &Path<'_>,
    mut taken: Option<&mut HashSet<String>>,
    faults: &mut Faults,
) -> Option<Vec<DownwardFile>> {
    let list = object.child("items");
    collect(items.unwrap_or_default().iter_mut().enumerate().map(|(index, item)| {
        let at = list.index(index);
        let v1::DownwardAPIVolumeFile { field_ref, mode, path, resource_field_ref, user } = item;
        faults.not_yet_if(user.is_some(), &at.child("user"), "files belong to root");
        file_path(path, &at, taken.as_deref_mut(), faults);
        let field = field_ref.as_mut().map(|selector| {
            let field = selector::field(selector, Place::File, &at.child("fieldRef"), faults);
            field.map(DownwardValue::Field)
        });
        let resource = resource_field_ref.as_ref().map(|selector| {
            let path = at.child("resourceFieldRef");
            let resource = selector::resource(selector, Place::File, containers, &path, faults);
            resource.map(DownwardValue::Resource)
        });
        let value = match (field, resource) {
            (Some(_), Some(_)) => {
                let detail = "fieldRef and resourceFieldRef can not be specified simultaneously";
                faults.invalid(&at, "resource", detail);
                None
            }
            (None, None) => {
                faults.required(&at, "one of fieldRef and resourceFieldRef is required");
                None
            }
            (value, None) | (None, value) => value?,
        };
        let mode = own_mode(*mode, &at, faults);
        Some(DownwardFile { path: path.clone(), value: value?, mode: mode? })
    }))
}

/// A path below the volume, which no other source has named.
fn file_path(path: &str, item: &Path<'_>, taken: Option<&mut HashSet<String>>, faults: &mut Faults) {
    let at = item.child("path");
    check_nul(path, &at, faults);
    if path.is_empty() {
        faults.required(&at, "");
    } else if let Err(detail) = syntax::local_path(path) {
        faults.invalid(&at, path, detail);
    } else if let Some(taken) = taken
        && !taken.insert(path.to_owned())
    {
        faults.invalid(&at, path, "conflicting duplicate paths");
    }
}

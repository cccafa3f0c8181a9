//! ConfigMaps and Secrets.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::{ConfigKind, Container, EnvValue, Name, Pod, Projection, Volume, VolumeSource};

/// What identifies a ConfigMap or Secret on the node.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct ConfigKey {
    /// Which kind.
    pub kind: ConfigKind,
    /// `metadata.namespace`.
    pub namespace: Name,
    /// `metadata.name`.
    pub name: Name,
}

/// A `v1 ConfigMap` or `v1 Secret`, validated.
///
/// Not serializable: a Secret's values must not reach a record on disk. Its `Debug` shows no value.
#[derive(Clone, PartialEq, Eq)]
pub struct ConfigObject {
    /// Kind, namespace and name.
    pub key: ConfigKey,
    /// By key: `data` of a ConfigMap, `data` and `stringData` of a Secret, decoded.
    pub data: BTreeMap<String, Arc<[u8]>>,
    /// By key: `binaryData` of a ConfigMap, decoded. Files are made of it, variables never.
    pub binary_data: BTreeMap<String, Arc<[u8]>>,
    /// `type` of a Secret, `Opaque` where it says none; empty for a ConfigMap.
    pub secret_type: String,
    /// `immutable`: the data may not change while the object is there.
    pub immutable: bool,
}

// === impl Pod ===

impl Pod {
    /// The ConfigMaps and Secrets its variables and volumes are made of and its images are pulled with, whether they are
    /// there or not.
    pub fn configs(&self) -> BTreeSet<ConfigKey> {
        let of_containers = self.all_containers().flat_map(Container::configs);
        let of_volumes = self.spec.volumes.iter().flat_map(Volume::configs);
        let of_pulls = self.spec.image_pull_secrets.iter().map(|name| (ConfigKind::Secret, name));
        let key = |(kind, name): (ConfigKind, &Name)| ConfigKey {
            kind,
            namespace: self.key.namespace.clone(),
            name: name.clone(),
        };
        of_containers.chain(of_volumes).chain(of_pulls).map(key).collect()
    }
}

impl Container {
    /// The objects its variables are made of.
    fn configs(&self) -> impl Iterator<Item = (ConfigKind, &Name)> {
        let of_keys = self.env.iter().filter_map(|variable| match &variable.value {
            EnvValue::ConfigMapKey(selector) => Some((ConfigKind::ConfigMap, &selector.name)),
            EnvValue::SecretKey(selector) => Some((ConfigKind::Secret, &selector.name)),
            _ => None,
        });
        self.env_from.iter().map(|from| (from.kind, &from.name)).chain(of_keys)
    }
}

impl Volume {
    /// The objects its files are made of.
    fn configs(&self) -> impl Iterator<Item = (ConfigKind, &Name)> {
        let sources = match &self.source {
            VolumeSource::Projected(volume) => &volume.sources[..],
            _ => &[],
        };
        sources.iter().filter_map(|source| match source {
            Projection::Object { kind, name, .. } => Some((*kind, name)),
            Projection::Downward(_) => None,
        })
    }
}

// === impl ConfigKey ===

impl fmt::Display for ConfigKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}/{}", self.kind.as_str(), self.namespace, self.name)
    }
}

// === impl ConfigObject ===

impl ConfigObject {
    /// Everything it holds, by key. No key is in both kinds of data.
    pub fn values(&self) -> impl Iterator<Item = (&String, &Arc<[u8]>)> {
        self.data.iter().chain(&self.binary_data)
    }
}

impl fmt::Debug for ConfigObject {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let sizes = self.values().map(|(key, value)| (key, value.len()));
        f.debug_struct("ConfigObject")
            .field("key", &self.key)
            .field("bytes", &sizes.collect::<BTreeMap<_, _>>())
            .field("immutable", &self.immutable)
            .finish()
    }
}

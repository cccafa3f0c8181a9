//! ConfigMaps and Secrets.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::{ConfigKind, Name};

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
    /// `immutable`: the data may not change while the object is there.
    pub immutable: bool,
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

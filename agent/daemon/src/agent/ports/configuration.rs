//! ConfigMaps, Secrets and what a pod is told of itself, as variables and files of containers.
//!
//! Everything here is a function of values. Messages are the kubelet's, and show no value of an object.

mod environment;
mod field;
mod payload;
mod quote;
mod resource;
#[cfg(test)]
mod tests;

use std::sync::Arc;

use coracle_controller::Configs;
use coracle_model::{ConfigKey, ConfigKind, ConfigObject, FileKeySelector, Name, Pod};

use crate::agent::facts::NodeNow;

pub(super) use environment::resolve;
pub(super) use payload::payload;

/// Reads the file a variable comes from; `None` when there is none.
pub(super) type ReadFile<'a> = &'a dyn Fn(&FileKeySelector) -> Result<Option<Vec<u8>>, String>;

/// What the variables and files of a pod are made of.
#[derive(Clone, Copy)]
pub(super) struct Sources<'a> {
    pub(super) pod: &'a Pod,
    pub(super) configs: &'a Configs,
    pub(super) node: &'a NodeNow,
}

impl Sources<'_> {
    /// An object of the pod's namespace; the kubelet's message when there is none.
    fn object(&self, kind: ConfigKind, name: &Name) -> Result<&Arc<ConfigObject>, String> {
        let key = ConfigKey { kind, namespace: self.pod.key.namespace.clone(), name: name.clone() };
        let kind = match kind {
            ConfigKind::ConfigMap => "configmap",
            ConfigKind::Secret => "secret",
        };
        self.configs.get(&key).ok_or_else(|| format!("{kind} {:?} not found", name.as_str()))
    }
}

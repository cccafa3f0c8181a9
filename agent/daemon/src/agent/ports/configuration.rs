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

use std::net::IpAddr;
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
    /// The pod's own addresses; those of the host's network are the node's.
    pub(super) addresses: &'a [IpAddr],
}

impl Sources<'_> {
    /// An object of the pod's namespace; `None` when there is none and need not be one. Else the kubelet's message.
    ///
    /// As long as there are manifests that were not read yet, nothing is taken for missing, not even what is
    /// optional: a container would start without what it had before.
    fn object(
        &self,
        kind: ConfigKind,
        name: &Name,
        optional: bool,
    ) -> Result<Option<&Arc<ConfigObject>>, String> {
        let key = ConfigKey { kind, namespace: self.pod.key.namespace.clone(), name: name.clone() };
        let kind = match kind {
            ConfigKind::ConfigMap => "configmap",
            ConfigKind::Secret => "secret",
        };
        match self.configs.objects.get(&key) {
            Some(object) => Ok(Some(object)),
            None if !self.configs.complete => Err(format!(
                "{kind} {:?} not found, and the manifests of the node's URL have not been read yet",
                name.as_str()
            )),
            None if optional => Ok(None),
            None => Err(format!("{kind} {:?} not found", name.as_str())),
        }
    }
}

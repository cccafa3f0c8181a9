//! What a plugin is called with.

use std::fs::File;
use std::io;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};

use serde::de::DeserializeOwned;
use serde_json::{Map, Value};

use crate::{AddResult, CniError, code};

/// What a plugin is called with: the environment and the standard input of the specification's section 2.
#[derive(Clone, Debug)]
pub struct Call {
    /// `CNI_CONTAINERID`.
    pub container_id: String,
    /// `CNI_NETNS`; may be absent in a DEL.
    pub netns: Option<NetworkNamespace>,
    /// `CNI_IFNAME`.
    pub ifname: String,
    /// `CNI_ARGS`, in order.
    pub args: Vec<(String, String)>,
    /// `CNI_PATH`: where programs of plugins are looked for, in order.
    pub path: Vec<PathBuf>,
    /// Standard input.
    pub config: PluginConfig,
    /// The caller ends the network namespace as soon as this DEL has succeeded, and with it every interface in it: a
    /// plugin need not wait for the removal of what ends so. Never said from outside the process.
    pub namespace_ends: bool,
}

/// A network namespace by its path.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NetworkNamespace {
    path: PathBuf,
}

/// The configuration of one plugin of a list, as it stands on its standard input.
#[derive(Clone, Debug)]
pub struct PluginConfig {
    /// `cniVersion`.
    pub cni_version: String,
    /// `name`: the network's.
    pub name: String,
    /// `type`.
    pub kind: String,
    /// `prevResult`, if any.
    pub prev_result: Option<AddResult>,
    /// `runtimeConfig`: the capabilities that apply.
    pub runtime_config: Map<String, Value>,
    /// All there is, but `prevResult` and `runtimeConfig`.
    pub fields: Map<String, Value>,
}

// === impl NetworkNamespace ===

impl NetworkNamespace {
    /// The one at this path: a bound one, or a `/proc/<pid>/ns/net`.
    pub fn new(path: impl Into<PathBuf>) -> Self {
        Self { path: path.into() }
    }

    /// Its path.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Opens it.
    ///
    /// # Errors
    /// As `open(2)`.
    pub fn open(&self) -> io::Result<OwnedFd> {
        Ok(File::open(&self.path)?.into())
    }
}

// === impl PluginConfig ===

impl PluginConfig {
    /// The fields a plugin knows, and those alone.
    ///
    /// # Errors
    /// [`code::INVALID_CONFIG`], naming the field.
    pub fn parse<T: DeserializeOwned>(&self) -> Result<T, CniError> {
        T::deserialize(Value::Object(self.fields.clone())).map_err(|error| {
            CniError::new(
                code::INVALID_CONFIG,
                format!("network {}: plugin {}: the configuration is wrong: {error}", self.name, self.kind),
            )
        })
    }

    /// One of the capabilities that apply.
    ///
    /// # Errors
    /// [`code::INVALID_CONFIG`], naming it.
    pub fn capability<T: DeserializeOwned>(&self, name: &str) -> Result<Option<T>, CniError> {
        let Some(value) = self.runtime_config.get(name) else { return Ok(None) };
        T::deserialize(value).map(Some).map_err(|error| {
            CniError::new(
                code::INVALID_CONFIG,
                format!(
                    "network {}: plugin {}: runtimeConfig.{name} is wrong: {error}",
                    self.name, self.kind
                ),
            )
        })
    }
}

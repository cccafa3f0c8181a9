//! What a plugin is called with.

use std::fs::File;
use std::io;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};

use std::time::Instant;

use serde::de::DeserializeOwned;
use serde_json::{Map, Value};

use crate::names::{check_kind, check_network_name};
use crate::{AddResult, CniError, Version, code};

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
    /// When every program that is executed for it has to have ended.
    pub deadline: Option<Instant>,
}

/// What a GC is called with.
#[derive(Clone, Debug)]
pub struct GcCall {
    /// `cni.dev/valid-attachments`: container id and interface of all there are.
    pub valid: Vec<(String, String)>,
    /// `CNI_PATH`.
    pub path: Vec<PathBuf>,
    /// Standard input.
    pub config: PluginConfig,
    /// As in a [`Call`].
    pub deadline: Option<Instant>,
}

/// What a STATUS is called with.
#[derive(Clone, Debug)]
pub struct StatusCall {
    /// `CNI_PATH`.
    pub path: Vec<PathBuf>,
    /// Standard input.
    pub config: PluginConfig,
    /// As in a [`Call`].
    pub deadline: Option<Instant>,
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
    pub cni_version: Version,
    /// `name`: the network's.
    pub name: String,
    /// `type`.
    pub kind: String,
    /// `prevResult`, if any.
    pub prev_result: Option<AddResult>,
    /// `runtimeConfig`: the capabilities that apply.
    pub runtime_config: Map<String, Value>,
    /// All there is, `cniVersion`, `name` and `type` included, but `prevResult` and `runtimeConfig`.
    pub fields: Map<String, Value>,
}

// === impl Call ===

impl Call {
    /// What `CNI_ARGS` says of this key, the last time.
    pub fn arg(&self, key: &str) -> Option<&str> {
        self.args.iter().rev().find(|(name, _)| name == key).map(|(_, value)| value.as_str())
    }
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
    /// Reads what stands on a plugin's standard input.
    ///
    /// # Errors
    /// [`code::INCOMPATIBLE_VERSION`], or [`code::INVALID_CONFIG`] naming the field.
    pub fn from_json(json: Value) -> Result<Self, CniError> {
        let Value::Object(mut fields) = json else {
            return Err(CniError::new(code::INVALID_CONFIG, "a network configuration is a JSON object"));
        };
        let cni_version = text(&fields, "cniVersion")?.parse()?;
        let name = text(&fields, "name")?.to_owned();
        check_network_name(&name)?;
        let kind = text(&fields, "type")?.to_owned();
        check_kind(&kind)?;
        let prev_result = match fields.remove("prevResult") {
            None | Some(Value::Null) => None,
            Some(result) => Some(AddResult::from_json(&result, cni_version).map_err(|error| CniError {
                msg: format!("network {name}: plugin {kind}: prevResult: {}", error.msg),
                ..error
            })?),
        };
        let runtime_config = match fields.remove("runtimeConfig") {
            None | Some(Value::Null) => Map::new(),
            Some(Value::Object(map)) => map,
            Some(_) => {
                let msg = format!("network {name}: plugin {kind}: runtimeConfig is not a JSON object");
                return Err(CniError::new(code::INVALID_CONFIG, msg));
            }
        };
        Ok(Self { cni_version, name, kind, prev_result, runtime_config, fields })
    }

    /// What stands on a plugin's standard input.
    pub fn to_json(&self) -> Value {
        let mut fields = self.fields.clone();
        if let Some(result) = &self.prev_result {
            fields.insert("prevResult".to_owned(), result.to_json(self.cni_version));
        }
        if !self.runtime_config.is_empty() {
            fields.insert("runtimeConfig".to_owned(), Value::Object(self.runtime_config.clone()));
        }
        Value::Object(fields)
    }

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

/// A field that must be a string.
fn text<'a>(fields: &'a Map<String, Value>, name: &str) -> Result<&'a str, CniError> {
    match fields.get(name) {
        Some(Value::String(text)) => Ok(text),
        Some(_) => Err(CniError::new(code::INVALID_CONFIG, format!("{name} is not a string"))),
        None => Err(CniError::new(code::INVALID_CONFIG, format!("the network configuration has no {name}"))),
    }
}

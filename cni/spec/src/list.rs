//! Network configuration lists: the specification's section 1.

use std::collections::BTreeSet;

use serde_json::{Map, Value, json};

use crate::names::{check_kind, check_network_name};
use crate::{AddResult, CniError, PluginConfig, Version, code};

/// Names of fields that the specification keeps for runtimes.
const RESERVED: &str = "cni.dev/";

/// A network: the plugins that make an attachment, in order.
#[derive(Clone, Debug, PartialEq)]
pub struct ConfigList {
    /// The highest supported of `cniVersion` and `cniVersions`.
    pub version: Version,
    /// `name`.
    pub name: String,
    /// `disableCheck`: CHECK must not be called.
    pub disable_check: bool,
    /// `disableGC`: GC must not be called.
    pub disable_gc: bool,
    /// `plugins`; not empty.
    pub plugins: Vec<ListedPlugin>,
}

/// A plugin of a list.
#[derive(Clone, Debug, PartialEq)]
pub struct ListedPlugin {
    /// `type`.
    pub kind: String,
    /// `capabilities` that are true.
    pub capabilities: BTreeSet<String>,
    /// All there is but `capabilities` and what a runtime says.
    fields: Map<String, Value>,
}

/// A list as it is read, whose plugins may stand elsewhere as well.
pub(crate) struct Listed {
    pub(crate) list: ConfigList,
    /// `loadOnlyInlinedPlugins`.
    pub(crate) only_inlined: bool,
}

// === impl ConfigList ===

impl ConfigList {
    /// Reads a list.
    ///
    /// # Errors
    /// [`code::INCOMPATIBLE_VERSION`], [`code::DECODING`], or [`code::INVALID_CONFIG`] naming the field.
    pub fn parse(text: &[u8]) -> Result<Self, CniError> {
        Self::whole(Listed::parse(text)?.list)
    }

    /// Reads the configuration of a single plugin, as it was before version 1.0.0, as a list of it.
    ///
    /// # Errors
    /// As [`ConfigList::parse`].
    pub fn parse_single(text: &[u8]) -> Result<Self, CniError> {
        let fields = object(text)?;
        if fields.contains_key("plugins") {
            return Err(invalid(
                "plugins: the file of a list of plugins must have a name that ends in .conflist".to_owned(),
            ));
        }
        let (version, name) = (version(&fields)?, name(&fields)?);
        let plugins = vec![ListedPlugin::from_json(Value::Object(fields))?];
        Ok(Self { version, name, disable_check: false, disable_gc: false, plugins })
    }

    /// A list that has plugins.
    pub(crate) fn whole(self) -> Result<Self, CniError> {
        match self.plugins.is_empty() {
            true => Err(invalid("plugins: the list has none".to_owned())),
            false => Ok(self),
        }
    }

    /// The list as JSON, which [`ConfigList::parse`] reads as the same.
    pub fn to_json(&self) -> Value {
        let plugins: Vec<Value> = self.plugins.iter().map(ListedPlugin::to_json).collect();
        json!({
            "cniVersion": self.version.as_str(),
            "name": self.name,
            "disableCheck": self.disable_check,
            "disableGC": self.disable_gc,
            "plugins": plugins,
        })
    }

    /// What one of its plugins is called with (section 3, "Deriving execution configuration from plugin
    /// configuration"). Of `capabilities`, which the runtime has, the plugin is told those it declares.
    pub fn config_of(
        &self,
        plugin: &ListedPlugin,
        prev_result: Option<AddResult>,
        capabilities: &Map<String, Value>,
    ) -> PluginConfig {
        let mut fields = plugin.fields.clone();
        fields.insert("cniVersion".to_owned(), json!(self.version.as_str()));
        fields.insert("name".to_owned(), json!(self.name));
        let declared = capabilities.iter().filter(|(name, _)| plugin.capabilities.contains(*name));
        PluginConfig {
            cni_version: self.version,
            name: self.name.clone(),
            kind: plugin.kind.clone(),
            prev_result,
            runtime_config: declared.map(|(name, value)| (name.clone(), value.clone())).collect(),
            fields,
        }
    }
}

// === impl Listed ===

impl Listed {
    pub(crate) fn parse(text: &[u8]) -> Result<Self, CniError> {
        let fields = object(text)?;
        let plugins = match fields.get("plugins") {
            None => Vec::new(),
            Some(Value::Array(plugins)) => plugins
                .iter()
                .enumerate()
                .map(|(index, plugin)| {
                    ListedPlugin::from_json(plugin.clone()).map_err(|error| CniError {
                        msg: format!("plugins[{index}]: {}", error.msg),
                        ..error
                    })
                })
                .collect::<Result<_, _>>()?,
            Some(_) => return Err(invalid("plugins is not a JSON array".to_owned())),
        };
        Ok(Self {
            only_inlined: boolean(&fields, "loadOnlyInlinedPlugins")?,
            list: ConfigList {
                version: version(&fields)?,
                name: name(&fields)?,
                disable_check: boolean(&fields, "disableCheck")?,
                disable_gc: boolean(&fields, "disableGC")?,
                plugins,
            },
        })
    }
}

// === impl ListedPlugin ===

impl ListedPlugin {
    /// `ipam.type`: the plugin that this one asks for addresses, if any.
    pub fn ipam_kind(&self) -> Option<&str> {
        let kind = self.fields.get("ipam")?.get("type")?.as_str()?;
        (!kind.is_empty()).then_some(kind)
    }

    /// Reads the configuration of one plugin.
    pub(crate) fn parse(text: &[u8]) -> Result<Self, CniError> {
        Self::from_json(Value::Object(object(text)?))
    }

    fn from_json(json: Value) -> Result<Self, CniError> {
        let Value::Object(mut fields) = json else {
            return Err(invalid("the configuration of a plugin is not a JSON object".to_owned()));
        };
        let kind = match fields.get("type") {
            Some(Value::String(kind)) => kind.clone(),
            Some(_) => return Err(invalid("type is not a string".to_owned())),
            None => return Err(invalid("type is missing".to_owned())),
        };
        check_kind(&kind)?;
        let mut capabilities = BTreeSet::new();
        match fields.remove("capabilities") {
            None | Some(Value::Null) => {}
            Some(Value::Object(declared)) => {
                for (name, value) in declared {
                    match value {
                        Value::Bool(true) => _ = capabilities.insert(name),
                        Value::Bool(false) => {}
                        _ => return Err(invalid(format!("capabilities.{name} is neither true nor false"))),
                    }
                }
            }
            Some(_) => return Err(invalid("capabilities is not a JSON object".to_owned())),
        }
        // Said by a runtime, and by it alone.
        fields
            .retain(|name, _| name != "prevResult" && name != "runtimeConfig" && !name.starts_with(RESERVED));
        Ok(Self { kind, capabilities, fields })
    }

    fn to_json(&self) -> Value {
        let mut fields = self.fields.clone();
        if !self.capabilities.is_empty() {
            let declared = self.capabilities.iter().map(|name| (name.clone(), Value::Bool(true))).collect();
            fields.insert("capabilities".to_owned(), Value::Object(declared));
        }
        Value::Object(fields)
    }
}

fn object(text: &[u8]) -> Result<Map<String, Value>, CniError> {
    match serde_json::from_slice(text) {
        Ok(Value::Object(fields)) => Ok(fields),
        Ok(_) => Err(CniError::new(code::DECODING, "a network configuration is a JSON object")),
        Err(error) => Err(CniError::new(code::DECODING, format!("not JSON: {error}"))),
    }
}

/// The highest version that both the configuration and this crate support.
fn version(fields: &Map<String, Value>) -> Result<Version, CniError> {
    let text = |value: &Value, name: &str| match value.as_str() {
        Some(text) => Ok(text.to_owned()),
        None => Err(invalid(format!("{name} is not a string"))),
    };
    let mut versions = Vec::new();
    if let Some(version) = fields.get("cniVersion") {
        versions.push(text(version, "cniVersion")?);
    }
    match fields.get("cniVersions") {
        None | Some(Value::Null) => {}
        Some(Value::Array(all)) => {
            for version in all {
                versions.push(text(version, "an element of cniVersions")?);
            }
        }
        Some(_) => return Err(invalid("cniVersions is not a JSON array".to_owned())),
    }
    let supported = versions.iter().filter_map(|text| text.parse::<Version>().ok()).max();
    match (supported, versions.as_slice()) {
        (Some(version), _) => Ok(version),
        (None, []) => Err(invalid(format!("cniVersion is missing (supported are {})", Version::all()))),
        (None, [only]) => only.parse().map_err(|error: CniError| match only.as_str() {
            "0.3.0" | "0.3.1" => CniError {
                details: format!(
                    "{}; plugins that support {only} support 0.4.0 as a rule: set cniVersion to it",
                    error.details
                ),
                ..error
            },
            _ => error,
        }),
        (None, several) => Err(CniError {
            code: code::INCOMPATIBLE_VERSION,
            msg: format!("none of the versions {} of CNI is supported", several.join(", ")),
            details: format!("the supported ones are {}", Version::all()),
        }),
    }
}

fn name(fields: &Map<String, Value>) -> Result<String, CniError> {
    match fields.get("name") {
        Some(Value::String(name)) => check_network_name(name).map(|()| name.clone()),
        Some(_) => Err(invalid("name is not a string".to_owned())),
        None => Err(invalid("name is missing".to_owned())),
    }
}

/// A boolean, which libcni takes as a string, too.
fn boolean(fields: &Map<String, Value>, name: &str) -> Result<bool, CniError> {
    match fields.get(name) {
        None | Some(Value::Null) => Ok(false),
        Some(Value::Bool(value)) => Ok(*value),
        Some(Value::String(text)) if text.eq_ignore_ascii_case("true") => Ok(true),
        Some(Value::String(text)) if text.eq_ignore_ascii_case("false") => Ok(false),
        Some(_) => Err(invalid(format!("{name} is neither true nor false"))),
    }
}

fn invalid(msg: String) -> CniError {
    CniError::new(code::INVALID_CONFIG, msg)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn list(json: &Value) -> Result<ConfigList, CniError> {
        ConfigList::parse(json.to_string().as_bytes())
    }

    fn with(member: &str, value: Value) -> Result<ConfigList, CniError> {
        let mut json = json!({"cniVersion": "1.0.0", "name": "net", "plugins": [{"type": "bridge"}]});
        json[member] = value;
        list(&json)
    }

    #[test]
    fn the_highest_supported_version_counts() {
        for (one, several, found) in [
            (json!("0.4.0"), json!(null), Version::V0_4_0),
            (json!("0.3.1"), json!(["0.3.1", "1.0.0"]), Version::V1_0_0),
            (json!("1.0.0"), json!(["1.1.0", "9.0.0", "0.4.0"]), Version::V1_1_0),
        ] {
            let json =
                json!({"cniVersion": one, "cniVersions": several, "name": "n", "plugins": [{"type": "a"}]});
            assert_eq!(list(&json).unwrap().version, found);
        }
        let error = with("cniVersion", json!("0.3.1")).unwrap_err();
        assert_eq!(error.code, code::INCOMPATIBLE_VERSION);
        assert!(
            error.details.contains("0.4.0, 1.0.0, 1.1.0") && error.details.contains("set cniVersion"),
            "{error}"
        );
        assert_eq!(
            with("cniVersion", json!("2.0.0")).unwrap_err().details,
            "the supported ones are 0.4.0, 1.0.0, 1.1.0"
        );
        assert_eq!(
            list(&json!({"name": "n", "plugins": [{"type": "a"}]})).unwrap_err().code,
            code::INVALID_CONFIG
        );
    }

    #[test]
    fn what_is_wrong_is_named() {
        for (member, value, named) in [
            ("name", json!("../net"), "name"),
            ("name", json!(7), "name"),
            ("plugins", json!([]), "plugins"),
            ("plugins", json!({}), "plugins"),
            ("plugins", json!([{"type": "bridge"}, {"name": "x"}]), "plugins[1]: type"),
            ("plugins", json!([{"type": "/bin/sh"}]), "plugins[0]: type"),
            ("plugins", json!([{"type": "a", "capabilities": {"mac": "yes"}}]), "capabilities.mac"),
            ("disableCheck", json!("perhaps"), "disableCheck"),
            ("cniVersions", json!("1.0.0"), "cniVersions"),
        ] {
            let error = with(member, value).unwrap_err();
            assert_eq!(error.code, code::INVALID_CONFIG);
            assert!(error.msg.contains(named), "{error}");
        }
        assert_eq!(ConfigList::parse(b"").unwrap_err().code, code::DECODING);
        assert_eq!(ConfigList::parse(b"[]").unwrap_err().code, code::DECODING);
        assert!(with("disableCheck", json!("True")).unwrap().disable_check);
        assert!(with("disableGC", json!(true)).unwrap().disable_gc);
    }

    #[test]
    fn a_plugin_is_told_its_network_and_the_capabilities_it_declares() {
        let plugin = json!({
            "type": "portmap", "name": "mine", "cniVersion": "0.1.0", "snat": true,
            "capabilities": {"portMappings": true, "mac": false},
            "prevResult": {}, "runtimeConfig": {"mac": "x"}, "cni.dev/attachments": [],
        });
        let list = with("plugins", json!([plugin])).unwrap();
        let capabilities = json!({"portMappings": [1], "mac": "02:00:00:00:00:01", "ips": []});
        let config = list.config_of(&list.plugins[0], None, capabilities.as_object().unwrap());
        let told = json!({
            "cniVersion": "1.0.0", "name": "net", "type": "portmap", "snat": true,
            "runtimeConfig": {"portMappings": [1]},
        });
        assert_eq!(config.to_json(), told);
    }

    #[test]
    fn a_single_plugin_is_a_list_of_it_and_a_list_is_written_as_it_is_read() {
        let single = json!({
            "cniVersion": "0.4.0", "name": "net", "type": "bridge", "capabilities": {"mac": true}, "mtu": 9000,
        });
        let single = ConfigList::parse_single(single.to_string().as_bytes()).unwrap();
        assert_eq!(single.plugins[0].capabilities, BTreeSet::from(["mac".to_owned()]));
        assert_eq!(list(&single.to_json()).unwrap(), single);
        let error = ConfigList::parse_single(br#"{"cniVersion": "0.4.0", "name": "net"}"#).unwrap_err();
        assert_eq!(error.msg, "type is missing");
        let list = br#"{"cniVersion": "0.4.0", "name": "net", "plugins": []}"#;
        let error = ConfigList::parse_single(list).unwrap_err();
        assert!(error.msg.contains(".conflist"), "{error}");
    }
}

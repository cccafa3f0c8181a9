//! What ADD answers, in the newest version's terms, and its JSON in each version.

use std::borrow::Cow;
use std::fmt::Display;
use std::net::IpAddr;
use std::str::FromStr;

use ipnet::IpNet;
use serde::de::Error as _;
use serde::{Deserialize, Deserializer, Serialize};
use serde_json::{Map, Value, json};

use crate::{CniError, Version, code};

/// The result of an ADD (specification, "Success" and "ADD Success"), without its version.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct AddResult {
    /// Interfaces that were made, on the host and in the container.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub interfaces: Vec<Interface>,
    /// Addresses that were given.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub ips: Vec<IpConfig>,
    /// Routes that were made.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub routes: Vec<Route>,
    /// How to resolve names there.
    #[serde(default, skip_serializing_if = "Dns::is_empty")]
    pub dns: Dns,
}

/// An interface.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Interface {
    /// Its name.
    #[serde(default)]
    pub name: String,
    /// Its hardware address.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub mac: String,
    /// In bytes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mtu: Option<u32>,
    /// The network namespace it is in; empty on the host.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub sandbox: String,
    /// The socket of a user-space interface.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub socket_path: String,
    /// The PCI device of a hardware one.
    #[serde(default, rename = "pciID", skip_serializing_if = "String::is_empty")]
    pub pci_id: String,
}

/// An address.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct IpConfig {
    /// Of which of [`AddResult::interfaces`].
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub interface: Option<usize>,
    /// The address, with the length of its network's prefix.
    #[serde(deserialize_with = "parsed")]
    pub address: IpNet,
    /// The way out of that network.
    #[serde(default, deserialize_with = "parsed_if_any", skip_serializing_if = "Option::is_none")]
    pub gateway: Option<IpAddr>,
}

/// A route.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Route {
    /// Where it leads.
    #[serde(deserialize_with = "parsed")]
    pub dst: IpNet,
    /// Over which gateway; that of the address of the same family where absent.
    #[serde(default, deserialize_with = "parsed_if_any", skip_serializing_if = "Option::is_none")]
    pub gw: Option<IpAddr>,
    /// In bytes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mtu: Option<u32>,
    /// The segment size to tell, in bytes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub advmss: Option<u32>,
    /// Lower ones go first.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub priority: Option<u32>,
    /// The table it is in; the main one where absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub table: Option<u32>,
    /// rtnetlink(7)'s scope; universe where absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub scope: Option<u8>,
}

/// How names are resolved.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Dns {
    /// Servers, as addresses.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub nameservers: Vec<String>,
    /// The local domain.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub domain: String,
    /// Domains to search.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub search: Vec<String>,
    /// As in resolv.conf(5).
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub options: Vec<String>,
}

// === impl Dns ===

impl Dns {
    /// Whether it says nothing.
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }

    fn to_json(&self) -> Value {
        let list = |values: &[String]| (!values.is_empty()).then(|| json!(values));
        object([
            ("nameservers", list(&self.nameservers)),
            ("domain", text(&self.domain)),
            ("search", list(&self.search)),
            ("options", list(&self.options)),
        ])
    }
}

// === impl AddResult ===

impl AddResult {
    /// Reads it. The JSON says which version it is in; without one it is in that of the configuration, as in libcni.
    /// `null` and an empty string are the same as nothing, which is how programs in Go read and write them.
    ///
    /// # Errors
    /// [`code::INCOMPATIBLE_VERSION`], or [`code::DECODING`] naming the field.
    pub fn from_json(json: &Value, asked: Version) -> Result<Self, CniError> {
        let decoding =
            |why: String| CniError::new(code::DECODING, format!("the result of an ADD is wrong: {why}"));
        let Value::Object(fields) = json else {
            return Err(decoding("it is not a JSON object".to_owned()));
        };
        // All of these versions are read the same way: each has what the one before has, but for what nobody needs.
        match fields.get("cniVersion") {
            None | Some(Value::Null) => asked,
            Some(Value::String(version)) if version.is_empty() => asked,
            Some(Value::String(version)) => version.parse()?,
            Some(other) => return Err(decoding(format!("cniVersion {other} is not a string"))),
        };
        Self::deserialize(without_nothing(json)).map_err(|error| decoding(error.to_string()))
    }

    /// Its JSON in this version. What the version has no place for is left out.
    pub fn to_json(&self, version: Version) -> Value {
        let mut fields = Map::new();
        fields.insert("cniVersion".to_owned(), json!(version.as_str()));
        let mut list = |name: &str, values: Vec<Value>| {
            if !values.is_empty() {
                fields.insert(name.to_owned(), Value::Array(values));
            }
        };
        list("interfaces", self.interfaces.iter().map(|interface| interface.to_json(version)).collect());
        list("ips", self.ips.iter().map(|ip| ip.to_json(version)).collect());
        list("routes", self.routes.iter().map(|route| route.to_json(version)).collect());
        if !self.dns.is_empty() {
            fields.insert("dns".to_owned(), self.dns.to_json());
        }
        Value::Object(fields)
    }
}

/// A JSON value without the members of objects that say nothing.
fn without_nothing(json: &Value) -> Value {
    match json {
        Value::Object(fields) => Value::Object(
            fields
                .iter()
                .filter(|(_, value)| !value.is_null() && value.as_str() != Some(""))
                .map(|(name, value)| (name.clone(), without_nothing(value)))
                .collect(),
        ),
        Value::Array(values) => Value::Array(values.iter().map(without_nothing).collect()),
        other => other.clone(),
    }
}

/// An address, or one with the length of a prefix: what does not parse is shown.
fn parsed<'de, T: FromStr<Err: Display>, D: Deserializer<'de>>(from: D) -> Result<T, D::Error> {
    let text = Cow::<str>::deserialize(from)?;
    text.parse().map_err(|error| D::Error::custom(format!("{text:?}: {error}")))
}

fn parsed_if_any<'de, T: FromStr<Err: Display>, D: Deserializer<'de>>(
    from: D,
) -> Result<Option<T>, D::Error> {
    let Some(text) = Option::<Cow<'_, str>>::deserialize(from)? else { return Ok(None) };
    text.parse().map(Some).map_err(|error| D::Error::custom(format!("{text:?}: {error}")))
}

/// An object of the members that say something.
fn object(members: impl IntoIterator<Item = (&'static str, Option<Value>)>) -> Value {
    members.into_iter().filter_map(|(name, value)| Some((name.to_owned(), value?))).collect()
}

/// A string that may say nothing.
fn text(text: &str) -> Option<Value> {
    (!text.is_empty()).then(|| json!(text))
}

// === impl Interface ===

impl Interface {
    fn to_json(&self, version: Version) -> Value {
        let newer = version >= Version::V1_1_0;
        object([
            ("name", Some(json!(self.name))),
            ("mac", text(&self.mac)),
            ("mtu", self.mtu.filter(|_| newer).map(Value::from)),
            ("sandbox", text(&self.sandbox)),
            ("socketPath", text(&self.socket_path).filter(|_| newer)),
            ("pciID", text(&self.pci_id).filter(|_| newer)),
        ])
    }
}

// === impl IpConfig ===

impl IpConfig {
    fn to_json(&self, version: Version) -> Value {
        let family = match self.address {
            IpNet::V4(_) => "4",
            IpNet::V6(_) => "6",
        };
        object([
            ("version", (version < Version::V1_0_0).then(|| json!(family))),
            ("interface", self.interface.map(Value::from)),
            ("address", Some(json!(self.address))),
            ("gateway", self.gateway.map(|gateway| json!(gateway))),
        ])
    }
}

// === impl Route ===

impl Route {
    fn to_json(&self, version: Version) -> Value {
        let newer = |value: Option<u32>| value.filter(|_| version >= Version::V1_1_0).map(Value::from);
        object([
            ("dst", Some(json!(self.dst))),
            ("gw", self.gw.map(|gw| json!(gw))),
            ("mtu", newer(self.mtu)),
            ("advmss", newer(self.advmss)),
            ("priority", newer(self.priority)),
            ("table", newer(self.table)),
            ("scope", newer(self.scope.map(u32::from))),
        ])
    }
}

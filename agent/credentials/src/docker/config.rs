//! What stands in a docker configuration: `config.json` with its `auths`, `credHelpers` and `credsStore`, and the
//! `.dockercfg` from before it.

use std::collections::BTreeMap;

use base64::Engine as _;
use base64::engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig};
use coracle_model::ImageName;
use coracle_registry::{Credential, Secret};
use serde_json::{Map, Value};

use crate::CredentialError;
use crate::pattern::Pattern;

/// Which of the two forms a configuration has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    /// `config.json`, `.dockerconfigjson`, podman's `auth.json`: entries under `auths`.
    ConfigJson,
    /// `.dockercfg`: nothing but entries.
    Dockercfg,
}

/// A docker configuration, as far as it tells of credentials.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct DockerConfig {
    /// What is meant first stands first.
    entries: Vec<(Pattern, Credential)>,
    /// `credHelpers`, by host.
    helpers: BTreeMap<String, String>,
    /// `credsStore`.
    store: Option<String>,
}

/// The longest text of a configuration that a message shows.
const MOST_SHOWN: usize = 100;

/// As lax as Go's: bits that no byte is made of may be any, and padding may be left out, as the kubelet lets it.
const BASE64: GeneralPurpose = GeneralPurpose::new(
    &base64::alphabet::STANDARD,
    GeneralPurposeConfig::new()
        .with_decode_allow_trailing_bits(true)
        .with_decode_padding_mode(DecodePaddingMode::Indifferent),
);

// === impl DockerConfig ===

impl DockerConfig {
    /// Reads one. `origin` names it in messages, which never show a value.
    ///
    /// # Errors
    /// [`CredentialError::Malformed`].
    pub fn parse(origin: &str, format: Format, bytes: &[u8]) -> Result<Self, CredentialError> {
        read(format, bytes)
            .map_err(|problem| CredentialError::Malformed { origin: origin.to_owned(), problem })
    }

    /// What it says for an image itself, the longest match first.
    pub fn credentials(&self, name: &ImageName) -> impl Iterator<Item = &Credential> {
        self.matching(name).map(|(_, credential)| credential)
    }

    /// The same, with the entry's own order among those of other configurations.
    pub(crate) fn matching(&self, name: &ImageName) -> impl Iterator<Item = (&Pattern, &Credential)> {
        let entries = self.entries.iter().filter(|(pattern, _)| pattern.matches(name));
        entries.map(|(pattern, credential)| (pattern, credential))
    }

    /// The credential helper that is asked for this registry, if any: one of its own, or the one for all.
    pub fn helper(&self, domain: &str) -> Option<&str> {
        self.helpers.get(domain).or(self.store.as_ref()).map(String::as_str)
    }

    /// Whether it names any helper.
    pub fn has_helpers(&self) -> bool {
        self.store.is_some() || !self.helpers.is_empty()
    }
}

fn read(format: Format, bytes: &[u8]) -> Result<DockerConfig, String> {
    // The parser's own words would show what stands there.
    let json = serde_json::from_slice(bytes).map_err(|error| {
        format!("it is not JSON from line {}, column {} on", error.line(), error.column())
    })?;
    let Value::Object(mut fields) = json else { return Err("it is not a JSON object".to_owned()) };
    let mut config = DockerConfig::default();
    if format == Format::Dockercfg {
        config.entries = entries("", fields)?;
        return Ok(config);
    }
    config.entries = entries("auths", object("auths", fields.remove("auths"))?)?;
    for (host, helper) in object("credHelpers", fields.remove("credHelpers"))? {
        let place = format!("credHelpers[{}]", shown(&host));
        if let Some(name) = helper_name(&place, helper)? {
            let pattern = Pattern::parse(&host).ok_or_else(|| format!("{place}: there is no host in it"))?;
            config.helpers.insert(pattern.authority().to_owned(), name);
        }
    }
    config.store = helper_name("credsStore", fields.remove("credsStore").unwrap_or_default())?;
    Ok(config)
}

fn object(place: &str, value: Option<Value>) -> Result<Map<String, Value>, String> {
    match value {
        None | Some(Value::Null) => Ok(Map::new()),
        Some(Value::Object(fields)) => Ok(fields),
        Some(_) => Err(format!("{place} is not a JSON object")),
    }
}

fn entries(parent: &str, fields: Map<String, Value>) -> Result<Vec<(Pattern, Credential)>, String> {
    let mut entries = Vec::with_capacity(fields.len());
    for (key, value) in fields {
        let place = format!("{parent}[{}]", shown(&key));
        let Some(credential) = credential(&place, object(&place, Some(value))?)? else { continue };
        let pattern = Pattern::parse(&key).ok_or_else(|| format!("{place}: there is no host in it"))?;
        entries.push((pattern, credential));
    }
    entries.sort_by(|(one, _), (other, _)| other.cmp(one));
    Ok(entries)
}

/// What an entry holds. `None` for an empty one, by which Docker notes that a helper has the credentials.
fn credential(place: &str, mut fields: Map<String, Value>) -> Result<Option<Credential>, String> {
    let mut text = |name: &str| match fields.remove(name) {
        None | Some(Value::Null) => Ok(String::new()),
        Some(Value::String(text)) => Ok(text),
        Some(_) => Err(format!("{place}.{name} is not a string")),
    };
    let (registry_token, identity_token) = (text("registrytoken")?, text("identitytoken")?);
    let (mut username, mut password) = (text("username")?, text("password")?);
    let auth = text("auth")?;
    if !auth.is_empty() {
        (username, password) = decode(&auth).map_err(|problem| format!("{place}.auth {problem}"))?;
    }
    Ok(if !registry_token.is_empty() {
        Some(Credential::Bearer(Secret::new(registry_token)))
    } else if !identity_token.is_empty() {
        Some(Credential::Identity(Secret::new(identity_token)))
    } else {
        basic(username, password)
    })
}

/// A user and password, or the identity token that stands for the password of a user called `<token>`, as Docker has it.
pub(crate) fn basic(username: String, password: String) -> Option<Credential> {
    match &*username {
        "" if password.is_empty() => None,
        "<token>" => Some(Credential::Identity(Secret::new(password))),
        _ => Some(Credential::Basic { username, password: Secret::new(password) }),
    }
}

/// `base64(username:password)`, with or without padding.
fn decode(auth: &str) -> Result<(String, String), &'static str> {
    let text: String = auth.chars().filter(|c| !c.is_ascii_whitespace()).collect();
    let bytes = BASE64.decode(text).map_err(|_| "is not base64")?;
    let text = String::from_utf8(bytes).map_err(|_| "is not base64 of a text")?;
    let (username, password) = text.split_once(':').ok_or("is not base64 of username:password")?;
    // Some that have written such files filled them up with zeros, which Docker takes away.
    Ok((username.to_owned(), password.trim_end_matches('\0').to_owned()))
}

fn helper_name(place: &str, value: Value) -> Result<Option<String>, String> {
    match value {
        Value::Null => Ok(None),
        Value::String(name) if name.is_empty() => Ok(None),
        // It becomes part of a program's name, and must not lead to another directory.
        Value::String(name)
            if name.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'.')) =>
        {
            Ok(Some(name))
        }
        Value::String(_) => Err(format!("{place} is not the name of a credential helper")),
        _ => Err(format!("{place} is not a string")),
    }
}

fn shown(key: &str) -> String {
    format!("{:?}", key.chars().take(MOST_SHOWN).collect::<String>())
}

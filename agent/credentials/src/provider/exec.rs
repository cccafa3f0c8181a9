//! One question to a provider: `CredentialProviderRequest` and `CredentialProviderResponse`.

use std::ffi::OsStr;
use std::time::Duration;

use coracle_model::{ImageName, go_duration};
use coracle_registry::Credential;
use serde_json::{Value, json};

use super::config::Config;
use crate::ask;
use crate::docker::basic;
use crate::pattern::Pattern;

/// What a provider has answered.
#[derive(Clone, Debug)]
pub(super) struct Answer {
    /// What it is an answer for.
    pub(super) key: Key,
    /// For how long.
    pub(super) good_for: Duration,
    /// What is meant first stands first.
    entries: Vec<(Pattern, Credential)>,
}

/// `cacheKeyType`: for what else an answer is good.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) enum Key {
    /// This repository.
    Image(String),
    /// Every image of this registry.
    Registry(String),
    /// Every image the provider is asked for.
    Global,
}

// === impl Answer ===

impl Answer {
    /// What it holds for an image, the longest match first.
    pub(super) fn credentials(&self, name: &ImageName) -> impl Iterator<Item = &Credential> {
        let matching = self.entries.iter().filter(|(pattern, _)| pattern.matches(name));
        matching.map(|(_, credential)| credential)
    }
}

/// Asks a provider for an image. An error shows nothing of what it says.
pub(super) fn ask(config: &Config, name: &ImageName) -> Result<Answer, String> {
    // As in the kubelet, without tag and digest.
    let request = json!({
        "kind": "CredentialProviderRequest",
        "apiVersion": config.api_version,
        "image": name.repository(),
    });
    let variables: Vec<(&OsStr, &OsStr)> =
        config.variables.iter().map(|(name, value)| (name.as_os_str(), value.as_os_str())).collect();
    let answer = ask::ask(&config.program, &config.arguments, &variables, &request.to_string())?;
    if !answer.status.success() {
        return Err(ask::failed(&answer));
    }
    let response = serde_json::from_slice(&answer.stdout).map_err(|error| {
        format!("its answer is not JSON from line {}, column {} on", error.line(), error.column())
    })?;
    read(config, name, &response).map_err(|problem| format!("its answer cannot be used: {problem}"))
}

fn read(config: &Config, name: &ImageName, response: &Value) -> Result<Answer, String> {
    let text = |field: &str| response.get(field).and_then(Value::as_str).unwrap_or_default();
    if text("kind") != "CredentialProviderResponse" || text("apiVersion") != config.api_version {
        return Err(format!("it is no CredentialProviderResponse of {}", config.api_version));
    }
    let key = match text("cacheKeyType") {
        "Image" => Key::Image(name.repository()),
        "Registry" => Key::Registry(name.domain().to_owned()),
        "Global" => Key::Global,
        _ => return Err("cacheKeyType is not Image, Registry or Global".to_owned()),
    };
    let good_for = match response.get("cacheDuration") {
        None | Some(Value::Null) => config.default_cache_duration,
        Some(duration) => match duration.as_str().map(|text| (text.starts_with('-'), go_duration(text))) {
            // What is good for less than no time is not kept.
            Some((true, _)) => Duration::ZERO,
            Some((false, Some(duration))) => duration,
            _ => return Err("cacheDuration is no duration such as 10m".to_owned()),
        },
    };
    let mut entries = Vec::new();
    let none = serde_json::Map::new();
    let auth = match response.get("auth") {
        None | Some(Value::Null) => &none,
        Some(Value::Object(auth)) => auth,
        Some(_) => return Err("auth is not a JSON object".to_owned()),
    };
    for (images, entry) in auth {
        let text = |field: &str| match entry.get(field) {
            None | Some(Value::Null) => Ok(String::new()),
            Some(Value::String(text)) => Ok(text.clone()),
            Some(_) => Err(format!("{field} of an entry of auth is not a string")),
        };
        let pattern = Pattern::parse(images).ok_or("an entry of auth names no registry")?;
        entries.extend(basic(text("username")?, text("password")?).map(|credential| (pattern, credential)));
    }
    entries.sort_by(|(one, _), (other, _)| other.cmp(one));
    Ok(Answer { key, good_for, entries })
}

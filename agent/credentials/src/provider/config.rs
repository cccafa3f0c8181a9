//! `CredentialProviderConfig` (kubelet.config.k8s.io/v1).
//!
//! It is read by hand: what a parser says would show the values, and those of `env` may be secrets.

use std::collections::HashSet;
use std::ffi::OsString;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use coracle_model::{ImageName, go_duration};
use serde_json::{Map, Value};

use crate::CredentialError;
use crate::pattern::Pattern;

/// Of the configuration, and of what providers are asked: the versions differ in nothing that is used here.
const CONFIG_VERSIONS: [&str; 3] =
    ["kubelet.config.k8s.io/v1", "kubelet.config.k8s.io/v1beta1", "kubelet.config.k8s.io/v1alpha1"];
const VERSIONS: [&str; 3] = [
    "credentialprovider.kubelet.k8s.io/v1",
    "credentialprovider.kubelet.k8s.io/v1beta1",
    "credentialprovider.kubelet.k8s.io/v1alpha1",
];
/// The most a file may hold, in bytes.
const MOST_BYTES: u64 = 1 << 20;

/// One of `providers`.
#[derive(Debug)]
pub(super) struct Config {
    /// `name`.
    pub(super) name: String,
    /// `apiVersion`: what it is asked in.
    pub(super) api_version: &'static str,
    /// `defaultCacheDuration`: how long an answer is good that does not say.
    pub(super) default_cache_duration: Duration,
    /// Its program.
    pub(super) program: PathBuf,
    /// `args`.
    pub(super) arguments: Vec<OsString>,
    /// `env`, beside the agent's own.
    pub(super) variables: Vec<(OsString, OsString)>,
    /// `matchImages`.
    patterns: Vec<Pattern>,
}

// === impl Config ===

impl Config {
    /// Whether it is asked for this image.
    pub(super) fn matches(&self, name: &ImageName) -> bool {
        self.patterns.iter().any(|pattern| pattern.matches(name))
    }
}

/// Reads a file, or the files of a directory in the order of their names.
pub(super) fn load(path: &Path, bin_dir: &Path) -> Result<Vec<Config>, CredentialError> {
    let mut configs: Vec<Config> = Vec::new();
    let mut names = HashSet::new();
    for file in files(path).map_err(|source| CredentialError::Read { path: path.to_owned(), source })? {
        let wrong = |problem| CredentialError::ProviderConfig { path: file.clone(), problem };
        let text = read(&file).map_err(|source| CredentialError::Read { path: file.clone(), source })?;
        for config in parse(&text, bin_dir).map_err(wrong)? {
            if !names.insert(config.name.clone()) {
                return Err(wrong(format!("the provider {:?} is configured twice", config.name)));
            }
            configs.push(config);
        }
    }
    Ok(configs)
}

fn files(path: &Path) -> io::Result<Vec<PathBuf>> {
    if !fs::metadata(path)?.is_dir() {
        return Ok(vec![path.to_owned()]);
    }
    let mut files = Vec::new();
    for entry in fs::read_dir(path)? {
        let path = entry?.path();
        let extension = path.extension().and_then(|extension| extension.to_str());
        if matches!(extension, Some("json" | "yaml" | "yml")) && !path.is_dir() {
            files.push(path);
        }
    }
    if files.is_empty() {
        return Err(io::Error::new(io::ErrorKind::NotFound, "no .json, .yaml or .yml file is in it"));
    }
    files.sort();
    Ok(files)
}

fn read(file: &Path) -> io::Result<String> {
    if fs::metadata(file)?.len() > MOST_BYTES {
        return Err(io::Error::other(format!("it is larger than {MOST_BYTES} bytes")));
    }
    fs::read_to_string(file)
}

fn parse(text: &str, bin_dir: &Path) -> Result<Vec<Config>, String> {
    let value: Value = serde_saphyr::from_str(text).map_err(|error| match error.location() {
        Some(at) => format!("line {}, column {}: it is not YAML", at.line(), at.column()),
        None => "it is not YAML".to_owned(),
    })?;
    let mut fields = Fields::of(String::new(), value)?;
    let kind = fields.text("kind")?;
    if kind != "CredentialProviderConfig" {
        return Err(format!("kind: Invalid value: {kind:?}: must be CredentialProviderConfig"));
    }
    fields.one_of("apiVersion", &CONFIG_VERSIONS)?;
    let providers = fields.list("providers")?;
    fields.end()?;
    if providers.is_empty() {
        return Err("providers: Required value: at least one".to_owned());
    }
    let parsed = providers.into_iter().enumerate();
    parsed.map(|(index, provider)| parse_provider(format!("providers[{index}]"), provider, bin_dir)).collect()
}

fn parse_provider(place: String, provider: Value, bin_dir: &Path) -> Result<Config, String> {
    let mut fields = Fields::of(place.clone(), provider)?;
    let name = fields.text("name")?;
    if name.is_empty() || name.contains(['/', ' ']) || matches!(&*name, "." | "..") {
        return Err(format!("{place}.name: Invalid value: {name:?}: must be the name of a program"));
    }
    let api_version = fields.one_of("apiVersion", &VERSIONS)?;
    if fields.take("tokenAttributes").is_some() {
        return Err(format!(
            "{place}.tokenAttributes: not supported: no API server is joined that could issue the tokens of service accounts"
        ));
    }
    let default = fields.text("defaultCacheDuration")?;
    let default_cache_duration = go_duration(&default).ok_or_else(|| {
        format!(
            "{place}.defaultCacheDuration: Invalid value: {default:?}: must be a duration such as 12h, and not negative"
        )
    })?;
    let mut patterns = Vec::new();
    for (index, image) in fields.list("matchImages")?.into_iter().enumerate() {
        let pattern = image.as_str().and_then(Pattern::parse);
        patterns.push(pattern.ok_or_else(|| {
            format!("{place}.matchImages[{index}]: must be a registry's host, with a path if need be")
        })?);
    }
    if patterns.is_empty() {
        return Err(format!("{place}.matchImages: Required value: at least one"));
    }
    let mut arguments = Vec::new();
    for (index, argument) in fields.list("args")?.into_iter().enumerate() {
        let Value::String(argument) = argument else {
            return Err(format!("{place}.args[{index}] is not a string"));
        };
        arguments.push(argument.into());
    }
    let mut variables = Vec::new();
    for (index, variable) in fields.list("env")?.into_iter().enumerate() {
        let place = format!("{place}.env[{index}]");
        let mut variable = Fields::of(place.clone(), variable)?;
        let (name, value) = (variable.text("name")?, variable.text_or_nothing("value")?);
        variable.end()?;
        if name.is_empty() || name.contains(['=', '\0']) || value.contains('\0') {
            return Err(format!("{place} is no variable that a program could have"));
        }
        variables.push((name.into(), value.into()));
    }
    fields.end()?;
    let program = coracle_program::find(&name, [bin_dir]).ok_or_else(|| {
        format!("{place}.name: there is no program {name:?} in {} that could be executed", bin_dir.display())
    })?;
    Ok(Config { name, api_version, default_cache_duration, program, arguments, variables, patterns })
}

/// A mapping that is taken apart field by field.
struct Fields {
    place: String,
    fields: Map<String, Value>,
}

// === impl Fields ===

impl Fields {
    fn of(place: String, value: Value) -> Result<Self, String> {
        match value {
            Value::Object(fields) => Ok(Self { place, fields }),
            _ if place.is_empty() => Err("it is not a mapping".to_owned()),
            _ => Err(format!("{place} is not a mapping")),
        }
    }

    fn path(&self, name: &str) -> String {
        if self.place.is_empty() { name.to_owned() } else { format!("{}.{name}", self.place) }
    }

    fn take(&mut self, name: &str) -> Option<Value> {
        self.fields.remove(name).filter(|value| !value.is_null())
    }

    fn text(&mut self, name: &str) -> Result<String, String> {
        match self.take(name) {
            Some(Value::String(text)) => Ok(text),
            Some(_) => Err(format!("{} is not a string", self.path(name))),
            None => Err(format!("{}: Required value", self.path(name))),
        }
    }

    fn text_or_nothing(&mut self, name: &str) -> Result<String, String> {
        if self.fields.get(name).is_none_or(Value::is_null) { Ok(String::new()) } else { self.text(name) }
    }

    fn one_of(&mut self, name: &str, supported: &[&'static str]) -> Result<&'static str, String> {
        let text = self.text(name)?;
        supported.iter().find(|one| **one == text).copied().ok_or_else(|| {
            format!(
                "{}: Unsupported value: {text:?}: supported values: {}",
                self.path(name),
                supported.join(", ")
            )
        })
    }

    fn list(&mut self, name: &str) -> Result<Vec<Value>, String> {
        match self.take(name) {
            None => Ok(Vec::new()),
            Some(Value::Array(items)) => Ok(items),
            Some(_) => Err(format!("{} is not a list", self.path(name))),
        }
    }

    /// What is left is unknown: a misspelt field that is silently not applied is worse than one that is refused.
    fn end(self) -> Result<(), String> {
        match self.fields.keys().next() {
            Some(name) => Err(format!("{}: unknown field", self.path(name))),
            None => Ok(()),
        }
    }
}

//! The settings that count, as a file would say them, and who has said so.

use std::collections::BTreeMap;
use std::fmt;
use std::path::{Path, PathBuf};

use coracle_document::{Node, Value as Written};
use coracle_model::go_duration;
use serde_json::{Map, Value, json};

use super::flags::Overrides;
use super::kubelet;
use super::table::{Change, Default, FIELDS, Field, Kind};
use crate::duration::go_text;

/// What stands in place of a secret.
const MASK: &str = "<masked>";

/// The value of every field that has one.
#[derive(Clone, Default, PartialEq)]
pub(crate) struct Settings(BTreeMap<&'static str, Value>);

/// Where a setting comes from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Origin {
    Default,
    /// The file and the line.
    File(PathBuf, u32),
    Flag(&'static str),
}

/// What is different between two configurations, by the names of fields.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Changes {
    /// What counts at once.
    pub(crate) live: Vec<&'static str>,
    /// What waits for the next start of the agent.
    pub(crate) restart: Vec<&'static str>,
}

/// What is different from `old` to `new`.
pub(crate) fn changes(old: &Settings, new: &Settings) -> Changes {
    let mut changes = Changes::default();
    for field in FIELDS.iter().filter(|field| old.0.get(field.name) != new.0.get(field.name)) {
        match field.change {
            Change::Live => changes.live.push(field.name),
            Change::Start => changes.restart.push(field.name),
        }
    }
    changes
}

// === impl Settings ===

impl Settings {
    /// What flags, else the file, else the defaults say. `file` is the mapping, with what is not set left out.
    pub(super) fn of(
        flags: &Overrides,
        path: &Path,
        file: Option<&Node<'_>>,
        node_name: &str,
    ) -> (Self, BTreeMap<&'static str, Origin>) {
        let (mut settings, mut origins) = (BTreeMap::new(), BTreeMap::new());
        let entry = |field: &Field| file?.entries().iter().find(|entry| entry.key == field.name);
        let given = flags.settings();
        for field in FIELDS {
            if let Some((flag, value)) =
                given.iter().find(|(name, ..)| *name == field.name).map(|it| (it.1, &it.2))
            {
                settings.insert(field.name, normal(field.kind, value.clone()));
                origins.insert(field.name, Origin::Flag(flag));
            } else if let Some(entry) = entry(field) {
                settings.insert(field.name, normal(field.kind, json_of(&entry.node)));
                origins.insert(field.name, Origin::File(path.to_owned(), entry.key_at.line));
            }
        }
        let root_dir =
            settings.get("rootDir").and_then(Value::as_str).unwrap_or("/var/lib/coracle").to_owned();
        let serialized = settings.contains_key("serializeImagePulls");
        for field in FIELDS {
            let default = match field.default {
                // Whoever says whether pulls are serialized has said how many there are at once.
                Default::Value(_) if field.name == "maxParallelImagePulls" && serialized => None,
                Default::Value(text) => Some(normal(field.kind, literal(text))),
                Default::Below(name) => Some(json!(Path::new(&root_dir).join(name))),
                Default::Nothing(_) if field.name == "nodeName" => Some(json!(node_name)),
                Default::Nothing(_) => None,
            };
            if let Some(default) = default.filter(|_| !settings.contains_key(field.name)) {
                settings.insert(field.name, default);
                origins.insert(field.name, Origin::Default);
            }
        }
        (Self(settings), origins)
    }

    /// The value of a field, with its secrets masked.
    pub(crate) fn shown(&self, field: &Field) -> Option<Value> {
        let value = self.0.get(field.name)?;
        Some(match (field.kind, value) {
            (Kind::Headers, Value::Object(headers)) => {
                let masked = headers.iter().map(|(name, values)| {
                    let count = values.as_array().map_or(1, Vec::len);
                    (name.clone(), json!(vec![MASK; count]))
                });
                Value::Object(masked.collect())
            }
            (Kind::Text, Value::String(text)) if field.name == "staticPodURL" => {
                json!(super::manifest_url::shown(text))
            }
            (_, value) => value.clone(),
        })
    }

    /// What the kubelet's `/configz` has: every setting, secrets masked, and of the kubelet's own fields what the node
    /// does in any case.
    pub(crate) fn configz(&self) -> Map<String, Value> {
        let own = FIELDS.iter().filter_map(|field| Some((field.name.to_owned(), self.shown(field)?)));
        kubelet::fixed().map(|(name, value)| (name.to_owned(), value)).chain(own).collect()
    }

    /// These, with the values of `new` for all that changes at once.
    pub(crate) fn with_live_of(&self, new: &Self) -> Self {
        let of = |change| move |field: &&Field| field.change == change;
        let pick = |from: &Self, field: &Field| Some((field.name, from.0.get(field.name)?.clone()));
        let stays = FIELDS.iter().filter(of(Change::Start)).filter_map(|field| pick(self, field));
        let changes = FIELDS.iter().filter(of(Change::Live)).filter_map(|field| pick(new, field));
        Self(stays.chain(changes).collect())
    }
}

impl fmt::Debug for Settings {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_map()
            .entries(FIELDS.iter().filter_map(|field| Some((field.name, self.shown(field)?))))
            .finish()
    }
}

impl Eq for Settings {}

// === impl Origin ===

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Default => f.write_str("default"),
            Self::File(path, line) => write!(f, "{}:{line}", path.display()),
            Self::Flag(name) => f.write_str(name),
        }
    }
}

/// One way to write what can be written in several.
fn normal(kind: Kind, value: Value) -> Value {
    match (kind, &value) {
        (Kind::Duration, Value::String(text)) => go_duration(text).map_or(value, |it| json!(go_text(it))),
        _ => value,
    }
}

/// A value of the table, which is written so that it can be read.
pub(super) fn literal(text: &str) -> Value {
    let mut faults = coracle_document::Faults::default();
    let read = coracle_document::read(text.as_bytes(), &mut faults);
    match read.ok().and_then(|documents| documents.into_iter().next()) {
        Some(node) => json_of(&node),
        // Nothing at all is an empty text here.
        None => json!(text),
    }
}

pub(super) fn json_of(node: &Node<'_>) -> Value {
    match &node.value {
        Written::Null => Value::Null,
        Written::Bool(value) => json!(value),
        Written::Int(value) => json!(value),
        Written::UInt(value) => json!(value),
        Written::Float(value) => json!(value),
        Written::Text(text) => json!(text),
        Written::List(items) => items.iter().map(json_of).collect(),
        Written::Map(entries) => entries.iter().map(|it| (it.key.to_string(), json_of(&it.node))).collect(),
    }
}

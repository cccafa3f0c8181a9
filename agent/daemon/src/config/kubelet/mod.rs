//! Fields of `KubeletConfiguration` that only the kubelet acts on.

pub(in crate::config) mod table;

use coracle_document::{Node, Value as Written};
use coracle_model::go_duration;
use serde_json::{Value, json};

use table::{FIELDS, Fate, Is, Kind, KubeletField};

/// What becomes of a field.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::config) enum Verdict {
    /// It says what is so in any case, or nothing.
    Accepted,
    /// It is left out of account, and why.
    NoEffect(String),
    /// It cannot be used, and why.
    Refused(String),
}

/// Looks at a field as it is set.
pub(in crate::config) fn judge(field: &KubeletField, node: &Node<'_>) -> Verdict {
    if is_unset(field.kind, node) {
        return Verdict::Accepted;
    }
    if let Some(needed) = mistyped(field.kind, node) {
        return Verdict::Refused(format!("Invalid value: {}: must be {needed}", node.describe()));
    }
    match field.fate {
        Fate::NoEffect => Verdict::NoEffect(format!("has no effect: {}", field.why)),
        Fate::Same(values) if values.iter().any(|value| value.is(node)) => Verdict::Accepted,
        Fate::Same(values) => {
            let instead =
                values.first().map_or_else(String::new, |value| format!(" or set it to {}", value.text()));
            Verdict::Refused(format!("not supported yet: {}; leave it out{instead}", field.why))
        }
    }
}

/// What the node does in any case, as a file would say it.
pub(in crate::config) fn fixed() -> impl Iterator<Item = (&'static str, Value)> {
    FIELDS.iter().filter_map(|field| match field.fate {
        Fate::Same([first, ..]) => Some((field.name, first.value())),
        Fate::Same([]) | Fate::NoEffect => None,
    })
}

/// The kubelet takes an empty value for none. So does whoever writes all fields down, as kubeadm does.
fn is_unset(kind: Kind, node: &Node<'_>) -> bool {
    match (kind, &node.value) {
        (Kind::Duration, Written::Text(text)) => {
            text.is_empty() || go_duration(text).is_some_and(|duration| duration.is_zero())
        }
        (Kind::Bool | Kind::Number, value) => matches!(value, Written::Null),
        (Kind::Thresholds, Written::Map(entries)) => entries.iter().all(|entry| never_met(&entry.node)),
        (_, _) => is_empty(node),
    }
}

/// Whether it is a threshold that the kubelet leaves out, which is how eviction is switched off.
fn never_met(node: &Node<'_>) -> bool {
    is_empty(node) || matches!(&node.value, Written::Text(text) if matches!(text.as_ref(), "0%" | "100%"))
}

fn is_empty(node: &Node<'_>) -> bool {
    match &node.value {
        Written::Null | Written::Int(0) => true,
        Written::Text(text) => matches!(text.as_ref(), "" | "0" | "0s"),
        Written::List(items) => items.is_empty(),
        Written::Map(entries) => entries.iter().all(|entry| is_empty(&entry.node)),
        Written::Bool(_) | Written::Int(_) | Written::UInt(_) | Written::Float(_) => false,
    }
}

/// What the value should be, where it is not.
fn mistyped(kind: Kind, node: &Node<'_>) -> Option<&'static str> {
    let text = |node: &Node<'_>| matches!(node.value, Written::Text(_));
    let number =
        |node: &Node<'_>| matches!(node.value, Written::Int(_) | Written::UInt(_) | Written::Float(_));
    let all = |of: &dyn Fn(&Node<'_>) -> bool| match &node.value {
        Written::List(items) => items.iter().all(of),
        _ => false,
    };
    let map = matches!(node.value, Written::Map(_));
    let (fits, words) = match kind {
        Kind::Bool => (matches!(node.value, Written::Bool(_)), "true or false"),
        Kind::Number => (number(node), "a number"),
        Kind::Text => (text(node), "a string"),
        Kind::Duration => {
            let duration = matches!(&node.value, Written::Text(text) if go_duration(text).is_some());
            (duration, "a duration such as 30s, 2m or 1h30m, and not negative")
        }
        Kind::Texts => (all(&text), "a list of strings"),
        Kind::Numbers => (all(&number), "a list of numbers"),
        Kind::Objects => (all(&|item| matches!(item.value, Written::Map(_))), "a list of mappings"),
        Kind::Object => (map, "a mapping"),
        Kind::TextMap | Kind::Thresholds => {
            (map && node.entries().iter().all(|it| text(&it.node)), "a mapping to strings")
        }
    };
    (!fits).then_some(words)
}

// === impl Is ===

impl Is {
    fn is(&self, node: &Node<'_>) -> bool {
        match (self, &node.value) {
            (Self::Bool(wanted), Written::Bool(value)) => wanted == value,
            (Self::Number(wanted), Written::Int(value)) => wanted == value,
            (Self::Text(wanted), Written::Text(text)) => {
                *wanted == text || go_duration(wanted).is_some() && go_duration(wanted) == go_duration(text)
            }
            (Self::Texts(wanted), Written::List(items)) => {
                let text =
                    |item: &Node<'_>, wanted: &str| matches!(&item.value, Written::Text(it) if it == wanted);
                items.len() == wanted.len()
                    && items.iter().zip(*wanted).all(|(item, wanted)| text(item, wanted))
            }
            (Self::Only(name, wanted), Written::Map(entries)) => entries
                .iter()
                .filter(|entry| !is_empty(&entry.node))
                .all(|it| it.key == *name && wanted.is(&it.node)),
            _ => false,
        }
    }

    fn value(&self) -> Value {
        match self {
            Self::Bool(value) => json!(value),
            Self::Number(value) => json!(value),
            Self::Text(text) => json!(text),
            Self::Texts(texts) => json!(texts),
            Self::Only(name, value) => json!({ *name: value.value() }),
        }
    }

    /// In YAML's flow style.
    pub(in crate::config) fn text(&self) -> String {
        match self {
            Self::Bool(value) => value.to_string(),
            Self::Number(value) => value.to_string(),
            Self::Text(text) => (*text).to_owned(),
            Self::Texts(texts) => format!("[{}]", texts.join(", ")),
            Self::Only(name, value) => format!("{{{name}: {}}}", value.text()),
        }
    }
}

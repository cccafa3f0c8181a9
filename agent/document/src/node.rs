//! A document as a tree in which every value knows its place in the file.

use std::borrow::Cow;

use crate::fault::quote;
use crate::path::{FieldPath, Segment};

/// Line and column, both from 1; the column counts characters.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Location {
    /// From 1.
    pub line: u32,
    /// From 1.
    pub column: u32,
}

/// A value and its place.
#[derive(Clone, Debug)]
pub struct Node<'a> {
    /// The value.
    pub value: Value<'a>,
    /// Where it begins.
    pub at: Location,
}

/// What JSON can say; texts are borrowed from the input where it holds them as they are.
#[derive(Clone, Debug)]
pub enum Value<'a> {
    /// Nothing.
    Null,
    /// A boolean, of YAML 1.1 too.
    Bool(bool),
    /// A whole number.
    Int(i64),
    /// Only above `i64::MAX`.
    UInt(u64),
    /// Finite.
    Float(f64),
    /// Text.
    Text(Cow<'a, str>),
    /// A list.
    List(Vec<Node<'a>>),
    /// In the file's order; keys are unique.
    Map(Vec<Entry<'a>>),
}

/// One entry of a map.
#[derive(Clone, Debug)]
pub struct Entry<'a> {
    /// The key.
    pub key: Cow<'a, str>,
    /// Where the key is.
    pub key_at: Location,
    /// The value.
    pub node: Node<'a>,
}

// === impl Location ===

impl Location {
    /// Where every text begins.
    pub const START: Self = Self { line: 1, column: 1 };

    /// The place of a byte of `text`.
    pub fn of_offset(text: &str, offset: usize) -> Self {
        let before = text.get(..offset).unwrap_or(text);
        let line = before.bytes().filter(|byte| *byte == b'\n').count() + 1;
        let column = before.rsplit('\n').next().unwrap_or_default().chars().count() + 1;
        Self { line: to_u32(line), column: to_u32(column) }
    }
}

/// Lines and columns of an input of a few megabytes always fit.
pub(crate) fn to_u32(number: usize) -> u32 {
    u32::try_from(number).unwrap_or(u32::MAX)
}

// === impl Node ===

impl<'a> Node<'a> {
    /// The entries of a map, or nothing.
    pub fn entries(&self) -> &[Entry<'a>] {
        match &self.value {
            Value::Map(entries) => entries,
            _ => &[],
        }
    }

    /// The value under a key of a map.
    pub fn get(&self, key: &str) -> Option<&Node<'a>> {
        self.entries().iter().find(|entry| entry.key == key).map(|entry| &entry.node)
    }

    /// The text under a key of a map.
    pub fn get_text(&self, key: &str) -> Option<&str> {
        match self.get(key)?.value {
            Value::Text(ref text) => Some(text),
            _ => None,
        }
    }

    /// Where a path leads: the place of its value, or of the deepest part of it that is there. A field
    /// that holds a list or map is better found at its key.
    pub fn locate(&self, path: &FieldPath) -> Location {
        let (mut node, mut at) = (self, self.at);
        for segment in &path.0 {
            let next = match (segment, &node.value) {
                (Segment::Index(index), Value::List(items)) => items.get(*index).map(|item| (item, item.at)),
                (Segment::Field(name) | Segment::Key(name), Value::Map(entries)) => {
                    entries.iter().find(|entry| entry.key == *name).map(|entry| {
                        let scalar =
                            !matches!(entry.node.value, Value::List(_) | Value::Map(_) | Value::Null);
                        (&entry.node, if scalar { entry.node.at } else { entry.key_at })
                    })
                }
                _ => None,
            };
            match next {
                Some((deeper, place)) => (node, at) = (deeper, place),
                None => break,
            }
        }
        at
    }

    /// The node a path leads to.
    pub fn find_mut(&mut self, path: &[Segment]) -> Option<&mut Node<'a>> {
        let mut node = self;
        for segment in path {
            node = match (segment, &mut node.value) {
                (Segment::Index(index), Value::List(items)) => items.get_mut(*index)?,
                (Segment::Field(name) | Segment::Key(name), Value::Map(entries)) => {
                    &mut entries.iter_mut().find(|entry| entry.key == *name)?.node
                }
                _ => return None,
            };
        }
        Some(node)
    }

    /// The value in short, for a message.
    pub fn describe(&self) -> String {
        match &self.value {
            Value::Null => "null".to_owned(),
            Value::Bool(value) => value.to_string(),
            Value::Int(value) => value.to_string(),
            Value::UInt(value) => value.to_string(),
            Value::Float(value) => value.to_string(),
            Value::Text(text) => quote(text),
            Value::List(_) => "a list".to_owned(),
            Value::Map(_) => "a mapping".to_owned(),
        }
    }

    /// Appends a form that depends on nothing but the values: JSON, keys sorted, nulls left out.
    pub fn write_canonical(&self, out: &mut String) {
        match &self.value {
            Value::Null => out.push_str("null"),
            Value::Bool(value) => out.push_str(if *value { "true" } else { "false" }),
            Value::Int(value) => out.push_str(&value.to_string()),
            Value::UInt(value) => out.push_str(&value.to_string()),
            Value::Float(value) => out.push_str(&value.to_string()),
            Value::Text(text) => write_text(text, out),
            Value::List(items) => {
                out.push('[');
                for (position, item) in items.iter().enumerate() {
                    if position > 0 {
                        out.push(',');
                    }
                    item.write_canonical(out);
                }
                out.push(']');
            }
            Value::Map(entries) => {
                let mut sorted: Vec<_> =
                    entries.iter().filter(|entry| !matches!(entry.node.value, Value::Null)).collect();
                sorted.sort_by(|a, b| a.key.cmp(&b.key));
                out.push('{');
                for (position, entry) in sorted.into_iter().enumerate() {
                    if position > 0 {
                        out.push(',');
                    }
                    write_text(&entry.key, out);
                    out.push(':');
                    entry.node.write_canonical(out);
                }
                out.push('}');
            }
        }
    }
}

/// A JSON string; only quotes, backslashes and controls need escaping for it to be unambiguous.
fn write_text(text: &str, out: &mut String) {
    out.push('"');
    for character in text.chars() {
        match character {
            '"' | '\\' => out.extend(['\\', character]),
            control if u32::from(control) < 0x20 => {
                out.push_str(&format!("\\u{:04x}", u32::from(control)));
            }
            plain => out.push(plain),
        }
    }
    out.push('"');
}

//! The wire types out of a tree, with every fault that can be found.
//!
//! Serde stops at the first fault. So a fault is recorded with its path, the offending value is replaced
//! by one of the right type, and the tree is read again, until it is clean. Fields nobody knows are reported on
//! the way and do not stop the reading.

use std::cell::RefCell;
use std::fmt;

use serde::de::{self, DeserializeOwned, DeserializeSeed, Visitor};

use crate::fault::{Fault, Faults};
use crate::node::{Node, Value};
use crate::path::{FieldPath, Segment};

/// An object, when all its fields have the types they need. The tree is spoiled when they have not.
pub fn deserialize<T: DeserializeOwned>(tree: &mut Node<'_>, faults: &mut Faults) -> Option<Box<T>> {
    let mut replaced: Vec<FieldPath> = Vec::new();
    for _ in 0..ROUNDS {
        let unknown = RefCell::new(Vec::new());
        let result = T::deserialize(Reader { node: tree, unknown: &unknown });
        let mut error = match result {
            Ok(object) => {
                for fault in unknown.into_inner() {
                    faults.add(fault);
                }
                return replaced.is_empty().then(|| Box::new(object));
            }
            Err(error) => error,
        };
        error.path.reverse();
        let mut path = FieldPath(error.path);
        if replaced.contains(&path) {
            // What stands in for the value is refused too: its parent goes with it.
            path.0.pop()?;
            tree.find_mut(&path.0)?.value = Value::Null;
        } else {
            faults.add(Fault { at: Some(tree.locate(&path)), path: path.clone(), message: error.message });
            tree.find_mut(&path.0)?.value = match error.needed {
                Needed::Text => Value::Text("".into()),
                Needed::Integer => Value::Int(0),
                Needed::Bool => Value::Bool(false),
                Needed::List => Value::List(Vec::new()),
                Needed::Map => Value::Map(Vec::new()),
                Needed::Other => Value::Null,
            };
        }
        replaced.push(path);
    }
    None
}

/// A document with more wrong values than this is no manifest; the first ones say so.
const ROUNDS: usize = 50;

/// More unknown fields than are ever listed are not collected.
const UNKNOWN: usize = 100;

/// What the wire type has where the document has something else.
#[derive(Clone, Copy, Debug)]
enum Needed {
    Text,
    Integer,
    Bool,
    List,
    Map,
    Other,
}

struct Reader<'t, 'a> {
    node: &'t Node<'a>,
    unknown: &'t RefCell<Vec<Fault>>,
}

/// A value of the wrong type.
#[derive(Debug)]
struct Error {
    /// From the inside out.
    path: Vec<Segment>,
    message: String,
    needed: Needed,
}

// === impl Error ===

impl Error {
    fn within(mut self, segment: Segment) -> Self {
        self.path.push(segment);
        self
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl std::error::Error for Error {}

impl de::Error for Error {
    fn custom<T: fmt::Display>(message: T) -> Self {
        Self { path: Vec::new(), message: message.to_string(), needed: Needed::Other }
    }
}

// === impl Reader ===

impl<'t, 'a> Reader<'t, 'a> {
    fn wrong(&self, needed: Needed, words: &str) -> Error {
        let hint = match (&self.node.value, needed) {
            (Value::Bool(_), Needed::Text) => {
                " (put it in quotes; yes, no, on, off, y and n are booleans too)"
            }
            (Value::Int(_) | Value::UInt(_) | Value::Float(_), Needed::Text) => " (put it in quotes)",
            (Value::Text(text), Needed::Bool) if matches!(text.as_ref(), "true" | "false") => {
                " (without quotes)"
            }
            (Value::Text(text), Needed::Integer) if text.parse::<i64>().is_ok() => " (without quotes)",
            _ => "",
        };
        let message = format!("Invalid value: {}: must be {words}{hint}", self.node.describe());
        Error { path: Vec::new(), message, needed }
    }

    fn with(&self, node: &'t Node<'a>) -> Self {
        Self { node, unknown: self.unknown }
    }

    /// An integer, also when it is written `80.0`, which Kubernetes takes.
    fn integer(&self, least: i64, most: i64) -> Result<i64, Error> {
        let value = match self.node.value {
            Value::Int(value) => Some(value),
            // Below 2^53 a float is an exact integer.
            #[expect(clippy::cast_possible_truncation, reason = "the range is checked on the same line")]
            Value::Float(value) if value.fract() == 0.0 && value.abs() < 9_007_199_254_740_992.0 => {
                Some(value as i64)
            }
            Value::UInt(_) => None,
            _ => return Err(self.wrong(Needed::Integer, "an integer")),
        };
        match value {
            Some(value) if (least..=most).contains(&value) => Ok(value),
            _ => Err(self.wrong(Needed::Integer, &format!("an integer between {least} and {most}"))),
        }
    }

    fn read_list<V: Visitor<'a>>(&self, visitor: V) -> Result<V::Value, Error> {
        match &self.node.value {
            Value::List(items) => visitor.visit_seq(Items { reader: self, items: items.iter(), position: 0 }),
            _ => Err(self.wrong(Needed::List, "a list")),
        }
    }

    fn read_map<V: Visitor<'a>>(
        &self,
        known: Option<&'static [&'static str]>,
        visitor: V,
    ) -> Result<V::Value, Error> {
        match &self.node.value {
            Value::Map(_) => visitor.visit_map(Fields { reader: self, known, position: 0 }),
            _ => Err(self.wrong(Needed::Map, "a mapping")),
        }
    }
}

/// The known field a misspelt one most likely means.
pub fn nearest(name: &str, known: &[&'static str]) -> Option<&'static str> {
    if let Some(same) = known.iter().find(|field| field.eq_ignore_ascii_case(name)) {
        return Some(same);
    }
    known
        .iter()
        .map(|field| (distance(name.as_bytes(), field.as_bytes()), *field))
        .filter(|(distance, field)| *distance <= 2 && *distance * 3 <= field.len())
        .min()
        .map(|(_, field)| field)
}

/// Levenshtein's distance; names longer than any field's are not measured.
fn distance(a: &[u8], b: &[u8]) -> usize {
    if a.len().abs_diff(b.len()) > 2 {
        return usize::MAX / 4;
    }
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, x) in a.iter().enumerate() {
        let mut diagonal = std::mem::replace(&mut row[0], i + 1);
        for (j, y) in b.iter().enumerate() {
            let cost = (diagonal + usize::from(x != y)).min(row[j] + 1).min(row[j + 1] + 1);
            diagonal = std::mem::replace(&mut row[j + 1], cost);
        }
    }
    row[b.len()]
}

struct Items<'r, 't, 'a> {
    reader: &'r Reader<'t, 'a>,
    items: std::slice::Iter<'t, Node<'a>>,
    position: usize,
}

impl<'a> de::SeqAccess<'a> for Items<'_, '_, 'a> {
    type Error = Error;

    fn next_element_seed<T: DeserializeSeed<'a>>(&mut self, seed: T) -> Result<Option<T::Value>, Error> {
        let Some(item) = self.items.next() else { return Ok(None) };
        let index = self.position;
        self.position += 1;
        let before = self.reader.unknown.borrow().len();
        let value = seed.deserialize(self.reader.with(item));
        prefix_unknown(self.reader, before, &Segment::Index(index));
        value.map(Some).map_err(|error| error.within(Segment::Index(index)))
    }

    fn size_hint(&self) -> Option<usize> {
        Some(self.items.len())
    }
}

struct Fields<'r, 't, 'a> {
    reader: &'r Reader<'t, 'a>,
    /// The fields of an object; `None` for a map with free keys.
    known: Option<&'static [&'static str]>,
    position: usize,
}

impl<'a> de::MapAccess<'a> for Fields<'_, '_, 'a> {
    type Error = Error;

    fn next_key_seed<K: DeserializeSeed<'a>>(&mut self, seed: K) -> Result<Option<K::Value>, Error> {
        while let Some(entry) = self.reader.node.entries().get(self.position) {
            self.position += 1;
            let Some(known) = self.known else {
                return seed.deserialize(de::value::StrDeserializer::<Error>::new(&entry.key)).map(Some);
            };
            if known.contains(&entry.key.as_ref()) {
                return seed.deserialize(de::value::StrDeserializer::<Error>::new(&entry.key)).map(Some);
            }
            if self.reader.unknown.borrow().len() >= UNKNOWN {
                continue;
            }
            let hint = nearest(&entry.key, known)
                .map_or_else(String::new, |field| format!("; did you mean {field:?}?"));
            self.reader.unknown.borrow_mut().push(Fault {
                path: FieldPath(vec![Segment::Field(entry.key.clone().into_owned())]),
                at: Some(entry.key_at),
                message: format!("unknown field{hint}"),
            });
        }
        Ok(None)
    }

    fn next_value_seed<V: DeserializeSeed<'a>>(&mut self, seed: V) -> Result<V::Value, Error> {
        // Called only after next_key_seed has found an entry.
        let Some(entry) = self.reader.node.entries().get(self.position.wrapping_sub(1)) else {
            return Err(de::Error::custom("a value was asked for before its key"));
        };
        let segment = || match self.known {
            Some(_) => Segment::Field(entry.key.clone().into_owned()),
            None => Segment::Key(entry.key.clone().into_owned()),
        };
        let before = self.reader.unknown.borrow().len();
        let value = seed.deserialize(self.reader.with(&entry.node));
        if self.reader.unknown.borrow().len() > before {
            prefix_unknown(self.reader, before, &segment());
        }
        value.map_err(|error| error.within(segment()))
    }
}

/// Puts a step before the paths of the unknown fields that were found below it.
fn prefix_unknown(reader: &Reader<'_, '_>, from: usize, segment: &Segment) {
    for fault in reader.unknown.borrow_mut().iter_mut().skip(from) {
        fault.path.0.insert(0, segment.clone());
    }
}

impl<'a> de::Deserializer<'a> for Reader<'_, 'a> {
    type Error = Error;

    /// Of the wire types of a pod only `IntOrString` is not of one type.
    fn deserialize_any<V: Visitor<'a>>(self, visitor: V) -> Result<V::Value, Error> {
        let read = match &self.node.value {
            Value::Null => visitor.visit_unit(),
            Value::Bool(value) => visitor.visit_bool(*value),
            Value::Int(_) => {
                self.integer(i32::MIN.into(), i32::MAX.into()).and_then(|it| visitor.visit_i64(it))
            }
            Value::UInt(value) => visitor.visit_u64(*value),
            Value::Float(value) => visitor.visit_f64(*value),
            Value::Text(text) => visitor.visit_str(text),
            Value::List(_) => self.read_list(visitor),
            Value::Map(_) => self.read_map(None, visitor),
        };
        read.map_err(|error: Error| {
            match error.path.is_empty() && !error.message.starts_with("Invalid value") {
                true => self.wrong(Needed::Integer, "an integer or a string"),
                false => error,
            }
        })
    }

    fn deserialize_bool<V: Visitor<'a>>(self, visitor: V) -> Result<V::Value, Error> {
        match self.node.value {
            Value::Bool(value) => visitor.visit_bool(value),
            _ => Err(self.wrong(Needed::Bool, "true or false")),
        }
    }

    fn deserialize_i32<V: Visitor<'a>>(self, visitor: V) -> Result<V::Value, Error> {
        self.integer(i32::MIN.into(), i32::MAX.into()).and_then(|value| visitor.visit_i64(value))
    }

    fn deserialize_i64<V: Visitor<'a>>(self, visitor: V) -> Result<V::Value, Error> {
        self.integer(i64::MIN, i64::MAX).and_then(|value| visitor.visit_i64(value))
    }

    fn deserialize_str<V: Visitor<'a>>(self, visitor: V) -> Result<V::Value, Error> {
        match &self.node.value {
            Value::Text(text) => visitor.visit_str(text).map_err(|mut error: Error| {
                if !error.message.starts_with("Invalid value") {
                    error.message = format!("Invalid value: {}: {}", self.node.describe(), error.message);
                }
                error
            }),
            _ => Err(self.wrong(Needed::Text, "a string")),
        }
    }

    fn deserialize_string<V: Visitor<'a>>(self, visitor: V) -> Result<V::Value, Error> {
        self.deserialize_str(visitor)
    }

    fn deserialize_option<V: Visitor<'a>>(self, visitor: V) -> Result<V::Value, Error> {
        match self.node.value {
            Value::Null => visitor.visit_none(),
            _ => visitor.visit_some(self),
        }
    }

    fn deserialize_newtype_struct<V: Visitor<'a>>(
        self,
        name: &'static str,
        visitor: V,
    ) -> Result<V::Value, Error> {
        match (name, &self.node.value) {
            ("Quantity", Value::Null | Value::Bool(_) | Value::List(_) | Value::Map(_)) => {
                Err(self.wrong(Needed::Text, "a quantity such as 100m or 64Mi"))
            }
            _ => visitor.visit_newtype_struct(self),
        }
    }

    fn deserialize_seq<V: Visitor<'a>>(self, visitor: V) -> Result<V::Value, Error> {
        self.read_list(visitor)
    }

    fn deserialize_map<V: Visitor<'a>>(self, visitor: V) -> Result<V::Value, Error> {
        self.read_map(None, visitor)
    }

    fn deserialize_struct<V: Visitor<'a>>(
        self,
        _name: &'static str,
        fields: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Error> {
        self.read_map(Some(fields), visitor)
    }

    fn deserialize_ignored_any<V: Visitor<'a>>(self, visitor: V) -> Result<V::Value, Error> {
        visitor.visit_unit()
    }

    serde::forward_to_deserialize_any! {
        <V: Visitor<'a>>
        i8 i16 i128 u8 u16 u32 u64 u128 f32 f64 char bytes byte_buf unit unit_struct tuple tuple_struct
        enum identifier
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_near_miss_is_named() {
        let known: &[&'static str] = &["image", "imagePullPolicy", "env", "tty"];
        assert_eq!(nearest("imagee", known), Some("image"));
        assert_eq!(nearest("imagepullpolicy", known), Some("imagePullPolicy"));
        assert_eq!(nearest("imagePulPolicy", known), Some("imagePullPolicy"));
        assert_eq!(nearest("zzz", known), None);
    }
}

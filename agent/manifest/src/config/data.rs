//! The values of a ConfigMap or Secret.

use coracle_document::{Entry, Faults, Location, Node, Path, Value};
use std::borrow::Cow;
use std::collections::BTreeMap;
use std::sync::Arc;

use base64::Engine;
use base64::alphabet::STANDARD;
use base64::engine::{GeneralPurpose, GeneralPurposeConfig};

use crate::error::REDACTED;
use crate::syntax;

/// By key, each with the place of its key in the file.
pub(super) type Values = BTreeMap<String, (Arc<[u8]>, Location)>;

/// One of an object's maps of values.
pub(super) struct Section {
    pub(super) field: &'static str,
    pub(super) encoding: Encoding,
    /// Whether a message must not show a value.
    pub(super) secret: bool,
}

/// How a value is written.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Encoding {
    Plain,
    Base64,
}

/// As Go's: padding is needed, and what its last character has in excess of a byte does not matter.
const BASE64: GeneralPurpose =
    GeneralPurpose::new(&STANDARD, GeneralPurposeConfig::new().with_decode_allow_trailing_bits(true));

// === impl Section ===

impl Section {
    /// Takes the section out of an object and checks it; `None` when `faults` grew.
    pub(super) fn take(&self, tree: &mut Node<'_>, faults: &mut Faults) -> Option<Values> {
        let Value::Map(fields) = &mut tree.value else { return Some(Values::new()) };
        let Some(field) = fields.iter_mut().find(|entry| entry.key == self.field) else {
            return Some(Values::new());
        };
        // Its place stays, for what is missing in it.
        let (key_at, at) = (field.key_at, field.node.at);
        let node = Node { value: std::mem::replace(&mut field.node.value, Value::Null), at };
        let path = Path::ROOT.child(self.field);
        let entries = match node.value {
            Value::Null => return Some(Values::new()),
            Value::Map(entries) => entries,
            _ => {
                let message = format!("Invalid value: {}: must be a mapping", self.show(&node));
                faults.push_at(&path, key_at, message);
                return None;
            }
        };
        let mut values = Values::new();
        let mut complete = true;
        for Entry { key, key_at, node } in entries {
            let path = path.key(&key);
            let named = syntax::config_key(&key);
            if let Err(detail) = named {
                faults.invalid_at(&path, key_at, &key, detail);
            }
            match self.value(&node) {
                Ok(value) => drop(values.insert(key.into_owned(), (value, key_at))),
                Err(message) => {
                    faults.push_at(&path, node.at, message);
                    complete = false;
                }
            }
            complete &= named.is_ok();
        }
        complete.then_some(values)
    }

    fn value(&self, node: &Node<'_>) -> Result<Arc<[u8]>, String> {
        let text = match &node.value {
            Value::Text(text) => text,
            // The API server reads null as nothing.
            Value::Null => return Ok(Arc::default()),
            Value::Bool(_) | Value::Int(_) | Value::UInt(_) | Value::Float(_) => {
                let shown = self.show(node);
                return Err(format!("Invalid value: {shown}: must be a string (put it in quotes)"));
            }
            Value::List(_) | Value::Map(_) => {
                return Err(format!("Invalid value: {}: must be a string", self.show(node)));
            }
        };
        if self.encoding == Encoding::Plain {
            return Ok(Arc::from(text.as_bytes()));
        }
        // Go's decoder skips the ends of lines.
        let joined = match text.contains(['\r', '\n']) {
            true => Cow::Owned(text.replace(['\r', '\n'], "")),
            false => Cow::Borrowed(&**text),
        };
        BASE64.decode(joined.as_bytes()).map(Arc::from).map_err(|_| {
            let plain = if self.secret { "stringData" } else { "data" };
            let shown = self.show(node);
            format!("Invalid value: {shown}: must be base64 (RFC 4648, section 4); plain text belongs under {plain}")
        })
    }

    fn show(&self, node: &Node<'_>) -> String {
        if self.secret { REDACTED.to_owned() } else { node.describe() }
    }
}

//! JSON text to trees.
//!
//! JSON is nearly YAML, but not quite (escapes of surrogate pairs, tabs, `1e400`), and a reader that
//! tells the place of every value is short.

use std::borrow::Cow;
use std::collections::HashMap;

use crate::fault::{Fault, Faults, quote};
use crate::node::{Entry, Location, Node, Value, to_u32};
use crate::path::Path;
use crate::{MAX_DEPTH, MAX_NODES};

/// Whether kubectl would take the text for JSON: it begins with a brace.
pub(crate) fn looks_like(text: &str) -> bool {
    text.trim_start().starts_with('{')
}

/// All values of the text, one after another. A repeated key is a fault that does not stop the
/// reading; the returned fault does.
pub(crate) fn read<'a>(text: &'a str, faults: &mut Faults) -> Result<Vec<Node<'a>>, Fault> {
    let mut reader = Reader { text, offset: 0, line: 1, counted: 0, column: 1, nodes: 0, faults };
    let mut documents = Vec::new();
    loop {
        reader.skip_space();
        if reader.peek().is_none() {
            return Ok(documents);
        }
        documents.push(reader.value(1, &Path::ROOT)?);
    }
}

struct Reader<'a, 'f> {
    text: &'a str,
    offset: usize,
    line: usize,
    /// The offset up to which `column` was counted: a document may be one long line.
    counted: usize,
    column: usize,
    nodes: usize,
    faults: &'f mut Faults,
}

// === impl Reader ===

impl<'a> Reader<'a, '_> {
    fn peek(&self) -> Option<u8> {
        self.text.as_bytes().get(self.offset).copied()
    }

    fn skip_space(&mut self) {
        while let Some(byte @ (b' ' | b'\t' | b'\r' | b'\n')) = self.peek() {
            self.offset += 1;
            if byte == b'\n' {
                self.line += 1;
                (self.counted, self.column) = (self.offset, 1);
            }
        }
    }

    fn at(&mut self) -> Location {
        self.column += self.text.get(self.counted..self.offset).map_or(0, |passed| passed.chars().count());
        self.counted = self.offset;
        Location { line: to_u32(self.line), column: to_u32(self.column) }
    }

    fn fail<T>(&mut self, what: impl std::fmt::Display) -> Result<T, Fault> {
        let at = self.at();
        Err(Fault { path: Path::ROOT.to_path(), at: Some(at), message: format!("not valid JSON: {what}") })
    }

    fn expected<T>(&mut self, what: &str) -> Result<T, Fault> {
        match self.text.get(self.offset..).and_then(|rest| rest.chars().next()) {
            Some(found) => self.fail(format_args!("expected {what}, found {found:?}")),
            None => self.fail(format_args!("expected {what}, found the end")),
        }
    }

    fn value(&mut self, depth: usize, path: &Path<'_>) -> Result<Node<'a>, Fault> {
        let at = self.at();
        self.nodes += 1;
        if self.nodes > MAX_NODES {
            return self.fail(format_args!("the file holds more than {MAX_NODES} values"));
        }
        if depth > MAX_DEPTH {
            return self.fail(format_args!("nested deeper than {MAX_DEPTH} levels"));
        }
        let value = match self.peek() {
            Some(b'{') => Value::Map(self.map(depth, path)?),
            Some(b'[') => Value::List(self.list(depth, path)?),
            Some(b'"') => Value::Text(self.string()?),
            Some(b'-' | b'0'..=b'9') => self.number()?,
            _ => self.word()?,
        };
        Ok(Node { value, at })
    }

    fn map(&mut self, depth: usize, path: &Path<'_>) -> Result<Vec<Entry<'a>>, Fault> {
        let mut entries = Vec::new();
        let mut seen: HashMap<Cow<'a, str>, u32> = HashMap::new();
        self.offset += 1;
        self.skip_space();
        if self.peek() == Some(b'}') {
            self.offset += 1;
            return Ok(entries);
        }
        loop {
            self.skip_space();
            let key_at = self.at();
            if self.peek() != Some(b'"') {
                return self.expected("a key in double quotes");
            }
            let key = self.string()?;
            self.skip_space();
            if self.peek() != Some(b':') {
                return self.expected("':'");
            }
            self.offset += 1;
            self.skip_space();
            let node = self.value(depth + 1, &path.child(&key))?;
            if let Some(first) = seen.get(&key) {
                self.faults.add(Fault {
                    path: path.child(&key).to_path(),
                    at: Some(key_at),
                    message: format!("key {} is repeated: it stands already on line {first}", quote(&key)),
                });
            } else {
                seen.insert(key.clone(), key_at.line);
                entries.push(Entry { key, key_at, node });
            }
            self.skip_space();
            match self.peek() {
                Some(b',') => self.offset += 1,
                Some(b'}') => {
                    self.offset += 1;
                    return Ok(entries);
                }
                _ => return self.expected("',' or '}'"),
            }
        }
    }

    fn list(&mut self, depth: usize, path: &Path<'_>) -> Result<Vec<Node<'a>>, Fault> {
        let mut items = Vec::new();
        self.offset += 1;
        self.skip_space();
        if self.peek() == Some(b']') {
            self.offset += 1;
            return Ok(items);
        }
        loop {
            self.skip_space();
            items.push(self.value(depth + 1, &path.index(items.len()))?);
            self.skip_space();
            match self.peek() {
                Some(b',') => self.offset += 1,
                Some(b']') => {
                    self.offset += 1;
                    return Ok(items);
                }
                _ => return self.expected("',' or ']'"),
            }
        }
    }

    fn string(&mut self) -> Result<Cow<'a, str>, Fault> {
        let rest = self.text.as_bytes().get(self.offset..).unwrap_or_default();
        let mut length = 1;
        loop {
            match rest.get(length) {
                Some(b'"') => break,
                Some(b'\\') => length += 2,
                Some(b'\n') | None => return self.fail("a text is not ended by '\"'"),
                Some(_) => length += 1,
            }
        }
        let quoted = self.text.get(self.offset..=self.offset + length).unwrap_or_default();
        let plain = &quoted[1..quoted.len().saturating_sub(1).max(1)];
        let text = if plain.bytes().all(|byte| byte >= 0x20 && byte != b'\\') {
            Cow::Borrowed(plain)
        } else {
            match serde_json::from_str::<String>(quoted) {
                Ok(text) => Cow::Owned(text),
                Err(_) => return self.fail("a text holds a control character or an unknown escape"),
            }
        };
        self.offset += quoted.len();
        Ok(text)
    }

    fn number(&mut self) -> Result<Value<'a>, Fault> {
        let rest = self.text.get(self.offset..).unwrap_or_default();
        let end =
            rest.find(|c: char| !matches!(c, '0'..='9' | '+' | '-' | '.' | 'e' | 'E')).unwrap_or(rest.len());
        let Ok(number) = serde_json::from_str::<serde_json::Number>(&rest[..end]) else {
            return self.fail("not a number");
        };
        let value = match (number.as_i64(), number.as_u64(), number.as_f64()) {
            (Some(value), _, _) => Value::Int(value),
            (_, Some(value), _) => Value::UInt(value),
            (_, _, Some(value)) if value.is_finite() => Value::Float(value),
            _ => return self.fail("not a finite number"),
        };
        self.offset += end;
        Ok(value)
    }

    fn word(&mut self) -> Result<Value<'a>, Fault> {
        let rest = self.text.get(self.offset..).unwrap_or_default();
        for (word, value) in
            [("null", Value::Null), ("true", Value::Bool(true)), ("false", Value::Bool(false))]
        {
            if rest.starts_with(word) {
                self.offset += word.len();
                return Ok(value);
            }
        }
        self.expected("a value")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_what_yaml_would_not() {
        let mut faults = Faults::default();
        let text = "{\n\t\"a\": \"\\ud83d\\ude00\\/\",\n\t\"b\": [1, -2.5, true, null, {}]}\n{\"c\": []}";
        let documents = read(text, &mut faults).unwrap();
        assert!(faults.is_empty());
        assert_eq!(documents.len(), 2);
        assert_eq!(documents[0].get_text("a"), Some("😀/"));
        assert_eq!(documents[0].get("b").unwrap().at, Location { line: 3, column: 7 });
    }

    #[test]
    fn what_is_no_json() {
        for text in [
            "{",
            "{\"a\"",
            "{\"a\":",
            "{\"a\":1",
            "{\"a\":1,",
            "{\"a\":1,}",
            "{a: 1}",
            "{\"a\": 01}",
            "{\"a\": 1e999}",
            "{\"a\": \"\u{1}\"}",
            "{\"a\": \"\\q\"}",
            "{\"a\": \"b",
            "{\"a\": \"b\\",
            "{\"a\": tru}",
            "{\"a\": [1,]}",
            "}",
            "{\"a\": \"\\ud800\"}",
            "{} x",
        ] {
            assert!(read(text, &mut Faults::default()).is_err(), "{text:?} was accepted");
        }
    }

    #[test]
    fn a_repeated_key_is_named_with_both_lines() {
        let mut faults = Faults::default();
        read("{\"a\": {\"b\": 1,\n\"b\": 2}}", &mut faults).unwrap();
        assert_eq!(faults.0[0].path.to_string(), "a.b");
        assert_eq!(faults.0[0].message, "key \"b\" is repeated: it stands already on line 1");
        assert_eq!(faults.0[0].at.unwrap().line, 2);
    }
}

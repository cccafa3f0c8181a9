//! YAML text to trees.
//!
//! The tree is composed here from the parser's events, because it must do what no general reader does
//! at once: resolve scalars as kubectl's parser does, know the place of every value, report repeated
//! keys and go on, and stay within a budget however often an alias repeats a subtree.

use std::borrow::Cow;
use std::collections::HashMap;

use granit_parser::{Event, Parser, ScalarStyle, ScanError, Span, StrInput, Tag};

use crate::fault::{Fault, Faults, quote};
use crate::node::{Entry, Location, Node, Value, to_u32};
use crate::path::Path;
use crate::scalar;
use crate::{MAX_BYTES, MAX_DEPTH, MAX_NODES};

/// All documents of a file; empty ones are left out. A repeated key is a fault that does not stop the
/// reading; the returned fault does.
pub(crate) fn read<'a>(text: &'a str, faults: &mut Faults) -> Result<Vec<Node<'a>>, Fault> {
    let mut options = granit_parser::options! {
        flow_nesting_limit: MAX_DEPTH,
        block_nesting_limit: MAX_DEPTH,
    };
    options.set_emit_comments(false);
    let parser = Parser::new_from_str_with_options(text, options);
    let mut composer = Composer { parser, anchors: HashMap::new(), nodes: 0, repeated_bytes: 0, faults };
    let mut documents = Vec::new();
    while let Some((event, span)) = composer.next_event()? {
        match event {
            Event::DocumentStart(..) => composer.anchors.clear(),
            Event::StreamStart | Event::StreamEnd | Event::DocumentEnd => {}
            node => {
                let node = composer.compose(node, span, 1, &Path::ROOT)?;
                if !matches!(node.value, Value::Null) {
                    documents.push(node);
                }
            }
        }
    }
    Ok(documents)
}

struct Composer<'a, 'f> {
    parser: Parser<'a, StrInput<'a>>,
    anchors: HashMap<usize, Node<'a>>,
    /// Nodes made so far, those that aliases repeat among them.
    nodes: usize,
    /// Bytes of text that aliases have repeated.
    repeated_bytes: usize,
    faults: &'f mut Faults,
}

fn location(span: Span) -> Location {
    Location { line: to_u32(span.start.line()), column: to_u32(span.start.col().saturating_add(1)) }
}

fn fault(path: &Path<'_>, at: Location, message: impl Into<String>) -> Fault {
    Fault { path: path.to_path(), at: Some(at), message: message.into() }
}

fn syntax(error: &ScanError) -> Fault {
    let marker = error.marker();
    let at = Location { line: to_u32(marker.line()), column: to_u32(marker.col().saturating_add(1)) };
    fault(&Path::ROOT, at, format!("not valid YAML: {}", error.info()))
}

// === impl Composer ===

impl<'a> Composer<'a, '_> {
    fn next_event(&mut self) -> Result<Option<(Event<'a>, Span)>, Fault> {
        self.parser.next_event().transpose().map_err(|error| syntax(&error))
    }

    /// An event within a document; the parser ends every collection it begins.
    fn inner_event(&mut self, at: Location) -> Result<(Event<'a>, Span), Fault> {
        self.next_event()?.ok_or_else(|| fault(&Path::ROOT, at, "not valid YAML: the document ends early"))
    }

    fn compose(
        &mut self,
        event: Event<'a>,
        span: Span,
        depth: usize,
        path: &Path<'_>,
    ) -> Result<Node<'a>, Fault> {
        let at = location(span);
        self.count(depth, at)?;
        match event {
            Event::Alias(id) => self.repeat(id, depth, at, path),
            Event::Scalar(text, style, anchor, tag) => {
                let value = scalar_value(text, style, tag.as_deref()).map_err(|why| fault(path, at, why))?;
                Ok(self.remember(anchor, Node { value, at }))
            }
            Event::SequenceStart(_, anchor, tag) => {
                check_tag(tag.as_deref(), "seq").map_err(|why| fault(path, at, why))?;
                let mut items = Vec::new();
                loop {
                    let (event, span) = self.inner_event(at)?;
                    if event == Event::SequenceEnd {
                        break;
                    }
                    items.push(self.compose(event, span, depth + 1, &path.index(items.len()))?);
                }
                Ok(self.remember(anchor, Node { value: Value::List(items), at }))
            }
            Event::MappingStart(_, anchor, tag) => {
                check_tag(tag.as_deref(), "map").map_err(|why| fault(path, at, why))?;
                let entries = self.mapping(at, depth, path)?;
                Ok(self.remember(anchor, Node { value: Value::Map(entries), at }))
            }
            // Every other event stands outside of nodes, or is switched off.
            _ => Err(fault(path, at, "not valid YAML: a value is missing")),
        }
    }

    fn mapping(&mut self, at: Location, depth: usize, path: &Path<'_>) -> Result<Vec<Entry<'a>>, Fault> {
        let mut entries = Vec::new();
        let mut seen: HashMap<Cow<'a, str>, Location> = HashMap::new();
        let mut merged = Vec::new();
        loop {
            let (event, span) = self.inner_event(at)?;
            if event == Event::MappingEnd {
                break;
            }
            let key_at = location(span);
            let merge = matches!(&event, Event::Scalar(text, ScalarStyle::Plain, _, None) if text == "<<");
            let key = self.key(event, span, depth, path)?;
            let (event, span) = self.inner_event(at)?;
            let node = self.compose(event, span, depth + 1, &path.child(&key))?;
            if merge {
                merged.push(node);
            } else if let Some(first) = seen.get(&key) {
                self.faults.add(fault(
                    &path.child(&key),
                    key_at,
                    format!("key {} is repeated: it stands already on line {}", quote(&key), first.line),
                ));
            } else {
                seen.insert(key.clone(), key_at);
                entries.push(Entry { key, key_at, node });
            }
        }
        for node in merged {
            merge_into(&mut entries, &mut seen, node, path)?;
        }
        Ok(entries)
    }

    /// A key: text, or a scalar that kubectl's parser writes as text.
    fn key(
        &mut self,
        event: Event<'a>,
        span: Span,
        depth: usize,
        path: &Path<'_>,
    ) -> Result<Cow<'a, str>, Fault> {
        let node = self.compose(event, span, depth, path)?;
        match node.value {
            Value::Text(text) => Ok(text),
            Value::Int(_) | Value::UInt(_) | Value::Float(_) | Value::Bool(_) => Ok(node.describe().into()),
            Value::Null | Value::List(_) | Value::Map(_) => {
                Err(fault(path, node.at, format!("a key must be a text, not {}", node.describe())))
            }
        }
    }

    fn remember(&mut self, anchor: usize, node: Node<'a>) -> Node<'a> {
        // The parser numbers anchors from 1; 0 is none.
        if anchor != 0 {
            self.anchors.insert(anchor, node.clone());
        }
        node
    }

    fn repeat(
        &mut self,
        anchor: usize,
        depth: usize,
        at: Location,
        path: &Path<'_>,
    ) -> Result<Node<'a>, Fault> {
        let Some(node) = self.anchors.remove(&anchor) else {
            return Err(fault(path, at, "the alias stands within what it repeats"));
        };
        self.charge(&node, depth, at, path)?;
        let copy = node.clone();
        self.anchors.insert(anchor, node);
        Ok(copy)
    }

    /// Counts what a copy would cost, before it is made.
    fn charge(&mut self, node: &Node<'_>, depth: usize, at: Location, path: &Path<'_>) -> Result<(), Fault> {
        self.count(depth, at)?;
        match &node.value {
            Value::Text(text) => self.repeated_bytes += text.len(),
            Value::List(items) => {
                for item in items {
                    self.charge(item, depth + 1, at, path)?;
                }
            }
            Value::Map(entries) => {
                for entry in entries {
                    self.repeated_bytes += entry.key.len();
                    self.charge(&entry.node, depth + 1, at, path)?;
                }
            }
            Value::Null | Value::Bool(_) | Value::Int(_) | Value::UInt(_) | Value::Float(_) => {}
        }
        if self.repeated_bytes as u64 > MAX_BYTES {
            return Err(fault(path, at, format!("aliases repeat more than {MAX_BYTES} bytes")));
        }
        Ok(())
    }

    fn count(&mut self, depth: usize, at: Location) -> Result<(), Fault> {
        self.nodes += 1;
        if self.nodes > MAX_NODES {
            let message =
                format!("the file holds more than {MAX_NODES} values, aliases counted as often as used");
            return Err(fault(&Path::ROOT, at, message));
        }
        if depth > MAX_DEPTH {
            // The path to such a depth is no help to anyone.
            return Err(fault(&Path::ROOT, at, format!("nested deeper than {MAX_DEPTH} levels")));
        }
        Ok(())
    }
}

/// Adds what `<<` brings; a key that stands in the mapping itself, or came earlier, wins.
fn merge_into<'a>(
    entries: &mut Vec<Entry<'a>>,
    seen: &mut HashMap<Cow<'a, str>, Location>,
    node: Node<'a>,
    path: &Path<'_>,
) -> Result<(), Fault> {
    match node.value {
        Value::Map(brought) => {
            for entry in brought {
                if !seen.contains_key(&entry.key) {
                    seen.insert(entry.key.clone(), entry.key_at);
                    entries.push(entry);
                }
            }
            Ok(())
        }
        Value::List(items) if items.iter().all(|item| matches!(item.value, Value::Map(_))) => {
            items.into_iter().try_for_each(|item| merge_into(entries, seen, item, path))
        }
        _ => Err(fault(path, node.at, "a merge key (<<) needs a mapping or a list of mappings")),
    }
}

fn scalar_value<'a>(text: Cow<'a, str>, style: ScalarStyle, tag: Option<&Tag>) -> Result<Value<'a>, String> {
    let plain = |text: Cow<'a, str>| match scalar::resolve(&text) {
        Ok(Some(value)) => Ok(value),
        Ok(None) => Ok(Value::Text(text)),
        Err(scalar::Unusable::NotFinite) => {
            Err("must be a finite number; quote it if it is a text".to_owned())
        }
    };
    let Some(tag) = tag else {
        return if style == ScalarStyle::Plain { plain(text) } else { Ok(Value::Text(text)) };
    };
    let kind = match tag.core_suffix() {
        Some("str") => return Ok(Value::Text(text)),
        None if tag.original() == "!" => return Ok(Value::Text(text)),
        Some(kind @ ("bool" | "int" | "float" | "null")) => kind,
        _ => return Err(unknown_tag(tag)),
    };
    match (kind, plain(text)?) {
        ("bool", value @ Value::Bool(_))
        | ("null", value @ Value::Null)
        | ("int", value @ (Value::Int(_) | Value::UInt(_)))
        | ("float", value @ (Value::Float(_) | Value::Int(_) | Value::UInt(_))) => Ok(value),
        _ => Err(format!("the value is not what its tag !!{kind} says")),
    }
}

fn check_tag(tag: Option<&Tag>, kind: &str) -> Result<(), String> {
    match tag {
        Some(tag) if tag.core_suffix() != Some(kind) && tag.original() != "!" => Err(unknown_tag(tag)),
        _ => Ok(()),
    }
}

fn unknown_tag(tag: &Tag) -> String {
    format!("the YAML tag {} is not supported", tag.original())
}

//! Documents of a file: which kinds there are, and what a list holds.

use coracle_document::{Fault, Faults, FieldPath, Node, Segment, Value, quote};
use coracle_model::ConfigKind;

/// One object's document.
pub(crate) struct Document<'a> {
    pub(crate) kind: Kind,
    pub(crate) node: Node<'a>,
    /// Where it stands in its list: `items[0]`.
    pub(crate) prefix: Vec<Segment>,
}

/// The kinds of object that are read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    Pod,
    Config(ConfigKind),
}

// === impl Kind ===

impl Kind {
    pub(crate) const ALL: [Self; 3] =
        [Self::Pod, Self::Config(ConfigKind::ConfigMap), Self::Config(ConfigKind::Secret)];

    /// Kubernetes' word.
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Self::Pod => "Pod",
            Self::Config(kind) => kind.as_str(),
        }
    }

    fn of(word: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|kind| kind.as_str() == word)
    }
}

/// Takes lists apart and refuses what is no object this crate reads.
pub(crate) fn split<'a>(roots: Vec<Node<'a>>, faults: &mut Faults) -> Vec<Document<'a>> {
    let mut documents = Vec::new();
    for root in roots {
        take(root, Vec::new(), true, &mut documents, faults);
    }
    documents
}

fn take<'a>(
    mut node: Node<'a>,
    prefix: Vec<Segment>,
    outermost: bool,
    documents: &mut Vec<Document<'a>>,
    faults: &mut Faults,
) {
    let mut refuse = |field: Option<&str>, message: String, node: &Node<'_>| {
        let path: Vec<_> = field.map(|field| Segment::Field(field.to_owned())).into_iter().collect();
        let at = Some(node.locate(&FieldPath(path.clone())));
        let path = FieldPath(prefix.iter().cloned().chain(path).collect());
        faults.add(Fault { path, at, message });
    };
    if !matches!(node.value, Value::Map(_)) {
        let message =
            format!("a manifest must be a mapping (apiVersion, kind, ...), not {}", node.describe());
        return refuse(None, message, &node);
    }
    let (version, kind) = (node.get_text("apiVersion"), node.get_text("kind"));
    for (field, value) in [("apiVersion", version), ("kind", kind)] {
        if value.unwrap_or_default().is_empty() {
            return match node.get(field) {
                Some(given) if !matches!(given.value, Value::Null | Value::Text(_)) => {
                    let message = format!("Invalid value: {}: must be a string", given.describe());
                    refuse(Some(field), message, &node)
                }
                _ => refuse(Some(field), "Required value".to_owned(), &node),
            };
        }
    }
    let (version, kind) = (version.unwrap_or_default(), kind.unwrap_or_default());
    // Of what the items of a list are; `None` for any kind.
    let list = match kind.strip_suffix("List") {
        Some("") => Some(None),
        Some(item) => Kind::of(item).map(Some),
        None => None,
    };
    match (version, Kind::of(kind), list) {
        ("v1", Some(kind), _) => {
            if let Value::Map(entries) = &mut node.value {
                // Another node's report; nothing of it is read here, not even its types.
                entries.retain(|entry| entry.key != "status");
            }
            documents.push(Document { kind, node, prefix });
        }
        ("v1", None, Some(of)) if outermost => take_list(node, of, documents, faults),
        ("v1", None, Some(_)) => {
            refuse(Some("kind"), "a list within a list is not accepted".to_owned(), &node);
        }
        (version, Some(_), _) => {
            let message = format!("Unsupported value: {}: supported values: \"v1\"", quote(version));
            refuse(Some("apiVersion"), message, &node);
        }
        (version, None, _) => {
            let what = quote(&format!("{version} {kind}"));
            let message = format!("{what} is not accepted: {}", accepted_kinds());
            refuse(Some("kind"), message, &node);
        }
    }
}

/// Which kinds the node takes, for a message.
fn accepted_kinds() -> String {
    let words = Kind::ALL.map(|kind| format!("v1 {}", kind.as_str()));
    format!("this node accepts {} and v1 List", words.join(", "))
}

fn take_list<'a>(list: Node<'a>, of: Option<Kind>, documents: &mut Vec<Document<'a>>, faults: &mut Faults) {
    let Value::Map(entries) = list.value else { return };
    let items = entries.into_iter().find(|entry| entry.key == "items").map(|entry| entry.node);
    match items {
        None | Some(Node { value: Value::Null, .. }) => {}
        Some(Node { value: Value::List(items), .. }) => {
            for (index, mut item) in items.into_iter().enumerate() {
                if let Some(kind) = of {
                    name_kind(&mut item, kind);
                }
                let prefix = vec![Segment::Field("items".to_owned()), Segment::Index(index)];
                take(item, prefix, false, documents, faults);
            }
        }
        Some(other) => {
            let path = FieldPath(vec![Segment::Field("items".to_owned())]);
            let message = format!("Invalid value: {}: must be a list", other.describe());
            faults.add(Fault { path, at: Some(other.at), message });
        }
    }
}

/// The items of a typed list may leave out what the list's kind says.
fn name_kind(item: &mut Node<'_>, kind: Kind) {
    let at = item.at;
    let missing: Vec<_> = [("apiVersion", "v1"), ("kind", kind.as_str())]
        .into_iter()
        .filter(|(field, _)| item.get(field).is_none())
        .collect();
    if let Value::Map(entries) = &mut item.value {
        for (field, text) in missing {
            let node = Node { value: Value::Text(text.into()), at };
            entries.push(coracle_document::Entry { key: field.into(), key_at: at, node });
        }
    }
}
